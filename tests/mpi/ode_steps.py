"""Started on several ranks by test_ode_steps.py: the steps of `odeint`; prints JSON on rank 0."""

import hashlib
import json
import sys
import warnings
from typing import Any

from mgnet.petsc import init

init(sys.argv)

import torch  # noqa: E402
from petsc4py import PETSc  # noqa: E402

from mgnet.depth import odeint  # noqa: E402
from mgnet.petsc import steps_over_ranks  # noqa: E402

WORLD = PETSc.COMM_WORLD
RANKS = steps_over_ranks()
FAR = "mgrit", {"coarsening": 2, "levels": 3}
CASES = {
    "serial": ("serial", {}, 13, True),
    "serial, steps of which Python does one": ("serial", {}, 13, False),
    "cycles": ("mgrit", {}, 34, True),
    "three levels": (*FAR, 31, True),
    "fewer intervals than ranks": ("mgrit", {"coarsening": 4}, 7, True),
    "adaptive": ("mgrit", {"rtol": 1e-5}, 4, True),
}


class Pendulum(torch.nn.Module):
    """Driven, with friction that is learned."""

    def __init__(self, known: bool):
        super().__init__()
        self.known = known
        self.linear = torch.nn.Linear(2, 2)

    def forward(self, t: Any, y: Any) -> Any:
        force = torch.sin(y) if self.known else torch.sin(torch.atan(y))
        return self.linear(force) + torch.cos(t)


def digest(*tensors: Any) -> str:
    every = b"".join(x.detach().contiguous().numpy().tobytes() for x in tensors)
    return hashlib.sha256(every).hexdigest()


torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)
told: dict[str, Any] = {}
gathered = [name for name in CASES if WORLD.getSize() < 4 or CASES[name][0:2] == FAR]
for name in gathered:  # from 4 ranks on the coarsest level is
    mode, options, points, known = CASES[name]
    torch.manual_seed(0)
    func, y0 = Pendulum(known), torch.randn(3, 2).requires_grad_()
    t, weights = torch.linspace(0.0, 2.0, points), torch.randn(points, 3, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y = odeint(func, y0, t, mode=mode, ranks=RANKS, **options)
    found = torch.autograd.grad((weights * y).sum(), [y0, *func.parameters()])
    told[name] = [WORLD.tompi4py().allgather(digest(y, *found))]
    if WORLD.getSize() == 1:
        alone = odeint(func, y0, t, mode="serial", rtol=options.get("rtol"))
        right = torch.autograd.grad((weights * alone).sum(), [y0, *func.parameters()])
        pairs = zip((y, *found), (alone, *right), strict=True)
        told[name].append(max(float((a - b).detach().abs().max()) for a, b in pairs))
try:
    odeint(func, torch.ones(1, 2) + WORLD.getRank(), t, ranks=RANKS)
except ValueError as error:
    told["other states"] = str(error)
if not WORLD.getRank():
    print(json.dumps(told))
