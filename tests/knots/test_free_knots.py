"""Knots that move stay in order, refine exactly, and fit what even knots cannot."""

import copy
import pickle
import warnings

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline
from torch.func import functional_call, jacrev, vmap

from mgnet import Hierarchy, Level, parse, run
from mgnet.knots import KAN, FreeKnotKAN
from mgnet.training import LeastSquares, LevenbergMarquardt


def inputs(rows=60, columns=2, spread=1.4):
    """The domain [-1, 1] and more."""
    generator = torch.Generator().manual_seed(1)
    return spread * (2.0 * torch.rand(rows, columns, generator=generator).double() - 1.0)


def moved(kan, by=1.0):
    """The network with knots that an optimizer could have made."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        if kan.linear is not None:
            kan.linear.weight *= 1.5
        for knots in kan.free_knots:
            knots.logits += by * torch.randn(knots.logits.shape, generator=generator).to(
                knots.logits
            )
    return kan


NETWORKS = [
    {"widths": [2, 4, 1]},
    {"widths": [2, 3, 3, 2], "degree": 5, "domain": (0.0, 2.0)},
    {"widths": [2, 3, 1], "degree": 1, "intervals": [4, 8], "hidden": "identity"},
    {"widths": [2, 4, 3, 1], "linear": True, "degree": 2},
]


@pytest.mark.parametrize("options", NETWORKS)
def test_at_the_start_it_is_the_kan_of_the_same_seed(options):
    kan, x = KAN(**options), inputs()
    torch.testing.assert_close(FreeKnotKAN(**options)(x), kan(x), rtol=0, atol=1e-13)
    with torch.no_grad():
        for p in kan.parameters():
            p *= 1.5
    torch.testing.assert_close(FreeKnotKAN.from_kan(kan)(x), kan(x), rtol=0, atol=1e-13)


def test_an_edge_is_the_spline_of_scipy_on_its_own_knots():
    kan = moved(FreeKnotKAN([2, 3], intervals=5))
    knots, u = kan.knots(0).detach().numpy(), kan.coefficients[0].detach().numpy()
    np.testing.assert_allclose(knots[:, [3, -4]], [[-1.0, 1.0]] * 2, atol=1e-15)
    assert (np.diff(knots) > 0).all() and np.ptp(np.diff(knots[0])) > 0.1
    np.testing.assert_allclose(np.diff(knots)[:, :4].T, np.diff(knots)[:, 3] * np.ones((4, 1)))
    np.testing.assert_allclose(np.diff(knots)[:, -4:].T, np.diff(knots)[:, -4] * np.ones((4, 1)))
    x = inputs(spread=1.0)
    expected = sum(BSpline(knots[p], u[p], 3)(x[:, p].numpy()) for p in range(2))
    np.testing.assert_allclose(kan(x).detach().numpy(), expected, atol=1e-13)


@pytest.mark.parametrize("options", NETWORKS)
def test_refinement_and_insertion_keep_the_function(options):
    kan, x = moved(FreeKnotKAN(**options)), inputs()
    expected = kan(x)
    size = expected.abs().max()
    for fine in (kan.refine(), kan.refine(3), kan.refine().refine().refine()):
        assert (fine(x) - expected).abs().max() < 1e-13 * size
        assert fine.intervals[0] % kan.intervals[0] == 0
    assert kan.nesting_defect(x) < 1e-13
    ends = kan.knots(0)[:, kan.degree], kan.knots(0)[:, -kan.degree - 1]
    shares = torch.tensor([0.111, 0.777], dtype=torch.float64)
    more = kan.insert(0, ends[0].unsqueeze(1) + (ends[1] - ends[0]).unsqueeze(1) * shares)
    assert more.intervals == (kan.intervals[0] + 2, *kan.intervals[1:])
    assert (more(x) - expected).abs().max() < 1e-13 * size


def test_refinement_after_training_and_further_training():
    x = inputs(200, 1, spread=1.0)
    y, kan, losses = torch.tanh(20.0 * (x - 0.3)), FreeKnotKAN([1, 1], intervals=4), []
    for _ in range(3):
        optimizer = torch.optim.Adam(kan.parameters(), lr=0.02)
        for _ in range(40):
            optimizer.zero_grad()
            loss = (kan(x) - y).square().mean()
            loss.backward()
            optimizer.step()
        losses.append(float((kan(x) - y).detach().square().mean()))
        fine = kan.refine()
        assert (fine(x) - kan(x)).abs().max() < 1e-13
        kan = fine
    widths = kan.knots(0)[0, 3:-3].diff()
    assert losses[0] > 5 * losses[1] > 25 * losses[2] and widths.max() > 3 * widths.min()


def test_float32_refines_to_its_own_rounding():
    kan, x = moved(FreeKnotKAN([2, 3, 1], dtype=torch.float32)), inputs().float()
    fine = kan.refine().refine()
    assert fine(x).dtype == torch.float32
    assert (fine(x) - kan(x)).abs().max() < 3e-6 * kan(x).abs().max()


@pytest.mark.parametrize("name", ["kink", "layer"])
def test_free_knots_beat_even_knots(name):
    x = torch.linspace(-1.0, 1.0, 400, dtype=torch.float64).unsqueeze(1)
    y = (x - 0.3).abs() if name == "kink" else torch.tanh(50.0 * (x - 0.3))
    errors = []
    for network in (KAN([1, 1], 8), FreeKnotKAN([1, 1], 8)):
        problem = LeastSquares(network, (x, y))
        level = Level(problem, LevenbergMarquardt(), objective=problem.value)
        steps = parse("V(0,0,40)", 1)
        u, _ = run(steps, Hierarchy([level]), problem.start(), None)
        errors.append(problem.mean_square(u) ** 0.5)
    assert errors[1] < errors[0] / 10


def test_copies_pickles_and_state_dicts():
    kan, x = moved(FreeKnotKAN([2, 3, 1])), inputs()
    other = FreeKnotKAN([2, 3, 1], domain=(0.0, 3.0))
    other.load_state_dict(kan.state_dict())  # with the ends of the domain
    for twin in (copy.deepcopy(kan), pickle.loads(pickle.dumps(kan)), other):
        assert torch.equal(twin(x), kan(x))
    assert torch.equal(kan(x.reshape(3, 20, 2)).reshape(60, 1), kan(x))
    assert kan.float()(x.float()).dtype == torch.float32


def test_derivatives_of_every_kind():
    kan = moved(FreeKnotKAN([1, 2, 1]))
    x = torch.linspace(-1.3, 1.3, 5, dtype=torch.float64).unsqueeze(1).requires_grad_()
    assert torch.autograd.gradgradcheck(kan, (x,))
    named = dict(kan.named_parameters())

    def outputs(*values):
        return functional_call(kan, dict(zip(named, values, strict=True)), (x.detach(),))

    values = tuple(named.values())
    assert torch.autograd.gradcheck(outputs, values)
    assert torch.autograd.gradgradcheck(outputs, values, atol=1e-4)
    each = vmap(jacrev(lambda n, row: functional_call(kan, n, (row,))), (None, 0))
    detached = {name: p.detach() for name, p in named.items()}
    whole = torch.autograd.functional.jacobian(outputs, values)
    for found, expected in zip(each(detached, x.detach()).values(), whole, strict=True):
        torch.testing.assert_close(found, expected)


def test_it_compiles_in_one_graph():
    kan, x = moved(FreeKnotKAN([2, 3, 1])), inputs()
    compiled = torch.compile(kan, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), kan(x))
    compiled(x).sum().backward()
    assert kan.free_knots[0].logits.grad.abs().max() > 0


def test_collapsed_intervals_are_reported():
    kan = FreeKnotKAN([2, 2, 1], intervals=4)
    assert kan.collapsed() == []
    assert FreeKnotKAN([1, 1], domain=(0.0, 1e-6)).collapsed(0.9) == []  # relative to the mean
    with torch.no_grad():
        kan.free_knots[1].logits[1, 2] = -10.0
    (found,) = kan.collapsed()
    assert found[:3] == (1, 1, 2)
    assert found.width == pytest.approx(4 * np.exp(-10.0) / 3, rel=1e-3)
    with pytest.warns(UserWarning, match="layer=1, input=1, interval=2"):
        fine = kan.refine()
    torch.testing.assert_close(fine(inputs()), kan(inputs()), rtol=0, atol=1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        moved(FreeKnotKAN([2, 1])).refine()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("interval", [0, 2, 3])
@pytest.mark.parametrize("start", [-1.0, 0.0])  # near 0 knots resolve the smallest widths
@pytest.mark.parametrize("beyond", [5.0, 1e4])  # the smallest numbers that are not 0, and 0
def test_underflowing_widths_leave_everything_finite(dtype, interval, start, beyond):
    kan = FreeKnotKAN([1, 1], intervals=4, domain=(start, 1.0), dtype=dtype)
    with torch.no_grad():
        kan.free_knots[0].logits[0, interval] = np.log(torch.finfo(dtype).tiny) - beyond
    knots = kan.knots(0).detach()[0]
    x = torch.cat([knots, torch.linspace(-2.0, 2.0, 21, dtype=dtype)]).unsqueeze(1)
    x.requires_grad_()
    value = kan(x)
    (slope,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    gradients = torch.autograd.grad(slope.square().sum(), tuple(kan.parameters()))
    for part in (value, slope, *gradients):
        assert part.isfinite().all()


def test_refusals():
    kan = FreeKnotKAN([2, 1])
    with pytest.raises(ValueError, match="degree 6"):
        FreeKnotKAN([2, 1], degree=6)
    with pytest.raises(ValueError, match="got factor 1"):
        kan.refine(1)
    with pytest.raises(ValueError, match="positions of shape"):
        kan.insert(0, torch.tensor([0.1]))
    with pytest.raises(ValueError, match=r"strictly\s+increasing"):
        kan.insert(0, torch.tensor([[0.1], [0.5]]))  # there is a knot at 0.5
    with pytest.raises(ValueError, match="the same"):
        kan.insert(0, torch.tensor([[0.1], [1.5]]))
    with torch.no_grad():
        kan.free_knots[0].logits[0, 1] = -1e4
    with pytest.raises(ValueError, match="strictly"), pytest.warns(UserWarning):
        kan.refine()
