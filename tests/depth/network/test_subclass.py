"""A class derived from ODENet or LayerParallel is kept with all that it does, or refused in words.

Every kind of derived class meets every function that makes something of a network.
"""

import itertools

import pytest
import torch
from torch import nn

from mgnet.depth import FixedCycles, LayerParallel, ODENet, depth_hierarchy
from mgnet.depth.hierarchy import depth_transfer
from mgnet.depth.network.subclass import check_calls, check_own_tensors
from mgnet.petsc import distribute_layers
from mgnet.training import Objective, TorchOptimizer


class Named(ODENet):
    """Only adds methods, options and parameters, which no method of ODENet uses."""

    def __init__(self, *arguments, label="a", **options):
        super().__init__(*arguments, **options)
        self.label = label
        self.extra = nn.Parameter(torch.ones(3))
        self.head = nn.Linear(8, 8)

    def twice(self, x):
        return 2 * self(x)


class Positive(ODENet):
    def forward(self, x):
        return nn.functional.softplus(super().forward(x))


class Normed(ODENet):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.scale = nn.Parameter(torch.full((3,), 0.5))

    def encode(self, x):
        return super().encode(x) * self.scale


class Rescaled(ODENet):
    def decode(self, u):
        return super().decode(u).exp()


class Relaxed(ODENet):
    def propagate(self, u):
        return 0.5 * (u + super().propagate(u))


class Graded(ODENet):
    @property
    def steps(self):
        return super().steps * torch.linspace(0.5, 1.5, self.depth)


class Late(ODENet):
    @property
    def times(self):
        return super().times + 1.0


class Bounded(ODENet):
    def own_layers(self):
        layers = super().own_layers()
        bounded = tuple([p.clamp(-0.2, 0.2) for p in layers.parameters])
        return type(layers)(bounded, layers.buffers, layers.times, layers.steps)


class Gained(Positive):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.gain = nn.Parameter(torch.ones(self.depth))

    def forward(self, x):
        return super().forward(x) * self.gain.mean()


class Other(ODENet):
    """Its constructor is its own."""

    def __init__(self, width):
        super().__init__(nn.Linear(width, width), 4)


class Called(ODENet):
    def __call__(self, x):
        return -super().__call__(x)


# class -> the functions that refuse it; all others keep it
REFINED = {"refine", "coarsen", "hierarchy", "transfer"}
KINDS = {
    Named: set(),
    Positive: {"LayerParallel", "to_sequential"},
    Normed: {"to_sequential"},
    Rescaled: {"to_sequential"},
    Relaxed: {"LayerParallel", "to_sequential"},
    Graded: REFINED | {"LayerParallel"},
    Late: REFINED | {"LayerParallel"},
    Bounded: REFINED | {"LayerParallel"},
    Gained: REFINED | {"LayerParallel", "to_sequential"},
    Called: {"LayerParallel", "to_sequential"},
}


def made(kind):
    torch.manual_seed(0)
    return kind(nn.Sequential(nn.Linear(3, 3), nn.Tanh()), 4, learnable_steps=kind is not Graded)


def refined(net):
    fine = net.refine(2)
    assert fine.depth == 8 and type(fine) is type(net)
    return fine


def coarsened(net):
    if net.learnable_steps is None:
        return net.coarsen(2)
    with torch.no_grad():  # layers 0 and 2 have all
        net.learnable_steps[1::2] = 0.0
        net.block[0].weight[1::2] = net.block[0].weight[::2]
        net.block[0].bias[1::2] = net.block[0].bias[::2]
    return net.coarsen(2)


def on_a_level(net):
    objective = Objective(net, nn.functional.mse_loss, (torch.rand(4, 3), torch.rand(4, 3)))
    levels = depth_hierarchy(net, objective, 2, TorchOptimizer(torch.optim.Adam, {"lr": 0.1}))
    fine = levels.network(0, levels[0].operator.start())
    value = levels[0].operator.value(levels[0].operator.start())
    x, y = objective.data
    assert value == pytest.approx(nn.functional.mse_loss(fine(x), y).item(), rel=1e-6)
    return fine


def transferred(net):
    flat = torch.cat([p.detach().ravel() for p in net.parameters()])
    fine = net.refine(2)
    found = depth_transfer(net).prolong(flat)
    torch.testing.assert_close(found, torch.cat([p.detach().ravel() for p in fine.parameters()]))
    return fine


FUNCTIONS = {
    "refine": refined,
    "coarsen": coarsened,
    "hierarchy": on_a_level,
    "transfer": transferred,
    "LayerParallel": lambda net: LayerParallel(net, 2, 2, control=FixedCycles(4)),
    "distribute": lambda net: distribute_layers(LayerParallel(net, 2, 2, control=FixedCycles(4))),
    "to_sequential": lambda net: net.to_sequential(),
}


@pytest.mark.parametrize(("kind", "function"), list(itertools.product(KINDS, FUNCTIONS)))
def test_kept_or_refused(kind, function):
    net, x = made(kind), torch.rand(5, 3)
    refused = "LayerParallel" if function == "distribute" else function
    if refused in KINDS[kind]:
        with pytest.raises(TypeError, match=f"got a {kind.__name__}.*(module of|module around)"):
            FUNCTIONS[function](net)
        return
    found = FUNCTIONS[function](net)
    wanted = net(x)
    torch.testing.assert_close(found(x), wanted, rtol=1e-5, atol=1e-6)
    if function in ("LayerParallel", "distribute"):  # the same parameters: all get their gradients
        names = [name for name, _ in net.named_parameters()]
        right = torch.autograd.grad(wanted.sum(), list(net.parameters()), allow_unused=True)
        ours = torch.autograd.grad(found(x).sum(), list(net.parameters()), allow_unused=True)
        for name, a, b in zip(names, ours, right, strict=True):
            assert (a is None) == (b is None), name
            if a is not None:
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_what_a_class_adds_goes_with_it():
    net = Named(nn.Linear(3, 3), 4, label="mine")
    fine = net.refine(2)
    assert (type(fine), fine.label) == (Named, "mine") and torch.equal(fine.extra, net.extra)


def test_from_sequential_makes_the_class_if_it_can():
    sequential = made(ODENet).to_sequential()
    x = torch.rand(5, 3)
    assert type(Named.from_sequential(sequential)) is Named
    torch.testing.assert_close(Positive.from_sequential(sequential)(x), made(Positive)(x))
    with pytest.raises(TypeError, match="cannot make a Other, whose constructor takes other arg"):
        Other.from_sequential(sequential)


def test_a_method_put_on_the_object_counts():
    net = made(ODENet)
    net.forward = lambda x: x
    with pytest.raises(TypeError, match="its own forward in place of that of ODENet"):
        LayerParallel(net)


class Averaged(LayerParallel):
    def forward(self, x):
        return super().forward(x).mean(-1)


class Logged(LayerParallel):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.seen = 0

    def _note(self, direction, made):
        super()._note(direction, made)
        self.seen += 1


def test_classes_derived_from_layer_parallel():
    net, x = made(ODENet), torch.rand(5, 3)
    averaged = distribute_layers(Averaged(net, 2, 2, control=FixedCycles(4)))
    assert type(averaged) is Averaged
    torch.testing.assert_close(averaged(x), net(x).mean(-1))
    with pytest.raises(TypeError, match=r"LayerParallel.evaluate got a Averaged, .* own forward"):
        averaged.evaluate(nn.functional.mse_loss, [(x, x.mean(-1))])
    logged = Logged(net, 2, 2)
    logged.evaluate(nn.functional.mse_loss, [(x, x)])
    assert logged.seen == 1


def test_rows_that_are_no_layers():
    module = nn.Linear(3, 4)
    check_own_tensors("refine", module, 5, [])
    check_own_tensors("refine", module, 4, ["weight", "bias"])
    with pytest.raises(TypeError, match=r"Linear with weight of shape \(4, 3\)"):
        check_own_tensors("refine", module, 4, ["bias"])


def test_several_methods_are_all_named():
    class Both(nn.Linear):
        def forward(self, x):
            return x

        def extra_repr(self):
            return ""

    check_calls("f", nn.Linear(1, 1), nn.Linear, ["forward", "extra_repr"])
    with pytest.raises(TypeError, match="its own forward, extra_repr in place of those of Linear"):
        check_calls("f", Both(1, 1), nn.Linear, ["forward", "extra_repr"])
