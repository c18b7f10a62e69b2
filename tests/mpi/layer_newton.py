"""Started on several ranks by test_layer_newton.py: Newton's method; prints JSON on rank 0."""

import gc
import hashlib
import json
import sys
import warnings

import petsc4py

petsc4py.init(sys.argv[:1])
gc.disable()  # while torch is loaded: searches for garbage take a third of the start

import torch  # noqa: E402
import torch._dynamo  # noqa: E402  (traces load it)
from mpi4py import MPI  # noqa: E402

from mgnet.depth import FixedCycles, LayerParallel, ODENet  # noqa: E402
from mgnet.depth.mgrit.layer_equation import LayerEquation  # noqa: E402
from mgnet.depth.recurrent.chaos import ChaoticRecurrenceError, refuse_chaos  # noqa: E402
from mgnet.petsc.distribution import distribute_layers  # noqa: E402
from mgnet.petsc.layer_layout import LayerLayout  # noqa: E402
from mgnet.petsc.ranks import Ranks  # noqa: E402

gc.freeze()
gc.enable()
COMM = MPI.COMM_WORLD
CASES = {
    # text, both ways; layers; levels; factor of the weights (chaotic from about 5)
    "dense": ("newton", 26, 2, 1.0, 5),
    "after a cascade, three levels": ("cascade + newton", 29, 3, 1.0, 5),
    "diagonal": ("newton(diagonal)", 26, 2, 1.0, 4),
    "identity": ("newton(identity)", 26, 2, 1.0, 4),
    "damped": ("newton(dense, 0.1)", 26, 2, 1.0, 4),
    "bounded steps": ("newton", 60, 2, 12.0, 9),
    "fewer intervals than ranks": ("newton", 5, 2, 1.0, 3),
    "overflow": ("newton", 26, 2, 1e150, 3),
}


class Cubic(torch.nn.Module):
    """Overflows for large weights."""

    def __init__(self, factor):
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)
        self.factor = factor

    def forward(self, u):
        value = self.linear(u) * self.factor
        return value**3 if self.factor > 1e100 else torch.sin(value)


def made(name):
    text, layers, levels, factor, cycles = CASES[name]
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    net = ODENet(lambda n: Cubic(factor), layers, final_time=2.0)
    settings = {"levels": levels, "coarsening": 2 if levels > 2 else 4}
    control = FixedCycles(cycles)
    parallel = LayerParallel(net, forward=text, backward=text, control=control, **settings)
    return net, parallel, torch.rand(6, 4, generator=torch.Generator().manual_seed(1))


def compared(name):
    """The bits of output and gradient, the reports, and the largest error relative to serial."""
    gc.collect()  # on all ranks now: the last module's communicator must not end on some alone
    net, parallel, x = made(name)
    wanted, exact = differentiated(net, x)
    parallel = distribute_layers(parallel)
    found, out = differentiated(parallel, x)
    error = max(float((a - b).abs().max()) for a, b in ((out, exact), (found, wanted)))
    bits = hashlib.sha1(found.numpy().tobytes() + out.numpy().tobytes()).hexdigest()
    told = [repr(parallel.last_forward), repr(parallel.last_backward)]
    assert len(set(COMM.allgather((bits, *told)))) == 1, name
    return [bits, *told, error]


def differentiated(model, x):
    x = x.clone().requires_grad_()
    out = model(x)
    return torch.autograd.grad(out.square().sum(), x)[0], out.detach()


def refused(name):
    """What all ranks say."""
    gc.collect()
    _, parallel, x = made(name)
    parallel = distribute_layers(parallel)
    try:
        parallel(x)
        said = ""
    except FloatingPointError as error:
        said = str(error).partition(" in layers")[0]
    return sorted(set(COMM.allgather(said)))


class Logistic:
    def __init__(self, rate):
        self.rate = rate

    def advance(self, level, which, states):
        return self.rate * states * (1.0 - states)


def exponents(rate, steps):
    """Of all ranks, that of a refusal of steps that they share; 0 where nothing is refused."""
    layout = LayerLayout(layers=steps, interval=2, ranks=COMM.size)
    ranks = Ranks(petsc4py.PETSc.COMM_WORLD, layout)
    start, own = torch.tensor([[0.3]]), len(layout.of(ranks.place))
    equation = LayerEquation(Logistic(rate), 0, own, start, None, communicator=ranks)
    try:
        refuse_chaos(equation, equation.march(None))
    except ChaoticRecurrenceError as found:
        return COMM.allgather(found.growth.exponent)
    return COMM.allgather(0.0)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    names = [name for name in CASES if name != "overflow"]
    told = {name: compared(name) for name in names}
    told["overflow"] = refused("overflow")
    told["chaos"] = [exponents(4.0, 900), exponents(3.2, 900), exponents(4.0, 5)]
    if COMM.rank == 0:
        print(json.dumps(told))
