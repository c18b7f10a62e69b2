"""Started on several ranks by test_layer_penalty.py: second derivatives; prints JSON on rank 0."""

import gc
import hashlib
import json
import sys
import warnings
from typing import Any

import petsc4py

petsc4py.init(sys.argv[:1])
gc.disable()  # while torch is loaded: searches for garbage take a third of the start

import torch  # noqa: E402
import torch._dynamo  # noqa: E402  (traces load it)
from mpi4py import MPI  # noqa: E402

from mgnet.depth import (  # noqa: E402
    CyclesToTolerance,
    DepthSpline,
    FixedCycles,
    LayerParallel,
    ODENet,
)
from mgnet.petsc import ranks  # noqa: E402
from mgnet.petsc.distribution import distribute_layers  # noqa: E402

gc.freeze()
gc.enable()
COMM = MPI.COMM_WORLD
ranks.FEWEST = 2  # gathered on fewer ranks than by default, so that few are enough here
TRACED = "two levels, steps", "spline weights, serial"  # not all: making traces takes seconds
CASES = {
    "two levels, steps": ({"learnable_steps": True}, {}, 6),
    "shared weights, in turn": ({"weights": "shared"}, {}, 600),
    "spline weights, serial": ({"weights": DepthSpline(4, 2)}, {"mode": "serial"}, 3),
    "few layers": ({"layers": 5}, {"coarsening": 3}, 3),
}


def made(name, **others):
    options, settings, batch = CASES[name]
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    block = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh())
    ends = {"before": torch.nn.Linear(2, 4), "after": torch.nn.Linear(4, 3)}
    net = ODENet(block, **{"layers": 13, **options}, **ends)
    net.kernel.traced = name in TRACED
    x = torch.rand(batch, 2, generator=torch.Generator().manual_seed(1))
    return net, {"control": CyclesToTolerance(1e-12), **settings, **others}, x


def penalty(model, x):
    """The gradients of a loss with the derivative of the output: of x, then of the parameters."""
    x = x.clone().requires_grad_()
    out = model(x)
    (slope,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
    return torch.autograd.grad(out.mean() + slope.square().sum(), [x, *model.parameters()])


def compared(name):
    """The bits of the gradient by x, and the largest error of all, relative to each gradient."""
    gc.collect()  # on all ranks now: the last module's communicator must not end on some alone
    net, settings, x = made(name)
    wanted = penalty(net, x)
    parallel = distribute_layers(LayerParallel(net, **settings))
    found, kept = penalty(parallel, x), parallel.net.kept
    largest = 0.0
    for ours, theirs in zip(found, wanted, strict=True):
        whole = theirs.abs().max()
        if ours.shape != theirs.shape or (len(theirs) == net.depth and len(kept) < net.depth):
            theirs = theirs[kept.start : kept.stop]
        if theirs.numel():
            largest = max(largest, float((ours - theirs).abs().max() / whole))
    bits = hashlib.sha1(found[0].numpy().tobytes()).hexdigest()
    return [bits, COMM.allreduce(largest, MPI.MAX)]


def refused(ask):
    """How many ranks say no, in the same sentence."""
    gc.collect()
    net, settings, x = made("few layers", control=FixedCycles(2))
    parallel = distribute_layers(LayerParallel(net, **settings))
    try:
        ask(parallel, x)
    except RuntimeError as error:
        said = str(error)
    else:
        said = ""
    return sorted(set(COMM.allgather(said)))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    told: dict[str, Any] = {name: compared(name) for name in CASES}
    told["refused"] = refused(penalty)
    told["transformed"] = refused(lambda model, x: torch.func.vjp(model, x))
    if COMM.rank == 0:
        print(json.dumps(told))
