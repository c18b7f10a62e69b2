"""Started on several ranks by test_layer_training.py: trains small nets; prints JSON on rank 0.

`--alone`: the same without `distribute`, and the errors against a serial loop.
"""

import hashlib
import json
import sys
from dataclasses import dataclass, field
from typing import Any

import petsc4py

petsc4py.init(sys.argv[:1])

import torch  # noqa: E402
from mpi4py import MPI  # noqa: E402

from mgnet.depth import Fixed, LayerParallel, ODENet, Tolerance  # noqa: E402
from mgnet.petsc.rank_state import gather_state  # noqa: E402
from mgnet.petsc.ranks import distribute  # noqa: E402

COMM = MPI.COMM_WORLD


@dataclass
class Case:
    layers: int
    levels: int
    coarsening: Any
    control: Any = field(default_factory=Fixed)
    dtype: torch.dtype = torch.float64
    steps: int = 20
    net: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


CASES = {
    "two levels": Case(29, 2, 4, Fixed(1, tolerance=9.0)),
    "three levels, float32": Case(26, 3, (2, 3), Tolerance(1e-2), torch.float32),
    "fewer intervals than ranks": Case(5, 2, 2, net={"gates": True}, settings={"warm_start": True}),
    "many": Case(130, 3, 4, Tolerance(1e-3), steps=1, settings={"forward": "cascade + F"}),
    "FCF, Heun": Case(
        9, 2, 2, Fixed(2), steps=1, net={"scheme": "heun"}, settings={"relaxation": ("FCF",)}
    ),
    "serial": Case(6, 2, 2, steps=2, net={"gates": True}, settings={"mode": "serial"}),
    "exact": Case(12, 3, 2, Tolerance(1e-30), steps=1, net={"buffer_layers": (1, 1)}),
}


def digest(*tensors):
    found = hashlib.sha1()
    for tensor in tensors:
        found.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def made(case):
    torch.manual_seed(0)
    torch.set_default_dtype(case.dtype)
    block = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh())
    ends = {"before": torch.nn.Linear(2, 4), "after": torch.nn.Linear(4, 3)}
    net = ODENet(block, case.layers, 2.0, **ends, **case.net)
    options = {"control": case.control, **case.settings}
    return LayerParallel(net, case.levels, case.coarsening, **options), torch.rand(6, 2)


def whole(parallel, optimizer=None):
    """The state of all layers, on every rank."""
    if COMM.size == 1 and "--alone" in sys.argv:
        return (parallel if optimizer is None else optimizer).state_dict()
    return COMM.bcast(gather_state(parallel, optimizer))


def trained(case, distributed):
    """What must not depend on the number of ranks."""
    parallel, x = made(case)
    if distributed:
        distribute(parallel)
    optimizer = torch.optim.Adam(parallel.parameters(), 1e-2)
    outputs = []
    for _ in range(case.steps):
        optimizer.zero_grad()
        outputs.append(parallel(x))
        outputs[-1].square().mean().backward()
        optimizer.step()
    outputs.append(parallel(x))
    state, moments = whole(parallel), whole(parallel, optimizer)["state"]
    held = [tensor for tensor in state.values() if isinstance(tensor, torch.Tensor)]
    held += [moments[number][key] for number in moments for key in ("exp_avg", "exp_avg_sq")]
    made_by = parallel.last_forward, parallel.last_backward
    return {"bits": digest(*outputs, *held), "passes": [list(each[:3]) for each in made_by]}


def errors(case):
    """Of output and gradients after one pass, against a loop over the layers."""
    parallel, x = made(case)
    loss = parallel.net(x).square().mean()
    expected = torch.autograd.grad(loss, list(parallel.net.parameters()))
    distribute(parallel)
    parallel(x).square().mean().backward()
    rows = parallel.net.kept
    largest = 0.0
    for wanted, parameter in zip(expected, parallel.net.parameters(), strict=True):
        if wanted.shape[:1] == (case.layers,) and wanted.shape != parameter.shape:
            wanted = wanted[rows.start : rows.stop]
        difference = (parameter.grad - wanted).abs().max() if wanted.numel() else torch.zeros(())
        largest = max(largest, float(difference / expected[0].abs().max()))
    return COMM.allreduce(largest, MPI.MAX)


if __name__ == "__main__":
    told: dict[str, Any] = {}
    for name, case in CASES.items():
        told[name] = trained(case, distributed="--alone" not in sys.argv)
    told["error"] = errors(CASES["exact"])
    if COMM.rank == 0:
        print(json.dumps(told))
