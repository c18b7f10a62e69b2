"""Law: the norm is that of `torch.nn.utils.clip_grad_norm_`. More ranks: tests/mpi."""

import pytest
import torch
from torch import nn

from mgnet.depth import DepthSpline, LayerParallel, ODENet, clip_grad_norm_
from mgnet.petsc import distribute


def made(**options):
    torch.manual_seed(0)
    block = nn.Sequential(nn.Linear(3, 3), nn.Tanh())
    net = ODENet(block, 6, before=nn.Linear(2, 3), learnable_steps=True, **options)
    module = LayerParallel(net, 2, 2)
    return nn.Sequential(module, nn.Linear(3, 1))  # what is around it counts, too


@pytest.mark.parametrize("largest", [1e-3, 1e3])
@pytest.mark.parametrize("weights", ["per layer", "shared", DepthSpline(4, 1)])
@pytest.mark.parametrize("spread", [False, True])
def test_norm_and_gradients_are_those_of_torch(petsc, weights, spread, largest):
    ours, theirs = made(weights=weights), made(weights=weights)
    if spread:
        distribute(ours[0])
    x = torch.rand(5, 2, generator=torch.Generator().manual_seed(0))
    for module in (ours, theirs):
        module(x).square().sum().backward()
        module[0].net.before.bias.grad = None
    norm = clip_grad_norm_(ours, largest)
    wanted = nn.utils.clip_grad_norm_(theirs.parameters(), largest)
    torch.testing.assert_close(norm.float(), wanted)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None)
        if a.grad is not None:
            torch.testing.assert_close(a.grad, b.grad)


@pytest.mark.parametrize("given", [0.0, -1.0, float("nan"), "1", None])
def test_other_norms_are_refused(given):
    with pytest.raises(ValueError, match="clip_grad_norm_ got max_norm"):
        clip_grad_norm_(made(), given)


class Ends(nn.Module):
    """Parameters without axes, and complex ones, around the layers."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.scale = inner, nn.Parameter(torch.tensor(2.0))
        self.phase = nn.Parameter(torch.tensor([1.0 + 2.0j, 0.5 - 1.0j]))

    def forward(self, x):
        return self.scale * self.inner(x) * (self.phase * x.mean()).abs().sum()


def test_parameters_without_axes_and_complex_ones_count(petsc):
    ours, theirs = Ends(made()), Ends(made())
    distribute(ours.inner[0])
    for module in (ours, theirs):
        module(torch.ones(5, 2)).square().sum().backward()
    norm = clip_grad_norm_(ours, 0.1)
    wanted = nn.utils.clip_grad_norm_(theirs.parameters(), 0.1)
    torch.testing.assert_close(norm.float(), wanted)
    torch.testing.assert_close(
        [p.grad for p in ours.parameters()], [p.grad for p in theirs.parameters()]
    )


def test_without_gradients_the_norm_is_zero(petsc):
    parallel = distribute(made(weights="shared")[0])
    parallel.net.learnable_steps = None
    assert clip_grad_norm_(parallel, 1.0) == 0.0


def test_sparse_gradients_are_refused(petsc):
    parallel = distribute(made()[0])
    parallel.net.before = nn.Embedding(4, 3, sparse=True)
    parallel(torch.arange(4)).sum().backward()
    with pytest.raises(TypeError, match="sparse gradient"):
        clip_grad_norm_(parallel, 1.0)
