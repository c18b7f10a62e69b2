"""Started on several ranks by test_time_parallel.py: recurrent networks; prints JSON on rank 0.

`time_parallel.py fault` has a cell that fails on the last rank.
"""

import gc
import hashlib
import itertools
import json
import sys
import warnings

import petsc4py

petsc4py.init(sys.argv[:1])
gc.disable()  # while torch is loaded: searches for garbage take a third of the start

import torch  # noqa: E402
from mpi4py import MPI  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn.utils.rnn import PackedSequence, pack_sequence  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402

from mgnet.depth import (  # noqa: E402
    CyclesToTolerance,
    FixedCycles,
    ImplicitGRUCell,
    TimeParallel,
)
from mgnet.petsc.distribution import distribute_time  # noqa: E402

gc.freeze()
gc.enable()
COMM = MPI.COMM_WORLD
KINDS = {"GRU": (nn.GRU, nn.GRUCell), "LSTM": (nn.LSTM, nn.LSTMCell)}
TIGHT = CyclesToTolerance(1e-11, max_cycles=60)


class Pair(nn.Module):
    """A cell whose state is two tensors of different widths."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(3 + 4 + 2, 6)

    def forward(self, x, state):
        new = self.mix(torch.cat([x, *state], -1)).tanh()
        return 0.5 * (state[0] + new[:, :4]), 0.9 * state[1] + 0.1 * new[:, 4:]


class Cube(nn.Module):
    """Fine steps are tame; coarse ones overflow."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(3, 4)

    def forward(self, x, h):
        return 0.5 * h + self.mix(x).tanh()

    def coarse(self, x, h, k):
        return 1e200 * k * (h + 1.0) ** 3


def looped(cell, x, state):
    outputs, parts = [], tuple(s[0] for s in state) if isinstance(state, tuple) else state[0]
    for row in x:
        parts = cell(row, parts)
        outputs.append(parts[0] if isinstance(parts, tuple) else parts)
    last = tuple(s[None] for s in parts) if isinstance(parts, tuple) else parts[None]
    return torch.stack(outputs), last


def data_of(found):
    output, state = found
    return [output.data if isinstance(output, PackedSequence) else output, *tree_leaves(state)]


def differentiated(found, wanted):
    """All numbers of a result, and its gradients."""
    told = data_of(found)
    weights = [torch.cos(torch.arange(x.numel(), dtype=x.dtype)).view(x.shape) for x in told]
    loss = sum((x * w).sum() for x, w in zip(told, weights, strict=True))
    gradients = torch.autograd.grad(
        loss, wanted, retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return [x.detach() for x in told] + list(gradients)


def compared(parallel, wanted, *calls, reference):
    """The bits of the last call, its reports, and its error relative to the reference."""
    found = []
    for given in calls:
        found = differentiated(parallel(*given), wanted)
    exact = differentiated(reference(*calls[-1]), wanted)
    errors = [float((a - b).norm() / (b.norm() + 1e-30)) for a, b in zip(found, exact, strict=True)]
    bits = digest(found)
    told = [repr(parallel.last_forward), repr(parallel.last_backward)]
    assert len(set(COMM.allgather((bits, *told)))) == 1
    return [bits, *told, max(errors)]


def digest(tensors):
    found = hashlib.sha1()
    for tensor in tensors:
        found.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def drawn(seed):
    """A module of drawn shape, on a drawn input."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*among):
        return among[int(torch.randint(len(among), (), generator=generator))]

    torch.manual_seed(seed)
    kind, batch, features, width = draw(*KINDS), draw(1, 2, 5), draw(1, 3), draw(1, 3, 6)
    settings = {"num_layers": draw(1, 2), "bidirectional": draw(True, False)}
    settings |= {"bias": draw(True, False), "batch_first": draw(True, False)}
    module = KINDS[kind][0](features, width, **settings, dtype=torch.float64)
    levels, coarsening = draw(2, 2, 3), draw(None, 4)
    cycle = draw("V", "V", "F", "newton", "newton(diagonal)")
    lengths = draw((211, 60, 9), (37,) * batch, (350,) * batch, (5, 2, 1))
    start = [
        torch.randn(
            settings["num_layers"] * (1 + settings["bidirectional"]), len(lengths), width
        ).double()
        for _ in range(1 + (kind == "LSTM"))
    ]
    start = [s.requires_grad_() for s in start]
    rows = [torch.randn(n, features).double().requires_grad_() for n in lengths]
    x = torch.stack(rows, 0 if module.batch_first else 1) if len(set(lengths)) == 1 else None
    x = pack_sequence(rows, enforce_sorted=False) if x is None else x
    pieces = draw(3, 7, 16)
    parallel = TimeParallel(module, levels, coarsening, control=TIGHT, cycle=cycle)
    parallel = distribute_time(parallel, pieces)
    wanted = [*rows, *start, *module.parameters()]
    h0 = tuple(start) if kind == "LSTM" else start[0]
    return compared(parallel, wanted, (x, h0), reference=module)


def of_cells(name):
    torch.manual_seed(0)
    cells = {"Pair": Pair, "Cube": Cube, "ImplicitGRU": lambda: ImplicitGRUCell(3, 4)}
    cell = cells[name]().double()
    widths = (4, 2) if name == "Pair" else (4,)
    h0 = [torch.randn(1, 2, w).double().requires_grad_() for w in widths]
    x = torch.randn(150, 2, 3).double().requires_grad_()
    control = CyclesToTolerance(1e-11, max_cycles=8) if name == "Cube" else TIGHT
    parallel = distribute_time(TimeParallel(cell, control=control))
    state = tuple(h0) if len(h0) > 1 else h0[0]
    wanted = [x, *h0, *cell.parameters()]
    return compared(parallel, wanted, (x, state), reference=lambda x, state: looped(cell, x, state))


def settings(name):
    """Other settings of a GRU."""
    torch.manual_seed(1)
    given = {
        "float32": {},
        "fixed cycles": {"control": FixedCycles(2, 1, tolerance=9.0)},
        "warm start": {"warm_start": True, "control": FixedCycles(1, tolerance=9.0)},
        "step by step": {"control": CyclesToTolerance(1e-12, max_cycles=1)},
        "serial": {"mode": "serial"},
        "auto": {"mode": "auto"},
        "identity": {"cycle": "newton(identity)", "control": FixedCycles(3, tolerance=9.0)},
        "dropout": {},
    }[name]
    module = nn.GRU(3, 4, 2, dropout=0.5 * (name == "dropout"))
    x, other = torch.randn(203, 2, 3).requires_grad_(), torch.randn(203, 3, 3)
    parallel = distribute_time(TimeParallel(module, **given))
    calls = [(x,), (x,)] if name == "warm start" else [(x,)]
    calls = [(other,), (x,), (x,)] if name == "auto" else calls
    if name == "dropout":
        torch.manual_seed(2)
        found = differentiated(parallel(x), [x])
        return [digest(found), repr(parallel.last_forward), "", 0.0]
    told = compared(parallel, [x, *module.parameters()], *calls, reference=module)
    if name == "auto":  # seconds decide, on rank 0; what it decided is the same on all
        return [len(parallel._faster), "", "", told[-1]]
    return told


def trained():
    """The bits of weights after steps of Adam, with clipped gradients."""
    torch.manual_seed(3)
    module, head = nn.GRU(2, 4), nn.Linear(4, 1)
    parallel = distribute_time(TimeParallel(module, warm_start=True))
    parameters = [*parallel.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(parameters, 1e-2)
    x = torch.randn(120, 4, 2)
    for _ in range(3):
        optimizer.zero_grad()
        (head(parallel(x)[0]) - x.cumsum(0)[..., :1]).square().mean().backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    return [digest(parameters), "", "", 0.0]


def refused():
    """What all ranks say."""
    said = []
    torch.manual_seed(COMM.rank)
    tries = [(TimeParallel(nn.GRU(2, 3)), 16)] if COMM.size > 1 else []
    torch.manual_seed(0)
    for module, pieces in [*tries, (TimeParallel(nn.GRU(2, 3)), COMM.size - 1)]:
        try:
            distribute_time(module, pieces)
            said.append("")
        except ValueError as error:
            said.append(str(error))
    return sorted(set(COMM.allgather(tuple(said))))


def calls_that_differ():
    """What all ranks say of calls in which the last rank is another one; then one that is right."""
    torch.manual_seed(0)
    gru = distribute_time(TimeParallel(nn.GRU(2, 3), control=FixedCycles(2)))
    other = distribute_time(TimeParallel(nn.GRU(2, 3), control=FixedCycles(2)))
    x, last, said = torch.randn(60, 2, 2), COMM.rank == COMM.size - 1, {}
    bias = gru.cell.bias_hh_l0
    begin = bias.detach().clone()

    def edit(value):
        with torch.no_grad():
            bias.copy_(begin + value)

    def backward_or_forward():
        y = gru(x)[0]
        y.sum().backward() if last else gru(x)

    tries = {
        "input": lambda: gru(x + last),
        "steps": lambda: gru(x[: 50 if last else 60]),
        "gradient of the input": lambda: gru(x.clone().requires_grad_(last)),
        "weights": lambda: (edit(float(last)), gru(x)),
        "frozen": lambda: (edit(0.0), bias.requires_grad_(not last), gru(x)),
        "mode": lambda: (bias.requires_grad_(True), gru.train(not last), gru(x)),
        "no gradient": lambda: (gru.train(), torch.set_grad_enabled(not last), gru(x)),
        "modules": lambda: (torch.set_grad_enabled(True), (other if last else gru)(x)),
        "backward": backward_or_forward,
        "gradient": lambda: (gru(x)[0].sum() * (1 + last)).backward(),
        "none": lambda: gru(x)[0].sum().backward(),
    }
    for name, run in tries.items():
        try:
            run()
            said[name] = ""
        except ValueError as error:
            said[name] = str(error)
    return sorted(set(COMM.allgather(tuple(said.items()))))


def fault():
    calls = itertools.count()  # no attribute of the cell, which may not change

    class Broken(nn.RNNCell):
        def forward(self, x, h):
            if next(calls) > 9 and COMM.rank == COMM.size - 1:
                raise ArithmeticError("this rank is broken")
            return super().forward(x, h)

    torch.manual_seed(0)
    distribute_time(TimeParallel(Broken(2, 3)))(torch.randn(90, 2, 2))
    print("went on")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    if sys.argv[1:] == ["fault"]:
        fault()
    told = {f"drawn {seed}": drawn(seed) for seed in range(7)}
    told |= {name: of_cells(name) for name in ("Pair", "Cube", "ImplicitGRU")}
    names = "float32", "fixed cycles", "warm start", "step by step", "serial", "auto", "identity"
    told |= {name: settings(name) for name in (*names, "dropout")}
    told["trained"] = trained()
    told["refused"] = refused()
    told["differ"] = calls_that_differ() if COMM.size > 1 else []
    if COMM.rank == 0:
        print(json.dumps(told))
