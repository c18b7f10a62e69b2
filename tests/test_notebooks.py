"""Law: every notebook runs from its first cell to its last, and what it claims comes out."""

import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

jupytext = pytest.importorskip("jupytext")
ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "demos" / "notebooks"


def run(name: str) -> dict:
    """Run the code cells one after another in one namespace, as Jupyter does."""
    notebook = jupytext.read(FOLDER / f"{name}.py")
    found: dict = {}
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "code":
            exec(compile(cell.source, f"{name}, cell {number}", "exec"), found)
    return found


@pytest.fixture(autouse=True)
def as_it_was():
    """A notebook may set what is global."""
    dtype, state, backend = torch.get_default_dtype(), torch.get_rng_state(), plt.get_backend()
    plt.switch_backend("Agg")
    yield
    plt.close("all")
    plt.switch_backend(backend)
    torch.set_default_dtype(dtype)
    torch.set_rng_state(state)


def test_a_table():
    found = run("fit_table")
    errors = found["errors"]
    assert 0.9 < errors["KANRegressor"] < 1.2  # the noise is 1
    assert errors["KANRegressor"] < errors["boosted trees"] < errors["linear model"]
    assert 0.9 < found["covered"] <= 1.0


def test_an_ode_net():
    found = run("train_ode_net")
    output, gradient = np.array(found["errors"]).T
    assert output[0] < 1e-2 and output[-1] < 1e-13 and gradient[-1] < 1e-13
    assert found["serial"] < 0.75 * found["losses"][0]


def test_a_linear_system():
    found = run("solve_linear_system")
    A, f = found["A"], found["f"]
    assert abs(A - A.T).max() < 1e-12 and (A @ np.ones(len(f)) > -1e-9).all()  # an M-matrix
    assert np.linalg.norm(A @ found["u"] - f) < 1e-7 * np.linalg.norm(f)
    assert np.allclose(found["by_scipy"], found["exact"], rtol=1e-5)
    assert all(solution.reason.converged for solution in found["solutions"].values())


def test_least_squares():
    found = run("least_squares")
    assert found["rms"] < 0.05
    assert abs(found["friction"] - 1.0) < 3.0 * found["deviation"] < 0.3
    assert found["error"] < 0.1


def test_every_notebook_is_linked_and_stands_in_its_own_order():
    page = (ROOT / "docs" / "demos.md").read_text()
    names = {script.stem for script in FOLDER.glob("*.py")}
    assert names == {"fit_table", "train_ode_net", "solve_linear_system", "least_squares"}
    for name in names:
        assert f"(notebooks/{name}.ipynb)" in page
        cells = jupytext.read(FOLDER / f"{name}.py").cells
        assert cells[0].cell_type == "markdown" and cells[0].source.startswith("# ")


def test_a_notebook_runs_as_a_script():
    done = subprocess.run(
        [sys.executable, FOLDER / "solve_linear_system.py"],
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "HOME": "/tmp"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
