"""Law: weights of a network share a unit; other parameters have that of their column norms."""

import pytest
import torch

from mgnet.knots import KAN
from mgnet.training import (
    Ansatz,
    LeastSquares,
    LevenbergMarquardt,
    levenberg_marquardt,
    sine_network,
)
from mgnet.training.least_squares.units import Unknowns, check_scale

X = torch.linspace(-1.0, 1.0, 40, dtype=torch.float64).unsqueeze(1)
Linear, Parameter, Sequential = torch.nn.Linear, torch.nn.Parameter, torch.nn.Sequential


class Formula(torch.nn.Module):
    """Numbers of its own and, if asked for, a network."""

    def __init__(self, inner=None, **start):
        super().__init__()
        self.inner = inner
        for name, value in start.items():
            self.register_parameter(name, Parameter(torch.as_tensor(value).double()))


def unknowns(module, x_scale="auto", residual=None):
    problem = LeastSquares.from_torch(module, residual or (lambda m: next(m.parameters())))
    return Unknowns(problem, len(problem.start()), x_scale)


def own_names(found):
    """Those whose unknowns have units of their own: all or none of a parameter."""
    told = {name: found.own[place].tolist() for name, place in found.tensors}
    assert all(len(set(own)) == 1 for own in told.values())
    return {name for name, own in told.items() if own[0]}


def boxed():
    return torch.nn.ParameterDict({"a": torch.tensor(1.0), "v": torch.ones(3), "M": torch.eye(2)})


@pytest.mark.parametrize(
    ("module", "own"),
    [
        (Linear(2, 3), set()),
        (torch.nn.LayerNorm(3), set()),
        (torch.nn.PReLU(), set()),
        (Sequential(torch.nn.BatchNorm1d(2), Linear(2, 1)), set()),
        (torch.nn.LSTM(2, 3), set()),
        (KAN([1, 2, 1], 3), set()),
        (Formula(rate=2.0, b=[500.0, 1e-4]), {"rate", "b"}),
        (Formula(Linear(1, 2), rate=2.0), {"rate"}),
        (Formula(torch.nn.LayerNorm(2), rate=[2.0, 3.0]), {"rate"}),
        (Formula(W=[[1.0, 2.0]], b=[1.0], c=3.0), set()),  # beside a matrix: a layer
        (Ansatz(KAN([1, 2, 1], 3), coefficients={"nu": 0.1, "c": [1.0, 2.0]}), "coefficients"),
        (boxed(), {"a", "v"}),
        (torch.nn.ParameterList([torch.ones(2), torch.ones(2, 2)]), {"0"}),
        (sine_network([1, 4, 1], learn=True), set()),
    ],
    ids=lambda case: type(case).__name__ if isinstance(case, torch.nn.Module) else "",
)
def test_which_unknowns_have_their_own_unit(module, own):
    found = unknowns(module)
    names = own_names(found)
    assert names == ({"coefficients.nu", "coefficients.c"} if own == "coefficients" else own)
    assert found.formula == (names == {name for name, _ in module.named_parameters()})
    everything = {name for name, _ in module.named_parameters()}
    assert own_names(unknowns(module, "jac")) == everything
    assert own_names(unknowns(module, 1.0)) == own_names(unknowns(module, 3.0)) == set()


def test_frozen_parameters_are_no_unknowns():
    module = Formula(Linear(1, 2), rate=2.0)
    module.inner.requires_grad_(False)
    found = unknowns(module, residual=lambda m: m.rate)
    assert found.formula and found.own.tolist() == [True]


def test_a_coarse_space_has_no_tensors():
    problem = LeastSquares.from_torch(Linear(1, 1), lambda m: m.weight)
    found = Unknowns(problem, 1)
    assert not found.formula and found.tensors == [] and found.own.tolist() == [False]


def test_numbers_by_position_and_by_name():
    module = Formula(a=2.0, b=[1.0, 2.0], C=[[1.0, 2.0], [3.0, 4.0]])
    ones = [1.0] * 7
    for x_scale, expected in [
        (3, [3.0] * 7),
        (torch.arange(1.0, 8.0), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]),
        ({"b": torch.tensor([5.0, 6.0])}, [1.0, 5.0, 6.0, *ones[:4]]),
        ({"a": 1e-3, "C": 2.0}, [1e-3, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0]),
        ({"C": torch.tensor([2.0, 3.0])}, [1.0, 1.0, 1.0, 2.0, 3.0, 2.0, 3.0]),
    ]:
        found = unknowns(module, x_scale)
        assert found.given.tolist() == pytest.approx(expected)
        assert not found.own.any()
        unit, norms = found.sizes(torch.ones(7).double(), (), None)
        assert torch.equal(unit, found.given) and norms is None
    for x_scale in ("auto", "jac", 1.0, 1):
        assert unknowns(module, x_scale).given is None


@pytest.mark.parametrize(
    ("x_scale", "kind", "words"),
    [
        ("jacobian", ValueError, 'x_scale \'jacobian\'; give "auto", "jac" or numbers'),
        (0.0, ValueError, "x_scale 0.0; scales must be positive and finite"),
        (float("nan"), ValueError, "scales must be positive and finite"),
        (torch.tensor([1.0, float("inf")]), ValueError, "scales must be positive and finite"),
        ({"b": -1.0}, ValueError, "x_scale -1.0; scales must be positive"),
        (None, TypeError, "x_scale of type NoneType; give"),
        (True, TypeError, "x_scale of type bool; give"),
        ({1.0, 2.0}, TypeError, "x_scale of type set; give"),
        ({"b": "jac"}, TypeError, "x_scale of type str; give"),
    ],
)
def test_wrong_scales_are_refused(x_scale, kind, words):
    for refused in (
        lambda: check_scale("levenberg_marquardt", x_scale),
        lambda: LevenbergMarquardt(x_scale=x_scale),
    ):
        with pytest.raises(kind, match=words):
            refused()


@pytest.mark.parametrize(
    ("x_scale", "words"),
    [
        ({"c": 1.0}, "x_scale names 'c', which is not a trained parameter; these are b"),
        ({"b": torch.ones(3)}, r"shape \(3,\) for b, of shape \(2,\); give one number, or one"),
        (torch.ones(3), r"shape \(3,\) for all unknowns, of shape \(2,\)"),
    ],
)
def test_scales_that_do_not_fit_the_module_are_refused(x_scale, words):
    module = Formula(b=[1.0, 2.0])
    with pytest.raises(ValueError, match=words):
        levenberg_marquardt(lambda m: m.b - 3.0, module, x_scale=x_scale)


def test_the_largest_column_norm_so_far_tells_a_unit():
    """And weights, in theirs, have columns of mean square 1: as large as the others' are."""
    found = unknowns(Formula(Linear(1, 1), rate=[2.0, 3.0, 4.0]))
    rate = found.own
    columns = torch.empty(5, dtype=torch.float64)
    columns[rate], columns[~rate] = torch.tensor([4.0, 0.0, 100.0]).double(), 50.0
    unit, norms = found.sizes(columns, None, None)
    assert unit[rate].tolist() == pytest.approx([0.5, 1.0, 0.1])  # nothing known of the second
    assert float((columns * unit**2)[~rate].mean()) == pytest.approx(1.0)
    columns[rate] = torch.tensor([16.0, 1.0, 1.0]).double()
    unit, norms = found.sizes(columns, None, norms)
    assert norms.tolist() == [4.0, 1.0, 10.0]
    assert unit[rate].tolist() == pytest.approx([0.25, 1.0, 0.1])
    again, _ = found.sizes(columns, None, torch.ones(2).double())  # of another level
    assert again[rate].tolist() == pytest.approx([0.25, 1.0, 1.0])
