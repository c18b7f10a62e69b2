"""Law: the Python of docs/petsc.md and docs/options.md runs and prints what stands there."""

import re
from pathlib import Path

import numpy as np
import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
OPTIONS = (DOCS / "options.md").read_text()


def blocks(page: str) -> list[str]:
    return re.findall(r"^``` \{ \.python \}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def run_page(page: str) -> dict:
    names: dict = {}
    for block in blocks((DOCS / page).read_text()):
        exec(compile(block, f"docs/{page}", "exec"), names)
    return names


def test_solvers_and_ranks(petsc, options, monkeypatch):
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
    names = run_page("petsc.md")
    assert names["arguments"] == ["script.py", "out"]
    assert names["ksp"].getConvergedReason() > 0
    assert names["snes"].getConvergedReason() > 0
    assert names["time"].getConvergedReason() > 0
    exact = names["heating"].serial()
    np.testing.assert_allclose(names["u"].array.reshape(exact.shape), exact, atol=1e-8)
    assert names["parallel"].net.depth == 128
    assert len(names["hierarchy"]) == 3


def test_options(petsc, options, monkeypatch):
    monkeypatch.setattr("sys.argv", ["script.py", "out"])
    options("-mgnet_levels 3")
    names = run_page("options.md")
    assert names["arguments"] == ["script.py", "out"]
    assert names["solution"].reason.converged
    assert len(names["solver"].hierarchy) == 3
    assert names["parallel"].net is names["net"]


def rounded(text: str) -> str:
    return re.sub(r"(\d\.\d{6})\d+", r"\1", text)


@pytest.mark.parametrize(
    "line", re.findall(r"^    python script\.py (-mgnet.*)$", OPTIONS, re.MULTILINE)
)
def test_lines(petsc, options, line, capfd, monkeypatch):
    monkeypatch.setattr("sys.argv", ["script.py"])
    options(line)
    exec(blocks(OPTIONS)[0], {})
    command = re.escape(f"    python script.py {line}\n")
    shown = re.search(rf"^{command}\n```text\n(.*?)^```$", OPTIONS, re.MULTILINE | re.DOTALL)
    if shown:
        assert rounded(capfd.readouterr().out) == rounded(shown[1])
