"""Law: type checkers see what a user's script gets, with pyright and with mypy.

The script is checked as one of somebody else: it imports mgnet and asks for the types.
"""

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

SCRIPT = """\
import numpy as np
import torch

from mgnet import Solver, gallery
from mgnet.checkpoint import Checkpoints
from mgnet.depth import LayerParallel, ODENet
from mgnet.estimators import KANRegressor
from mgnet.knots import KAN, knot_hierarchy
from mgnet.petsc import KSPSmoother, distribute_layers
from mgnet.plot import plot_edges
from mgnet.training import LeastSquares, LevenbergMarquardt, levenberg_marquardt

mesh = gallery.poisson((15, 15))
solver = Solver(mesh, "V(1,1)")
solution = solver.solve(np.ones(225))
x = torch.rand(20, 2, dtype=torch.float64)
kan = KAN([2, 3, 1], intervals=4)
loss = LeastSquares(kan, (x, x[:, :1]))
knots = knot_hierarchy(kan, loss, 2, LevenbergMarquardt())
fitted = knots.network(0, loss.start())
minimum = levenberg_marquardt(loss)
block = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh())
net = ODENet(block, layers=8)
parallel = LayerParallel(net, levels=2)
saved = Checkpoints("folder", mesh)
regressor = KANRegressor().fit(np.ones((9, 2)), np.ones(9))
"""
# Expression -> its type, without modules; "..." is what may follow.
TYPES = {
    "mesh": "Hierarchy",
    "mesh[0]": "Level",
    "solver.schedule": "Schedule",
    "solver.rtol": "float",
    "solution": "Solution",
    "solution.reason.converged": "bool",
    "solution.residual_norms": "tuple[float, ...]",
    "solution.explain()": "str",
    "kan(x)": "Tensor",
    "kan.intervals": "tuple[int, ...]",
    "kan.refine(2)": "KAN",
    "knots": "Hierarchy",
    "loss.value(loss.start())": "float",
    "minimum.values": "tuple[float, ...]",
    "net": "ODENet",
    "net(x)": "Tensor",
    "net.refine(2)": "ODENet",
    "parallel": "LayerParallel",
    "parallel(x)": "Tensor",
    "distribute_layers(parallel)": "LayerParallel",
    "saved.every": "int",
    "regressor": "KANRegressor",
    "regressor.predict(np.ones((9, 2)))": "ndarray[...",
    "KSPSmoother().prefix": "str",
    "plot_edges(kan)": "Figure",
}


@pytest.fixture
def script(tmp_path) -> Path:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT + "".join(f"reveal_type({what})\n" for what in TYPES))
    return script


def check(checker: str, script: Path, *options: str, **environment: str) -> str:
    """What a type checker prints, which should find no error."""
    if find_spec(checker) is None:
        if os.environ.get("MGNET_REQUIRE_PETSC") == "1":  # `make test` installs it
            pytest.fail(f"{checker} is not installed", pytrace=False)
        pytest.skip(f"{checker} is not installed")
    process = subprocess.run(
        [sys.executable, "-m", checker, *options, str(script)],
        cwd=script.parent,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def agrees(found: str, expected: str) -> bool:
    plain = re.sub(r"(\w+\.)+(?=\w)", "", found)  # torch._tensor.Tensor -> Tensor
    stem, cut, _ = expected.partition("[...")
    return plain.startswith(stem + "[") if cut else plain == expected


def disagreements(found: list[str]) -> list[str]:
    pairs = zip(TYPES.items(), found, strict=True)
    return [f"{what} is {got}" for (what, wanted), got in pairs if not agrees(got, wanted)]


def test_pyright_sees_the_types(script):
    (script.parent / "pyrightconfig.json").write_text(json.dumps({"extraPaths": [str(ROOT)]}))
    out = check("pyright", script, "--pythonpath", sys.executable)
    assert not disagreements(re.findall(r'Type of ".*" is "(.*)"$', out, re.MULTILINE))


@pytest.mark.slow
def test_mypy_sees_the_types(script, request):
    """What mypy knows of torch, a minute of work, is kept from one run to the next."""
    kept = getattr(request.config, "cache", None)  # none with -p no:cacheprovider
    cache = "--cache-dir", str(kept.mkdir("mypy") if kept else script.parent / "cache")
    out = check("mypy", script, *cache, "--follow-imports=silent", MYPYPATH=str(ROOT))
    assert not disagreements(re.findall(r'Revealed type is "(.*)"$', out, re.MULTILINE))
