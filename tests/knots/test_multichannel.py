"""A KAN and its multichannel MLP are one function, with gradients tied by A."""

import copy
import pickle

import pytest
import torch
from scipy.interpolate import BSpline

from mgnet.knots import KAN, MultichannelMLP, change_of_basis
from mgnet.knots.multichannel import channel_layer
from mgnet.knots.refinement import uniform_knots

NETWORKS = [
    {"widths": [2, 4, 1]},
    {"widths": [2, 3, 3, 2], "degree": 5, "domain": (0.0, 2.0)},
    {"widths": [2, 3, 1], "degree": 1, "intervals": [4, 9]},
    {"widths": [2, 4, 3, 1], "degree": 2, "linear": True},
]


def inputs(rows=40, beyond=0.0):
    """In [-1 - beyond, 1 + beyond]."""
    generator = torch.Generator().manual_seed(1)
    return (1.0 + beyond) * (2.0 * torch.rand(rows, 2, generator=generator).double() - 1.0)


@pytest.mark.parametrize("beyond", [0.0, 1.5])
@pytest.mark.parametrize("options", NETWORKS)
def test_conversion_changes_no_output_there_and_back(options, beyond):
    kan, x = KAN(**options), inputs(beyond=beyond)
    mlp = MultichannelMLP(kan)
    for other in (mlp, mlp.to_kan(), MultichannelMLP(mlp.to_kan())):
        torch.testing.assert_close(other(x), kan(x), rtol=0, atol=1e-10)
    shapes = [p.shape for p in mlp.parameters()]
    assert shapes == [p.shape for p in kan.parameters()]


@pytest.mark.parametrize("degree", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("intervals", [4, 16, 64])
def test_rounding_grows_like_the_power_of_the_degree(degree, intervals):
    kan, x = KAN([2, 5, 1], intervals, degree), inputs(200)
    with torch.no_grad():
        error = (MultichannelMLP(kan)(x) - kan(x)).abs().max() / kan(x).abs().max()
    assert error < 100 * torch.finfo(torch.float64).eps * intervals**degree


def test_slopes_at_knots_and_ends_are_those_of_the_same_piece():
    kan = KAN([1, 1], 4, degree=1)
    slopes = []
    for network in (kan, MultichannelMLP(kan)):
        x = torch.linspace(-1.0, 1.0, 5, dtype=torch.float64).unsqueeze(1).requires_grad_()
        slopes.append(torch.autograd.grad(network(x).sum(), x)[0])
    torch.testing.assert_close(slopes[1], slopes[0], rtol=0, atol=1e-13)


@pytest.mark.parametrize("options", NETWORKS)
def test_gradients_by_splines_are_a_times_gradients_by_channels(options):
    kan, x = KAN(**options), inputs()
    mlp = MultichannelMLP(kan)
    for network in (kan, mlp):
        network(x).sin().sum().backward()
    for n, u, w in zip(kan.intervals, kan.coefficients, mlp.weights, strict=True):
        knots = uniform_knots(n, kan.degree, kan.domain)
        A = torch.from_numpy(change_of_basis(knots, kan.degree).toarray())
        expected = torch.einsum("ij,pjq->piq", A, w.grad)
        scale = torch.einsum("ij,pjq->piq", A.abs(), w.grad.abs())
        assert bool(((u.grad - expected).abs() <= 1e-11 * (1.0 + scale)).all())


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_inside_the_domain_it_is_a_plain_mlp(degree):
    """The oracle: torch.nn.Linear, ReLU and a power, nothing of ours."""
    kan, x = KAN([2, 3, 1], 5, degree), inputs()
    mlp = MultichannelMLP(kan)
    channels = 5 + degree
    biases = 1.0 - 0.4 * (torch.arange(channels).double() - degree)
    for number, weight in enumerate(mlp.weights):
        p, _, q = weight.shape
        into = torch.nn.Linear(p, p * channels, dtype=torch.float64)
        out = torch.nn.Linear(p * channels, q, bias=False, dtype=torch.float64)
        with torch.no_grad():
            into.weight.copy_(torch.eye(p).repeat_interleave(channels, 0))
            into.bias.copy_(biases.repeat(p))
            out.weight.copy_(weight.reshape(-1, q).T)
        x = out(torch.relu(into(torch.tanh(x) if number else x)) ** degree)
    torch.testing.assert_close(x, mlp(inputs()), rtol=0, atol=1e-11)
    torch.testing.assert_close(x, kan(inputs()), rtol=0, atol=1e-11)


def test_it_is_an_ordinary_module():
    mlp, x = MultichannelMLP(KAN([2, 3, 1])), inputs(12)
    assert torch.equal(mlp(x.reshape(3, 4, 2)).reshape(12, 1), mlp(x))
    other = MultichannelMLP(KAN([2, 3, 1], generator=torch.Generator().manual_seed(9)))
    other.load_state_dict(mlp.state_dict())
    for twin in (copy.deepcopy(mlp), pickle.loads(pickle.dumps(mlp)), other):
        assert torch.equal(twin(x), mlp(x))
    single = mlp.float()
    assert single(x.float()).dtype == torch.float32 == next(single.to_kan().parameters()).dtype


def test_double_backward():
    mlp = MultichannelMLP(KAN([1, 2, 1]))
    x = torch.linspace(-0.9, 0.9, 5, dtype=torch.float64).unsqueeze(1).requires_grad_()
    assert torch.autograd.gradgradcheck(mlp, (x,))


def test_a_layer_takes_any_knots():
    knots = torch.tensor([-2.0, -1.1, -0.3, 0.0, 0.2, 1.0, 1.7, 2.0, 2.1], dtype=torch.float64)
    u = torch.tensor([1.0, -2.0, 0.5, 3.0, 1.0, -1.0], dtype=torch.float64)
    A = torch.from_numpy(change_of_basis(knots, 2).toarray())
    x = torch.linspace(-0.3, 1.69, 30, dtype=torch.float64)
    expected = BSpline(knots.numpy(), u.numpy(), 2)(x.numpy())
    values = channel_layer(x.unsqueeze(1), (A.T @ u).reshape(1, 6, 1), knots, 2).flatten()
    torch.testing.assert_close(values, torch.from_numpy(expected), rtol=0, atol=1e-12)


def test_widths_instead_of_a_kan_are_refused():
    with pytest.raises(TypeError, match="MultichannelMLP got a list; give a KAN"):
        MultichannelMLP([2, 3, 1])  # type: ignore[arg-type]
