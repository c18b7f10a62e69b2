"""Law: every script in demos/ runs as it stands, prints something and leaves a picture."""

import os
import runpy
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DEMOS = {  # name -> packages without which it only says that it is skipped
    "poisson": (),
    "custom_cycle": (),
    "amg": ("pyamg",),
    "elevation": ("sklearn",),
    "levenberg_marquardt": (),
    "basis_preconditioning": (),
    "kan_fit": (),
    "adaptive_basis": (),
    "kan_pinn": (),
    "depth_refinement": (),
    "mgrit_heat": (),
    "layer_parallel": (),
}
MORE = {  # less training
    "elevation": ["0.5"],
    "levenberg_marquardt": ["0.3"],
    "adaptive_basis": ["0.2"],
    "kan_pinn": ["0.1"],
    "depth_refinement": ["20"],
}


def run(name: str, *arguments: str, cwd: Path, warning: bool = False) -> str:
    """Return what a demo prints; with `warning` what it says on stderr, else that is empty."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, ROOT / "demos" / f"{name}.py", *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert bool(done.stderr) == warning, done.stderr
    return done.stderr if warning else done.stdout


def test_every_demo_is_listed():
    assert sorted(DEMOS) == sorted(file.stem for file in (ROOT / "demos").glob("*.py"))


@pytest.mark.parametrize("name", DEMOS)
def test_demo(name, tmp_path):
    if not find_spec("matplotlib"):
        pytest.skip("matplotlib is not installed")
    text = run(name, str(tmp_path / "pictures"), *MORE.get(name, []), cwd=tmp_path)
    assert text.strip()
    if not all(find_spec(package) for package in DEMOS[name]):
        assert text.count("\n") == 1, "one sentence says why it is skipped"
        return
    pictures = sorted((tmp_path / "pictures").glob("*.png"))
    assert pictures
    assert all(picture.stat().st_size > 5000 for picture in pictures)
    for picture in pictures:
        assert f"wrote {picture}" in text
    assert sorted(tmp_path.iterdir()) == [tmp_path / "pictures"], "nothing is written elsewhere"


def test_pictures_go_to_out_by_default(tmp_path):
    if not find_spec("matplotlib"):
        pytest.skip("matplotlib is not installed")
    assert "wrote out/custom_cycle/cycle.png" in run("custom_cycle", cwd=tmp_path)
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


def test_options_steer_a_demo(petsc, tmp_path):
    lines = '-mgnet_cycle "W(1,1)" -mgnet_monitor -mgnet_rtol 1e-3'
    text = run("custom_cycle", str(tmp_path), *shlex.split(lines), cwd=tmp_path)
    assert text.count("  1 mgnet Residual norm ") == 4  # one solver each
    rows = [line.split() for line in text.splitlines() if line.startswith(("V(1,1)", "F(1,1)"))]
    assert rows[0][1:] == rows[1][1:]  # both are W


def test_a_demo_names_what_it_does_not_read(petsc, tmp_path):
    if not find_spec("matplotlib"):
        pytest.skip("matplotlib is not installed")
    arguments = str(tmp_path), "0.05", "-mgnet_cycle", "V(1,1)"
    told = run("levenberg_marquardt", *arguments, cwd=tmp_path, warning=True)
    assert told == "warning: nothing in this script reads -mgnet_cycle\n"
