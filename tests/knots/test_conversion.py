"""Networks of efficient-kan and pykan come over: against their formulas, written with SciPy."""

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline

from mgnet.knots import KAN, FreeKnotKAN, from_efficient_kan, from_pykan

WIDTHS = [2, 3, 2]


def silu(x):
    return x / (1.0 + np.exp(-x))


def basis(x, knots, degree):
    """Their splines at x, zero outside their supports: shape (samples, splines)."""
    parts = [
        BSpline.basis_element(knots[i : i + degree + 2], extrapolate=False)(x)
        for i in range(len(knots) - degree - 1)
    ]
    return np.nan_to_num(np.stack(parts, -1))


def grids(inputs, degree, even, random):
    """Of 5 intervals, one per input; both packages continue a grid by its mean width."""
    inner = np.stack([np.linspace(-1.0, 1.0, 6)] * inputs)
    if not even:
        inner = np.cumsum(random.uniform(0.1, 1.0, (inputs, 6)), 1) - 2.0
    steps = (inner[:, -1:] - inner[:, :1]) / 5 * np.arange(1, degree + 1)
    return np.concatenate([inner[:, :1] - steps[:, ::-1], inner, inner[:, -1:] + steps], 1)


def efficient_kan_state(degree=3, even=True, base=1.0):
    random, state = np.random.default_rng(0), {}
    for number, (p, q) in enumerate(zip(WIDTHS[:-1], WIDTHS[1:], strict=True)):
        name = f"layers.{number}."
        state[name + "grid"] = grids(p, degree, even, random)
        state[name + "spline_weight"] = 0.5 * random.standard_normal((q, p, 5 + degree))
        state[name + "spline_scaler"] = random.standard_normal((q, p))
        state[name + "base_weight"] = base * random.standard_normal((q, p))
    return state


def efficient_kan(state, x, degree=3):
    for number in range(2):
        grid, c, s, w = (
            state[f"layers.{number}.{name}"]
            for name in ("grid", "spline_weight", "spline_scaler", "base_weight")
        )
        splines = np.stack([basis(x[:, p], grid[p], degree) for p in range(len(grid))], 1)
        x = np.einsum("npi,qpi,qp->nq", splines, c, s) + silu(x) @ w.T
    return x


def pykan_state(degree=3, even=True, base=1.0):
    random, state = np.random.default_rng(0), {}
    for number, (p, q) in enumerate(zip(WIDTHS[:-1], WIDTHS[1:], strict=True)):
        name = f"act_fun.{number}."
        state[name + "grid"] = grids(p, degree, even, random)
        state[name + "coef"] = 0.5 * random.standard_normal((p, q, 5 + degree))
        state[name + "mask"] = np.where(np.add.outer(range(p), range(q)) == 1, 0.0, 1.0)
        state[name + "scale_base"] = base * random.standard_normal((p, q))
        state[name + "scale_sp"] = random.standard_normal((p, q))
        state[f"symbolic_fun.{number}.mask"] = np.zeros((q, p))
        for kind in ("node", "subnode"):
            state[f"{kind}_scale_{number}"] = random.uniform(0.5, 1.5, q)
            state[f"{kind}_bias_{number}"] = 0.1 * random.standard_normal(q)
    return state


def pykan(state, x, degree=3):
    for number in range(2):
        grid, c, mask, b, s = (
            state[f"act_fun.{number}.{name}"]
            for name in ("grid", "coef", "mask", "scale_base", "scale_sp")
        )
        splines = np.stack([basis(x[:, p], grid[p], degree) for p in range(len(grid))], 1)
        edges = s * np.einsum("npi,pqi->npq", splines, c) + b * silu(x)[..., None]
        x = (mask * edges).sum(1)
        for kind in ("subnode", "node"):
            x = state[f"{kind}_scale_{number}"] * x + state[f"{kind}_bias_{number}"]
    return x


def tensors(state):
    return {name: torch.as_tensor(array) for name, array in state.items()}


def points(spread):
    return spread * np.random.default_rng(7).uniform(-1.0, 1.0, (300, 2))


def outputs(network, x):
    return network(torch.as_tensor(x)).detach().numpy()


KINDS = [
    pytest.param(from_efficient_kan, efficient_kan_state, efficient_kan, id="efficient_kan"),
    pytest.param(from_pykan, pykan_state, pykan, id="pykan"),
]


@pytest.mark.parametrize(("convert", "make", "original"), KINDS)
@pytest.mark.parametrize("even", [True, False])
@pytest.mark.parametrize("degree", [1, 2, 3, 5])
def test_splines_scales_and_biases_come_over_exactly(convert, make, original, even, degree):
    state = make(degree, even, base=0.0)
    imported = convert(tensors(state), tolerance=1e-11)
    assert type(imported.network) is (KAN if even else FreeKnotKAN)
    assert imported.base_share == 0.0
    x = points(6.0)  # also far outside the grids, where their splines are zero
    np.testing.assert_allclose(outputs(imported.network, x), original(state, x, degree), atol=1e-11)


@pytest.mark.parametrize(("convert", "make", "original"), KINDS)
@pytest.mark.parametrize("even", [True, False])
def test_without_the_falling_ends_they_agree_inside(convert, make, original, even):
    state = make(even=even, base=0.0)
    x = points(1.6)
    y = original(state, x)
    imported = convert(
        tensors(state),
        outside="linear",
        inputs=torch.as_tensor(x),
        outputs=torch.as_tensor(y),
        tolerance=1e-11,
    )
    assert imported.network.intervals == (5, 5)
    difference = abs(outputs(imported.network, x) - y).max(1)
    assert 0.0 < imported.outside < 0.95
    assert (difference > 1e-9).mean() <= imported.outside


@pytest.mark.parametrize(("convert", "make", "original"), KINDS)
@pytest.mark.parametrize("even", [True, False])
def test_the_base_joins_the_splines(convert, make, original, even):
    state = make(even=even, base=0.3)
    x = points(1.0)
    y = original(state, x)
    errors = []
    for factor in (1, 2, 4):
        imported = convert(
            tensors(state), factor=factor, inputs=torch.as_tensor(x), outputs=torch.as_tensor(y)
        )
        assert imported.outside == 0.0
        assert 0.05 < imported.base_share < 0.95
        errors.append(abs(outputs(imported.network, x) - y).max() / abs(y).max())
        assert errors[-1] == pytest.approx(imported.difference)
    assert errors[0] < 1e-3 and errors[0] > 8 * errors[1] > 64 * errors[2]


@pytest.mark.parametrize(("convert", "make", "original"), KINDS)
def test_leaving_the_base_out_is_said(convert, make, original):
    state = make(base=0.3)
    imported = convert(tensors(state), splines_only=True, tolerance=1e-11)
    assert imported.base_share > 0.05
    without = make(base=0.0)
    x = points(1.0)
    np.testing.assert_allclose(outputs(imported.network, x), original(without, x), atol=1e-11)
    y = torch.as_tensor(original(state, x))
    with pytest.raises(ValueError, match="differ by"):
        convert(tensors(state), splines_only=True, inputs=torch.as_tensor(x), outputs=y)


def test_a_linear_base_is_a_spline():
    state = tensors(efficient_kan_state(base=1.0))
    assert from_efficient_kan(state, base=lambda x: 2.0 * x + 1.0).difference < 1e-12
    with pytest.raises(ValueError, match="give the base function"):
        wrong = torch.as_tensor(efficient_kan(efficient_kan_state(), points(1.0)))
        from_efficient_kan(
            state, base=torch.tanh, inputs=torch.as_tensor(points(1.0)), outputs=wrong
        )


@pytest.mark.parametrize("convert", [from_efficient_kan, from_pykan])
def test_options_are_checked(convert):
    make = efficient_kan_state if convert is from_efficient_kan else pykan_state
    state = tensors(make())
    with pytest.raises(ValueError, match="got factor 0"):
        convert(state, factor=0)
    with pytest.raises(ValueError, match="outside='zero'"):
        convert(state, outside="zero")
    with pytest.raises(ValueError, match="all of which leave"):
        convert(state, outside="linear", inputs=torch.full((3, 2), 5.0))
    with pytest.raises(ValueError, match=r"got no tensor .* without a prefix"):
        convert({f"model.{name}": t for name, t in state.items()})
    name = next(n for n in state if n.endswith("1.grid"))
    state[name] = state[name].clone()
    state[name][1, 4] = state[name][1, 5]
    with pytest.raises(ValueError, match="layer 1, input 1"):
        convert(state)
    del state[name]
    with pytest.raises(ValueError, match="complete state_dict"):
        convert(state)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("symbolic_fun.1.mask", torch.ones(2, 3), "symbolic edges in layer 1"),
        ("subnode_scale_0", torch.ones(4), "multiplication nodes after layer 0"),
        ("act_fun.0.coef", torch.ones(6, 8), "pykan 0.2"),
        ("act_fun.1.coef", torch.ones(3, 2, 9), r"degrees \[3, 2\]"),
    ],
)
def test_what_a_kan_cannot_be_is_refused(name, value, words):
    with pytest.raises(ValueError, match=words):
        from_pykan({**tensors(pykan_state()), name: value})


def test_imported_networks_refine_and_train_on():
    for even in (True, False):
        network = from_pykan(tensors(pykan_state(even=even, base=0.3))).network
        x = torch.as_tensor(points(1.0))
        torch.testing.assert_close(network.refine()(x), network(x), rtol=0, atol=1e-11)
        network(x).square().mean().backward()
        assert all(p.grad.isfinite().all() for p in network.parameters())
