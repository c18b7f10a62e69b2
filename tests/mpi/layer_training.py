"""Started on several ranks by test_layer_training.py: trains small nets; prints JSON on rank 0.

`layer_training.py FILE`: 3 ranks save a checkpoint there, any other number of ranks goes on from
it. One rank does everything once more, without `distribute_layers`.
"""

import gc
import hashlib
import json
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import petsc4py

petsc4py.init(sys.argv[:1])
gc.disable()  # while torch is loaded: searches for garbage take a third of the start

import torch  # noqa: E402
import torch._dynamo  # noqa: E402  (optimizers and traces load it)
from mpi4py import MPI  # noqa: E402

from mgnet.depth import (  # noqa: E402
    CyclesToTolerance,
    DepthSpline,
    FixedCycles,
    LayerEquation,
    LayerParallel,
    ODENet,
)
from mgnet.petsc import ranks  # noqa: E402
from mgnet.petsc.distribution import distribute_layers, gather_state, load_state  # noqa: E402
from mgnet.petsc.watch import watch_of  # noqa: E402

gc.freeze()
gc.enable()
COMM = MPI.COMM_WORLD
ranks.FEWEST = 2  # gathered on fewer ranks than by default, so that few are enough here
FILE = Path(sys.argv[1])
distributes = True


@dataclass
class Case:
    layers: int
    levels: int
    coarsening: Any
    control: Any = field(default_factory=FixedCycles)
    dtype: torch.dtype = torch.float64
    steps: int = 8
    batch: int = 6
    net: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    parts: tuple[torch.nn.Module, ...] = ()
    side: bool = False  # side inputs, of which one gets a gradient
    driven: bool = False  # an input for each layer, with a gradient
    traced: bool = True  # where other cases have the same programs, making them anew takes seconds


class Driven(torch.nn.Module):
    """A block with an input for each layer."""

    def __init__(self):
        super().__init__()
        self.state, self.input = torch.nn.Linear(4, 4), torch.nn.Linear(3, 4)

    def forward(self, u, inputs=None, numbers=None):
        return torch.tanh(self.state(u) + self.input(inputs)) * numbers


class Shifted(torch.nn.Module):
    """A block with side inputs."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)

    def forward(self, u, shift=None, mask=None):
        return torch.tanh(self.linear(u) * shift) * mask


class Masks(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mask", torch.arange(4) != 1)

    def forward(self, u):
        return u * self.mask


class Drops(torch.nn.Module):
    def forward(self, u):
        return torch.nn.functional.dropout(u, 0.5, self.training)


CASES = {
    "two levels": Case(29, 2, 4, FixedCycles(1, tolerance=9.0)),
    "three levels, float32": Case(26, 3, (2, 3), CyclesToTolerance(0.1), torch.float32),
    # States too large to be gathered, on up to 4 ranks: the coarsest level is marched in turn.
    "in turn": Case(29, 2, 4, FixedCycles(1, tolerance=9.0), steps=2, batch=600),
    "in turn, three levels": Case(
        26,
        3,
        (2, 3),
        FixedCycles(1, tolerance=9.0),
        steps=1,
        batch=1200,
        settings={"forward": "F"},
        traced=False,
    ),
    "shared weights": Case(
        29, 2, 4, FixedCycles(1, tolerance=9.0), steps=2, net={"weights": "shared"}, traced=False
    ),
    "spline weights": Case(
        26,
        3,
        (2, 3),
        steps=2,
        net={"weights": DepthSpline(5, 2), "learnable_steps": True},
        traced=False,
    ),
    "shared weights, serial": Case(
        6, 2, 2, steps=2, net={"weights": "shared"}, settings={"mode": "serial"}, traced=False
    ),
    "no cascade": Case(
        29,
        2,
        4,
        steps=2,
        settings={"forward": "V", "backward": "V", "warm_start": True},
        traced=False,
    ),
    "fewer intervals than ranks": Case(
        5,
        2,
        2,
        steps=3,
        net={"learnable_steps": True},
        settings={"warm_start": True},
        traced=False,
    ),
    "many": Case(
        130,
        3,
        4,
        CyclesToTolerance(1e-3),
        steps=1,
        settings={"forward": "cascade + F"},
        traced=False,
    ),
    "FCF, Heun": Case(
        9, 2, 2, FixedCycles(2), steps=1, net={"scheme": "heun"}, settings={"relaxation": ("FCF",)}
    ),
    "side inputs": Case(29, 2, 4, steps=2, side=True),
    "side inputs, fused": Case(
        26, 3, (2, 3), steps=1, side=True, settings={"coarse": "fused"}, traced=False
    ),
    "layer inputs": Case(29, 2, 4, steps=2, driven=True),
    "layer inputs, shared weights": Case(
        26,
        3,
        (2, 3),
        steps=1,
        driven=True,
        net={"weights": "shared", "boundary_layers": (1, 2)},
        traced=False,
    ),
    "layer inputs, serial": Case(
        6, 2, 2, steps=2, driven=True, settings={"mode": "serial"}, traced=False
    ),
    "side inputs, serial": Case(
        6, 2, 2, steps=2, side=True, settings={"mode": "serial"}, net={"weights": "shared"}
    ),
    "first": Case(29, 2, 4, steps=2, settings={"coarse": "first"}, traced=False),
    "fused": Case(27, 2, 4, steps=2, net={"learnable_steps": True}, settings={"coarse": "fused"}),
    "fused, three levels": Case(26, 3, (2, 3), steps=1, settings={"coarse": "fused"}, traced=False),
    "identity": Case(29, 2, 4, steps=2, settings={"coarse": "identity"}, traced=False),
    "identity, in turn": Case(
        26, 3, (2, 3), steps=1, batch=1200, settings={"coarse": "identity"}, traced=False
    ),
    "serial": Case(6, 2, 2, steps=2, net={"learnable_steps": True}, settings={"mode": "serial"}),
    "dropout": Case(
        6, 2, 2, FixedCycles(1, tolerance=9.0), steps=2, parts=(torch.nn.Dropout(0.5),)
    ),
    "dropout by a function": Case(
        6, 2, 2, FixedCycles(1, tolerance=9.0), steps=2, parts=(Drops(),), traced=False
    ),
    "batch norm": Case(
        6, 2, 2, FixedCycles(1, tolerance=9.0), steps=2, parts=(torch.nn.BatchNorm1d(4),)
    ),
    "a buffer kept once": Case(
        29, 2, 4, steps=2, parts=(Masks(),), net={"shared_buffers": ["1.mask"]}, traced=False
    ),
}
EXACT = Case(12, 3, 2, CyclesToTolerance(1e-30), net={"boundary_layers": (1, 1)}, traced=False)
SAVED = Case(
    13,
    2,
    3,
    FixedCycles(1, tolerance=9.0),
    net={"learnable_steps": True},
    parts=(torch.nn.Dropout(0.3),),
    traced=False,
)


def digest(*tensors):
    found = hashlib.sha1()
    for tensor in tensors:
        found.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def made(case, seed=0):
    torch.manual_seed(seed)
    torch.set_default_dtype(case.dtype)
    parts = [part.to(case.dtype) for part in case.parts]
    block = torch.nn.Sequential(torch.nn.Linear(4, 4), *parts, torch.nn.Tanh())
    block = Shifted() if case.side else Driven() if case.driven else block
    names = {"layer_inputs": ["inputs", "numbers"]} if case.driven else {}
    ends = {"before": torch.nn.Linear(2, 4), "after": torch.nn.Linear(4, 3)}
    net = ODENet(block, case.layers, 2.0, **ends, **names, **case.net)
    net.kernel.traced = case.traced
    options = {"control": case.control, **case.settings}
    parallel = LayerParallel(net, case.levels, case.coarsening, **options)
    if distributes:
        distribute_layers(parallel)
    x = torch.rand(case.batch, 2, generator=torch.Generator().manual_seed(1))
    return parallel, torch.optim.Adam(parallel.parameters(), 1e-2), x


def whole(parallel, optimizer=None):
    """The state of all layers, on every rank."""
    if not distributes:
        return (parallel if optimizer is None else optimizer).state_dict()
    return parallel.communicator.broadcast(gather_state(parallel, optimizer))


def train(parallel, optimizer, x, steps, has_side=False):
    """The bits of outputs, weights and Adam's moments, which stand for the gradients."""
    outputs, side = [], {}
    for number in range(steps):
        optimizer.zero_grad()
        if has_side:
            shift = torch.linspace(0.5, 1.5 + number, 4).requires_grad_()
            side = {"shift": shift, "mask": torch.arange(4) != number}
        if parallel.net.layer_inputs:
            net = parallel.net
            layers = net.depth + len(net.opening) + len(net.closing)
            inputs = torch.linspace(-1.0, 1.0 + number, layers * len(x) * 3)
            inputs = inputs.sin().reshape(layers, len(x), 3).requires_grad_()
            side = {"inputs": inputs, "numbers": torch.arange(layers) % 3}
        outputs.append(parallel(x, **side))
        outputs[-1].square().mean().backward()
        outputs += [tensor.grad for tensor in side.values() if tensor.requires_grad]
        optimizer.step()
    state, moments = whole(parallel), whole(parallel, optimizer)["state"]
    held = [tensor for tensor in state.values() if isinstance(tensor, torch.Tensor)]
    held += [moments[number][key] for number in moments for key in ("exp_avg", "exp_avg_sq")]
    return digest(*outputs, *held)


def trained(case):
    parallel, *others = made(case)
    bits = train(parallel, *others, case.steps, case.side)
    passes = [list(each[:3]) for each in (parallel.last_forward, parallel.last_backward)]
    return {"bits": bits, "passes": passes}


def resumed():
    """Three steps, a checkpoint, three steps."""
    saves = COMM.size == 3
    parallel, optimizer, x = made(SAVED, seed=0 if saves else 1)
    if saves:
        train(parallel, optimizer, x, 3)
        states = [gather_state(parallel, each) for each in (None, optimizer)]
        if COMM.rank == 0:
            torch.save(states, FILE)
    else:
        states = torch.load(FILE, weights_only=False) if COMM.rank == 0 else [None, None]
        if not distributes:
            parallel.load_state_dict(states[0])
            optimizer.load_state_dict(states[1])
        else:
            load_state(parallel, states[0])
            load_state(parallel, states[1], optimizer)
    return train(parallel, optimizer, x, 3)


def error():
    """The largest of output and gradients after one pass, against autograd through a loop."""
    parallel, _, x = made(EXACT)
    parallel(x).square().mean().backward()
    largest = 0.0
    for wanted, parameter in zip(reference(x), parallel.parameters(), strict=True):
        if wanted.shape != parameter.shape or len(wanted) == EXACT.layers:
            wanted = wanted[parallel.net.kept.start : parallel.net.kept.stop]
        if wanted.numel():
            difference = (parameter.grad - wanted).abs().max() / wanted.abs().max()
            largest = max(largest, float(difference))
    return COMM.allreduce(largest, MPI.MAX)


def reference(x):
    torch.manual_seed(0)
    block = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh())
    ends = {"before": torch.nn.Linear(2, 4), "after": torch.nn.Linear(4, 3)}
    net = ODENet(block, EXACT.layers, 2.0, **ends, **EXACT.net)
    return torch.autograd.grad(net(x).square().mean(), list(net.parameters()))


def critical_path(batch):
    """Layer evaluations of all ranks and those in a row; with a backward pass, and its products."""
    parallel, _, x = made(Case(48, 2, 4, FixedCycles(1), batch=batch, traced=False))
    kernel, march, marched = parallel.net.kernel, LayerEquation.march, [0]
    in_turn = []

    def counted(self, f):
        before = kernel.evaluations
        u = march(self, f)
        if self.gathered is None:  # else it marches by another equation
            marched[0] += kernel.evaluations - before
        in_turn.append(self.gathered is None)
        return u

    LayerEquation.march = counted  # type: ignore[method-assign]
    y = parallel(x)
    LayerEquation.march = march  # type: ignore[method-assign]
    together = kernel.evaluations - marched[0]
    total = COMM.allreduce(kernel.evaluations)
    row = COMM.allreduce(marched[0], MPI.SUM if all(in_turn) else MPI.MAX)
    found = [total, COMM.allreduce(together, MPI.MAX) + row]
    y.sum().backward()
    return [*found, COMM.allreduce(kernel.evaluations), COMM.allreduce(kernel.vjps)]


def everything():
    told: dict[str, Any] = {name: trained(case) for name, case in CASES.items()}
    told |= {"resumed": resumed(), "error": error()}
    told |= {"gathered": critical_path(6), "in turns": critical_path(600)}
    return told | {"calls": COMM.allgather(watch_of(COMM).calls)}


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # of estimated errors: few cycles are meant
    told = [everything()]
    if COMM.size == 1:
        distributes = False
        told.append(everything())
    if COMM.rank == 0:
        print(json.dumps(told))
