"""Law: every script in demos/ runs as it stands, prints something and leaves a picture."""

import os
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


def run(name: str, *arguments: str, cwd: Path) -> str:
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
    assert not done.stderr, done.stderr
    return done.stdout


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
