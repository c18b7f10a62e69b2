"""Started on several ranks by test_layer_grid.py: trains on every grid of them; JSON on rank 0.

`layer_grid.py FOLDER`: also two halves of a training with a checkpoint there between them.
`layer_grid.py FOLDER leave`: the last rank leaves the script, while the others train.
`layer_grid.py FOLDER weights batch seed loss raise`: the last rank makes another module, has
another batch, other random numbers; the loss of a nested training has a parameter of its own; all
ranks refuse these together, and print it. At last, one rank raises an error.
"""

import gc
import hashlib
import json
import sys
import warnings
from pathlib import Path

import petsc4py

petsc4py.init(sys.argv[:1])

import quick_torch  # noqa: E402, F401
import torch  # noqa: E402
from mpi4py import MPI  # noqa: E402

from mgnet.depth import (  # noqa: E402
    AdaptiveCycles,
    CyclesToTolerance,
    FixedCycles,
    LayerParallel,
    ODENet,
    accumulate_gradients,
    clip_grad_norm_,
    train_in_depth,
)
from mgnet.petsc import (  # noqa: E402
    distribute,
    gather_state,
    load_state,
    resumable_steps,
)

gc.freeze()
gc.enable()
COMM = MPI.COMM_WORLD
FOLDER = Path(sys.argv[1])
GRIDS = [(COMM.size // rows, rows) for rows in range(1, COMM.size + 1) if COMM.size % rows == 0]
G = torch.Generator().manual_seed(1)
# No whole number of microbatches; cycles suffice for the first ones and not for the last.
SCALES = torch.tensor([1.0] * 6 + [5.0] * 5)[:, None]
BATCH = SCALES * torch.rand(11, 2, generator=G), torch.rand(11, 3, generator=G)
CONTROLS = {
    "fixed": FixedCycles(1, tolerance=9.0),
    "tolerance": CyclesToTolerance(1e-3),
    "adaptive": AdaptiveCycles(tolerance=1e-2, every=1),
}


def made(grid, control, seed=0, drop=0.2):
    torch.manual_seed(seed)
    linear = torch.nn.Linear
    block = torch.nn.Sequential(linear(4, 4), torch.nn.Dropout(drop), torch.nn.Tanh())
    after = torch.nn.Sequential(torch.nn.Dropout(0.3), linear(4, 3))
    net = ODENet(block, 13, before=linear(2, 4), after=after, learnable_steps=True)
    net.kernel.traced = False
    parallel = distribute(LayerParallel(net, 2, 2, control=control), *grid)
    return parallel, torch.optim.Adam(parallel.parameters(), 1e-2)


def loss(module, batch):
    x, y = batch
    return (module(x) - y).square().mean()


def step(parallel, optimizer, batch=BATCH):
    optimizer.zero_grad()
    value = accumulate_gradients(parallel, loss, batch, microbatches=5)
    norm = clip_grad_norm_(parallel, 0.05)
    optimizer.step()
    return value, norm


def digest(*tensors):
    found = hashlib.sha1()
    for tensor in tensors:
        found.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def bits(parallel, optimizer, told):
    state, moments = gather_state(parallel), gather_state(parallel, optimizer)
    assert (state is None) == (COMM.rank != 0)  # one rank of all has it
    if state is None or moments is None:
        return None
    held = [value for value in state.values() if isinstance(value, torch.Tensor)]
    kept = moments["state"].values()
    held += [each[key] for each in kept for key in ("exp_avg", "exp_avg_sq")]
    return digest(*(each for pair in told for each in pair), *held, torch.rand(2))


def trained(grid, control):
    parallel, optimizer = made(grid, CONTROLS[control])
    told = [step(parallel, optimizer) for _ in range(4 if control == "adaptive" else 2)]
    ends = COMM.allgather((str(parallel.control), parallel.calls, parallel.net.calls))
    return bits(parallel, optimizer, told), len(set(ends)) == 1, ends[0]


def loaded(grid):
    """The state of another training, given on rank 0 alone."""
    parallel, optimizer = made(grid, CONTROLS["fixed"])
    told = [step(parallel, optimizer)]
    states = gather_state(parallel), gather_state(parallel, optimizer)
    other, its = made(grid, CONTROLS["fixed"], seed=1)
    load_state(other, states[0])
    load_state(other, states[1], its)
    return bits(other, its, told)


def failed(grid):
    """Whether all gradients are NaN on all ranks, where one layer has an infinite one."""
    parallel, _ = made(grid, CONTROLS["fixed"])
    weight = parallel.net.block[0].weight
    if len(weight) and parallel.net.kept.start == 0:
        weight.register_hook(lambda gradient: gradient * torch.inf)
    accumulate_gradients(parallel, loss, BATCH, microbatches=5)
    own = [p.grad for p in parallel.parameters() if p.numel() and p.grad is not None]
    return all(COMM.allgather(any(not bool(each.isfinite().all()) for each in own)))


def resumed(grid):
    """Two steps, a checkpoint, two steps by other objects."""
    file = FOLDER / f"{COMM.size}-{grid[0]}.pt"
    for end in (2, 4):
        parallel, optimizer = made(grid, CONTROLS["fixed"], seed=end)
        for _ in resumable_steps(end, file, parallel, optimizer):
            step(parallel, optimizer)
    return bits(parallel, optimizer, [])


def nested(grid, trial):
    torch.manual_seed(0)
    block = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh())
    ends = {"before": torch.nn.Linear(1, 4), "after": torch.nn.Linear(4, 1)}
    net = ODENet(block, 2, learnable_steps=True, **ends)
    net.kernel.traced = False
    x = torch.linspace(-1.0, 1.0, 64)[:, None]

    def distance(module, batch):
        return (module(batch) - torch.sin(3.0 * batch)).square().mean()

    told = train_in_depth(
        net,
        distance,
        x.split(16),
        lambda net: torch.optim.AdamW(net.parameters(), lr=1e-2),
        lambda module: distance(module, x).item(),
        depth=8,
        work=20,
        trial=trial,
        clip=0.5,
        wrap=lambda net: distribute(LayerParallel(net, control=CONTROLS["fixed"]), *grid),
    )
    weights = [value for value in told.net.state_dict().values()]
    moments = [each["exp_avg"] for each in told.optimizer.state.values()]
    numbers = [each.held_out for each in told.stages]
    own = digest(*weights, *moments), told.net.depth, str(told.net.kept), numbers
    return own, len(set(COMM.allgather(str(own)))) == 1


def everything():
    told = {}
    for grid in GRIDS:
        found = {"resumed": resumed(grid), "nested": nested(grid, None)}
        found["trained, tolerance"] = trained(grid, "tolerance")
        if 4 not in grid:  # else in short
            found |= {f"trained, {each}": trained(grid, each) for each in ("fixed", "adaptive")}
            found |= {"loaded": loaded(grid), "failed": failed(grid)}
            found["nested, trials"] = nested(grid, 0.25)
        told[f"{grid[0]} x {grid[1]}"] = found
    return told


def own_parameter(grid):
    torch.manual_seed(0)
    temperature = torch.nn.Parameter(torch.ones(()))
    train_in_depth(
        ODENet(torch.nn.Linear(2, 2), 2),
        lambda module, x: (temperature * module(x)).square().mean(),
        [torch.ones(4, 2)],
        lambda net: torch.optim.SGD([*net.parameters(), temperature], lr=1e-2),
        lambda module: 1.0,
        depth=4,
        work=4,
        wrap=lambda net: distribute(LayerParallel(net), *grid),
    )


def fault(kind):
    last, grid = COMM.rank == COMM.size - 1, GRIDS[-1 if kind == "loss" else len(GRIDS) // 2]
    if kind == "loss":
        own_parameter(grid)
    parallel, optimizer = made(grid, CONTROLS["fixed"], seed=kind == "weights" and last)
    step(parallel, optimizer)
    if kind == "seed" and last:
        torch.manual_seed(7)
    if kind in ("batch", "seed"):
        step(parallel, optimizer, [1.0 + (kind == "batch" and last) * part for part in BATCH])
    if COMM.rank == COMM.size - 1:
        if kind == "leave":
            sys.exit(3)
        raise ArithmeticError("a fault of one rank")
    for _ in range(3):
        step(parallel, optimizer)


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # of estimated errors: few cycles are meant
    for kind in sys.argv[2:]:
        try:
            fault(kind)
        except ValueError as error:
            print(f"{kind}: {error}", flush=True)
    if len(sys.argv) == 2:
        told = everything()
        if COMM.rank == 0:
            print(json.dumps(told))
