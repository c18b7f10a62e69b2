"""Law: every script in demos/ runs as it stands, prints something and leaves a picture."""

import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as spla
from scipy.integrate import solve_ivp

ROOT = Path(__file__).resolve().parent.parent
DEMOS = {  # name -> packages without which it only says that it is skipped
    "poisson": (),
    "custom_cycle": (),
    "amg": ("pyamg",),
    "stokes": (),
    "elevation": ("sklearn",),
    "rough_composition": ("sklearn",),
    "levenberg_marquardt": (),
    "basis_preconditioning": (),
    "kan_fit": (),
    "adaptive_basis": (),
    "free_knots": (),
    "kan_pinn": (),
    "kan_inverse": (),
    "depth_refinement": (),
    "small_gpt": (),
    "mgrit_heat": (),
    "mgrit_brusselator": (),
    "adaptive_time": (),
    "layer_parallel": (),
    "gru_in_time": (),
    "neural_ode": (),
    "plan": (),
    "solver_composition": (),
    "petsc_composition": ("petsc4py",),
}
MORE = {  # less training
    "elevation": ["0.5"],
    "rough_composition": ["0.1"],
    "levenberg_marquardt": ["0.3"],
    "adaptive_basis": ["0.2"],
    "kan_pinn": ["0.1"],
    "depth_refinement": ["20"],
    "small_gpt": ["2"],
    "gru_in_time": ["3"],
    "neural_ode": ["60"],
    "free_knots": ["30"],
    "kan_inverse": ["0.5"],
    "layer_parallel": ["10"],
}


def numbers(text: str, row: str) -> list[float]:
    """What stands behind the name of a row of a printed table."""
    (line,) = (line for line in text.splitlines() if line.strip().startswith(row))
    found = [word.strip("%N,") for word in line.strip().removeprefix(row).split()]
    return [float(word) for word in found if re.fullmatch(r"[-+\d.e]*\d", word)]


def lid_driven_cavity(n: int) -> np.ndarray:
    """The stream function, x first, by its biharmonic equation alone: 13 points, no pressure."""
    ends = sp.csr_matrix(([1.0, 1.0], ([0, n - 2], [0, n - 2])), shape=(n - 1, n - 1))
    second = sp.diags([1.0, -2.0, 1.0], [-1, 0, 1], shape=(n - 1, n - 1))
    fourth = second @ second + 2.0 * ends  # a reflection: at walls the slope is zero
    one, f = sp.identity(n - 1), np.zeros((n - 1, n - 1))
    f[:, -1] = -2.0 / n  # but for the lid
    matrix = sp.kron(fourth, one) + 2.0 * sp.kron(second, second) + sp.kron(one, fourth)
    stream: Any = spla.spsolve(matrix.tocsc(), f.ravel())
    return stream.reshape(f.shape)


def stokes(text: str) -> None:
    errors = np.array([numbers(text, f"{n} ")[-2:] for n in (16, 32, 64)])
    assert (errors[:-1] / errors[1:] > 3.9).all()  # of second order
    assert numbers(text, "Largest difference to SciPy's sparse LU, n = 32:")[-1] < 1e-8
    cells, together = "Vanka, one cell after the other  ", "Vanka, all cells at once, omega = 0.6"
    own = "distributive, a class of this script"
    for row, most in ((cells, 0.15), (together, 0.4), (own, 0.36)):
        factors = numbers(text, row)[:4]
        assert max(factors) < most and factors[-1] < 1.15 * factors[0]  # on every grid
    assert max(numbers(text, "Vanka, one cell after the other, V")[:4]) < 0.3
    assert max(numbers(text, "distributive, V, inside GMRES")[:4]) < 0.25
    coarse, fine = lid_driven_cavity(64), lid_driven_cavity(128)
    least, x, y = numbers(text, "The vortex:")
    assert abs(least - (4.0 * fine.min() - coarse.min()) / 3.0) < 5e-5
    place = np.unravel_index(fine.argmin(), fine.shape)
    assert abs(np.array([x, y]) - (np.array(place) + 1) / 128).max() < 1 / 128
    eddy = numbers(text, "An eddy in a corner:")[0]
    assert abs(eddy / fine.max() - 1) < 0.1


def kan_inverse(text: str) -> None:
    for noise in (1, 3, 10):
        viscosity, error, deviation, _ = numbers(text, f"{noise}% ")
        assert abs(viscosity - 0.1 - error) < 1e-4
        assert abs(error) < 4 * deviation < 0.003 * noise


def free_knots(text: str) -> None:
    table = [line.split() for line in text.splitlines() if line.startswith(("even ", "free "))]
    rmse = {(kind, int(intervals)): float(error) for kind, intervals, *_, error in table}
    assert rmse["free", 16] < 0.1 * rmse["even", 32]
    assert rmse["free", 32] <= rmse["free", 16]


def gru_in_time(text: str) -> None:
    losses = [numbers(text, row)[-3:-1] for row in ("one by one", "all at once")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert losses[0][1] < losses[0][0]
    assert numbers(text, "Largest relative difference of a loss:")[0] < 1e-3


def mgrit_brusselator(text: str) -> None:
    table = [line.split() for line in text.splitlines() if line.startswith(("20 ", "4, 5 "))]
    assert len(table) == 7
    assert all(float(words[-1]) < 1e-9 for words in table)  # distance after the last cycle
    assert numbers(text, "Error of the 640 steps:")[0] < 1e-5


def adaptive_time(text: str) -> None:
    steps, error = numbers(text, "adaptive")[:2]
    for row in ("3 times as many, uniform", "100 times as many, uniform"):
        count, uniform = numbers(text, row)[:2]
        assert count >= 3 * steps and uniform > 100 * error


def neural_ode(text: str) -> None:
    errors = [float(row.split()[1]) for row in text.splitlines() if re.match(r" +\d+ ", row)]
    assert len(errors) == 7 and errors[-1] < 0.8 * errors[0]
    ends = [json.loads(row[row.index("[") :]) for row in text.splitlines() if row.endswith("]")]
    assert ends[0] == pytest.approx(ends[1], abs=0.05)
    assert ends[0] == pytest.approx(ends[2], abs=1e-3)


def plan(text: str) -> None:
    speedups = [numbers(text, f"{2**k} ")[-2] for k in range(11)]
    assert speedups == sorted(speedups)
    assert speedups[0] == 1.0 and speedups[-1] > 5.0


def solver_composition(text: str) -> None:
    losses = [numbers(text, row)[-1] for row in ("Levenberg", "in a cascade", "the last", "both")]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 1e-3 * losses[0]
    propagated = [numbers(text, row)[-1] for row in ("L-BFGS in", "the same")]
    assert propagated[0] == pytest.approx(propagated[1], rel=0.02)


def petsc_composition(text: str) -> None:
    reduced = [numbers(text, row)[-1] for row in ("Gauss-Seidel on", "cg with icc on")]
    assert reduced[1] < 1e-3 * reduced[0]
    iterations = [numbers(text, row)[0] for row in ("FAS, 6 levels", "NGMRES over it")]
    assert iterations[1] < 0.7 * iterations[0]


CLAIMS: dict[str, Callable[[str], None]] = {
    check.__name__: check
    for check in (
        stokes,
        kan_inverse,
        free_knots,
        gru_in_time,
        mgrit_brusselator,
        adaptive_time,
        neural_ode,
        plan,
        solver_composition,
        petsc_composition,
    )
}


def with_mgnet() -> dict[str, str]:
    """The environment of a process that finds mgnet wherever it starts."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return os.environ | {"PYTHONPATH": path}


class Demos:
    """Runs demos in any folder, in copies of a process that has loaded their libraries."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, ROOT / "tests" / "demo_process.py"],
            env=with_mgnet() | {"MPLBACKEND": "Agg"},  # matplotlib is loaded before a demo says so
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, name: str, *arguments: str, cwd: Path, warning: bool = False) -> str:
        """Return what a demo prints; with `warning` what it says on stderr, else that is empty."""
        out, err = self.folder / "stdout", self.folder / "stderr"
        script = ROOT / "demos" / f"{name}.py"
        request = json.dumps([str(word) for word in (cwd, out, err, script, *arguments)])
        assert self.process.stdin and self.process.stdout
        print(request, file=self.process.stdin, flush=True)
        code = int(self.process.stdout.readline())
        told = err.read_text()
        assert code == 0, told
        assert bool(told) == warning, told
        return told if warning else out.read_text()


@pytest.fixture(scope="module")
def demos(tmp_path_factory) -> Iterator[Demos]:
    found = Demos(tmp_path_factory.mktemp("demos"))
    with found.process:  # its stdin ends, and so does it
        yield found


def test_every_demo_is_listed():
    assert sorted(DEMOS) == sorted(file.stem for file in (ROOT / "demos").glob("*.py"))


@pytest.mark.parametrize("name", DEMOS)
def test_demo(name, demos, tmp_path):
    if not find_spec("matplotlib"):
        pytest.skip("matplotlib is not installed")
    text = demos.run(name, str(tmp_path / "pictures"), *MORE.get(name, []), cwd=tmp_path)
    assert text.strip()
    if not all(find_spec(package) for package in DEMOS[name]):
        assert text.count("\n") == 1, "one sentence says why it is skipped"
        return
    pictures = sorted((tmp_path / "pictures").glob("*.png"))
    assert pictures
    assert all(picture.stat().st_size > 5000 for picture in pictures)
    for picture in pictures:
        assert f"wrote {picture}" in text
    if name in CLAIMS:
        CLAIMS[name](text)
    assert sorted(tmp_path.iterdir()) == [tmp_path / "pictures"], "nothing is written elsewhere"


def test_pictures_go_to_out_by_default(tmp_path):
    """Here in a process that has loaded nothing."""
    if not find_spec("matplotlib"):
        pytest.skip("matplotlib is not installed")
    done = subprocess.run(
        [sys.executable, ROOT / "demos" / "custom_cycle.py"],
        cwd=tmp_path,
        env=with_mgnet(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "wrote out/custom_cycle/cycle.png" in done.stdout
    assert (tmp_path / "out" / "custom_cycle" / "cycle.png").is_file()


@pytest.mark.parametrize("name", DEMOS)
def test_every_demo_takes_options(name, options, monkeypatch, tmp_path):
    """A misspelt one ends it at its start: here, in one process that has loaded their packages."""
    if not all(find_spec(package) for package in ("matplotlib", *DEMOS[name])):
        pytest.skip(f"{name} needs more packages")
    for variable in ("MPLBACKEND", "OMP_NUM_THREADS", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(variable, os.environ.get(variable, ""))
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "argv", [name, str(tmp_path / "out"), "-mgnet_cycel", "V"])
    with pytest.raises(ValueError, match=r"^option -mgnet_cycel is unknown; .* is -mgnet_cycle "):
        runpy.run_path(str(ROOT / "demos" / f"{name}.py"))
    assert not list(tmp_path.iterdir())


def test_options_steer_a_demo(petsc, demos, tmp_path):
    lines = '-mgnet_cycle "W(1,1)" -mgnet_monitor -mgnet_rtol 1e-3'
    text = demos.run("custom_cycle", str(tmp_path), *shlex.split(lines), cwd=tmp_path)
    assert text.count("  1 mgnet Residual norm ") == 4  # one solver each
    rows = [line.split() for line in text.splitlines() if line.startswith(("V(1,1)", "F(1,1)"))]
    assert rows[0][1:] == rows[1][1:]  # both are W


def test_a_demo_names_what_it_does_not_read(petsc, demos, tmp_path):
    if not find_spec("matplotlib"):
        pytest.skip("matplotlib is not installed")
    arguments = str(tmp_path), "0.05", "-mgnet_cycle", "V(1,1)"
    told = demos.run("levenberg_marquardt", *arguments, cwd=tmp_path, warning=True)
    assert told == "warning: nothing in this script reads -mgnet_cycle\n"


def test_brusselator_reaches_the_orbit_of_scipy(monkeypatch, tmp_path):
    """A method of another kind (implicit, of variable order) for the same equation."""
    if not find_spec("matplotlib"):
        pytest.skip("matplotlib is not installed")
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.setattr(sys, "argv", ["mgrit_brusselator", str(tmp_path)])
    made = runpy.run_path(str(ROOT / "demos" / "mgrit_brusselator.py"))

    def slope(t, u):
        return 1 + u[0] ** 2 * u[1] - 4 * u[0], 3 * u[0] - u[0] ** 2 * u[1]

    times = np.linspace(0.0, 12.0, 641)
    exact = solve_ivp(slope, (0, 12), (0.0, 1.0), "Radau", times, rtol=1e-9, atol=1e-9).y.T
    assert len(made["solutions"]) == 7
    for solution in made["solutions"].values():
        assert solution.reason.converged
        assert abs(solution.value - exact).max() < 2e-5
