"""Started on several ranks by test_distribute_samples.py: prints digests as JSON on rank 0."""

import gc
import hashlib
import json
import sys
from functools import partial

import petsc4py

petsc4py.init(sys.argv[:1])
gc.disable()  # while torch is loaded: searches for garbage take a third of the start

import numpy as np  # noqa: E402
import torch  # noqa: E402
from petsc4py import PETSc  # noqa: E402

from mgnet import Hierarchy, Level, cascade, run  # noqa: E402
from mgnet.knots import KAN, knot_hierarchy, kronecker_matrix, roughness  # noqa: E402
from mgnet.notation import parse  # noqa: E402
from mgnet.petsc import sample_blocks  # noqa: E402
from mgnet.petsc.distributed_least_squares import distribute_samples  # noqa: E402
from mgnet.petsc.knot_pcmg import KnotPCMG  # noqa: E402
from mgnet.petsc.tsqr import solve_last_layer_  # noqa: E402
from mgnet.training import (  # noqa: E402
    LBFGS,
    AdaptiveBasis,
    LastLayer,
    LeastSquares,
    LevenbergMarquardt,
    NewtonKrylov,
    TorchOptimizer,
)

gc.freeze()
gc.enable()
COMM = PETSc.COMM_WORLD.tompi4py()
sample_blocks.BLOCKS = 16  # fewer than by default, to be quick; still no multiple of 3 ranks
bits, errors = {}, {}


def tell(name, state, error):
    """Every rank must have the same bits; error against an oracle of one process."""
    digest = hashlib.sha256(state.detach().numpy().tobytes()).hexdigest()
    bits[name], errors[name] = COMM.allgather(digest), float(error)


x = torch.rand(701, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 - 1
y = torch.sin(3 * x[:, :1]) * x[:, 1:]
for samples in (701, 5):
    torch.manual_seed(0)
    hidden = torch.nn.Linear(2, 9), torch.nn.Tanh()
    net = torch.nn.Sequential(*hidden, torch.nn.Linear(9, 1)).double()
    solve_last_layer_(net, (x[:samples], y[:samples]), rcond=1e-9)
    with torch.no_grad():
        A = np.column_stack([net[:2](x[:samples]).numpy(), np.ones(samples)])
    W = np.linalg.lstsq(A, y[:samples].numpy(), rcond=1e-9)[0]
    found = torch.cat([net[2].weight.flatten(), net[2].bias])
    tell(f"last layer, {samples} samples", found, np.abs(found.detach().numpy() - W[:, 0]).max())


def step(problem, u, smoother=LevenbergMarquardt()):  # noqa: B008, it is immutable
    return run(
        cascade([2]), Hierarchy([Level(problem, smoother, objective=problem.value)]), u, None
    )[0]


torch.manual_seed(0)
tanh = torch.nn.Sequential(torch.nn.Linear(2, 6), torch.nn.Tanh(), torch.nn.Linear(6, 1)).double()
PROBLEMS = {
    "KAN": LeastSquares(KAN([2, 3, 1], 6), (x, y), partial(roughness, weight=1e-5)),
    "tanh": LeastSquares(tanh, (x, y)),
    "more ranks than blocks": LeastSquares(torch.nn.Linear(1, 1).double(), (x[:2, :1], y[:2])),
}
for name, alone in PROBLEMS.items():
    spread, u = distribute_samples(alone), alone.start()
    tell(f"gradient, {name}", spread(u), (spread(u) - alone(u)).abs().max())
    found = step(spread, u)
    tell(f"steps, {name}", found, abs(spread.value(found) / alone.value(step(alone, u)) - 1.0))
    tell(f"value, {name}", torch.tensor(spread.value(found), dtype=u.dtype), 0.0)

adam, last = TorchOptimizer(torch.optim.Adam, {"lr": 1e-2}), LastLayer(1e-6, rcond=1e-9)
for name, kind, smoother in (
    ("last layer", "KAN", last),
    ("LS + Adam", "tanh", AdaptiveBasis(adam, last)),
    ("LS + L-BFGS", "tanh", AdaptiveBasis(LBFGS(), last)),
    ("variable projection", "KAN", AdaptiveBasis(LevenbergMarquardt(), last)),
):
    alone = PROBLEMS[kind]
    u, expected = (step(p, alone.start(), smoother) for p in (distribute_samples(alone), alone))
    tell(name, u, abs(alone.value(u) / alone.value(expected) - 1.0))

r, J = distribute_samples(PROBLEMS["KAN"]).linearize(PROBLEMS["KAN"].start())
dense = PROBLEMS["KAN"].jacobian(PROBLEMS["KAN"].start())
tell("triangle", J.root(), (J.root().T @ J.root() - dense.T @ dense).abs().max())

kan, values = KAN([2, 3, 1], 3), []
for problem in (LeastSquares(kan, (x, y)), distribute_samples(LeastSquares(kan, (x, y)))):
    hierarchy = knot_hierarchy(kan, problem, 2, LevenbergMarquardt())
    u, _ = run(parse("V(1,1,1)", 2), hierarchy, hierarchy[0].operator.start(), None)
    values.append(hierarchy[0].operator.value(u))
tell("cycle over the knots", u, abs(values[1] / values[0] - 1.0))

kan = KAN([2, 3, 1], 4)
alone = LeastSquares(kan.refine(), (x, y))
krylov = NewtonKrylov(KnotPCMG([kronecker_matrix(kan)]), direct=0, loosest=1e-8)
values = [
    alone.value(step(problem, alone.start(), LevenbergMarquardt(mu=1.0, linear_solver=solver)))
    for problem, solver in ((alone, None), (distribute_samples(alone), krylov))
]
errors["PCMG"] = abs(values[1] / values[0] - 1.0)
if COMM.rank == 0:
    sys.stdout.write(json.dumps([bits, errors]) + "\n")
