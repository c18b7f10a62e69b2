"""Law: the Python of docs/petsc.md runs as it stands, and its options do what the page says."""

import re
from pathlib import Path

import numpy as np
import pytest

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "petsc.md").read_text()
BLOCKS = re.findall(r"^``` \{ \.python \}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_blocks_run(petsc, options, monkeypatch):
    monkeypatch.setattr("sys.argv", ["script.py", "out"])
    options(
        "-ksp_type cg -pc_type mg -pc_mg_levels 6"
        " -snes_type fas -snes_fas_levels 5 -fas_coarse_pc_type lu"
        " -fas_levels_snes_type python -fas_levels_snes_python_type mgnet.petsc.Sweeps"
        " -time_snes_type fas -time_snes_fas_levels 3 -time_snes_rtol 1e-9"
    )
    for part in ("levels", "up_levels", "coarse"):
        options(
            f"-time_fas_{part}_snes_type python"
            f" -time_fas_{part}_snes_python_type mgnet.petsc.Sweeps"
        )
    assert len(BLOCKS) == 6
    names: dict = {}
    for block in BLOCKS:
        exec(compile(block, "docs/petsc.md", "exec"), names)
    assert names["arguments"] == ["script.py", "out"]
    assert names["solution"].reason.converged
    assert names["ksp"].getConvergedReason() > 0
    assert names["snes"].getConvergedReason() > 0
    assert names["time"].getConvergedReason() > 0
    exact = names["heating"].serial()
    np.testing.assert_allclose(names["u"].array.reshape(exact.shape), exact, atol=1e-8)
    assert names["parallel"].net.depth == 128
    assert len(names["hierarchy"]) == 3


@pytest.mark.parametrize(
    "line",
    [
        '-mgnet_cycle "nested F(1,1)" -mgnet_levels 4 -mgnet_monitor',
        '-mgnet_smoother "Jacobi(0.8)" -mgnet_levels_0_smoother "Chebyshev(2)" -mgnet_view',
        "-mgnet_smoother \"KSPSmoother('relax_')\" -relax_ksp_max_it 2 -relax_pc_type sor",
    ],
)
def test_the_lines_of_the_page(petsc, options, line, capfd, monkeypatch):
    assert f"python script.py {line}\n" in PAGE
    monkeypatch.setattr("sys.argv", ["script.py"])
    options(line)
    names: dict = {}
    exec(BLOCKS[0], names)
    assert names["solution"].reason.converged
