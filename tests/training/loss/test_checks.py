"""Law: what cannot be data or a loss is refused before anything is computed.

And: where NaN or Inf is in what a training starts from, every smoother says so, in one sentence.
"""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from mgnet import Hierarchy, Level, Reason, Solver, cascade, cycle, run
from mgnet.knots import KAN, GradientDescent, knot_hierarchy
from mgnet.training import (
    LBFGS,
    AdaptiveBasis,
    Broyden,
    Collocation,
    EarlyStop,
    LastLayer,
    LeastSquares,
    LevenbergMarquardt,
    NewtonKrylov,
    NewtonLastLayer,
    Objective,
    Patience,
    Term,
    TorchOptimizer,
    levenberg_marquardt,
    solve_last_layer_,
    train,
)
from mgnet.training.loss.checks import check_data, check_loss

x = torch.zeros(3, 1)


@pytest.mark.parametrize("data", [(x, x), [x, x]])
def test_pairs_of_tensors_pass(data):
    check_data("Objective", data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (x, "Tensor"),
        ((x,), "tuple"),
        ((x, x.numpy()), "Tensor, ndarray"),
        ((x, x[:2]), "3 inputs and 2 targets"),
        ((x[:0], x[:0]), "without samples"),
    ],
)
def test_other_data_are_refused(data, words):
    with pytest.raises((TypeError, ValueError), match=words):
        check_data("Objective", data)


@pytest.mark.parametrize("loss", [1.0, x, None])
def test_a_loss_is_one_number(loss):
    with pytest.raises(TypeError, match="one number"):
        check_loss(loss)


@pytest.mark.parametrize("loss", [torch.tensor(2.0), torch.tensor([[2.0]])])
def test_one_number_passes_as_it_is(loss):
    assert check_loss(loss) is loss


SENTENCE = "got a loss that is not finite (NaN or Inf), in its value or gradient at the start: "
SGD = TorchOptimizer(torch.optim.SGD, {"lr": 0.01})
SMOOTHERS = {
    "LM": LevenbergMarquardt(),
    "LM without acceleration": LevenbergMarquardt(acceleration=0.0),
    "Newton-Krylov": LevenbergMarquardt(linear_solver=NewtonKrylov(direct=0)),
    "L-BFGS": LBFGS(),
    "Broyden": Broyden(),
    "Adam": TorchOptimizer(torch.optim.Adam),
    "SGD": SGD,
    "last layer": LastLayer(),
    "variable projection": AdaptiveBasis(LevenbergMarquardt()),
    "LSGD": AdaptiveBasis(SGD),
    "adaptive L-BFGS": AdaptiveBasis(LBFGS()),
    "gradient descent": GradientDescent(),
    "in the ReLU geometry": GradientDescent("relu"),
    "TAO": None,  # made by a fixture: PETSc may be missing
}


def smoother_called(name, request):
    if name != "TAO":
        return SMOOTHERS[name]
    request.getfixturevalue("petsc")
    from mgnet.petsc import TAOSmoother

    return TAOSmoother()


def broken(seed, where):
    """Data with some NaN or Inf, the number of them, and the index of the first."""
    rng = np.random.default_rng(seed)
    x = torch.linspace(-1, 1, 40, dtype=torch.float64).unsqueeze(1)
    data = {"inputs": x, "targets": torch.sin(3 * x)}
    rows = rng.choice(40, rng.integers(1, 4), replace=False)
    bad = rng.choice([math.nan, math.inf, -math.inf]) if where == "targets" else math.nan
    data[where][rows] = bad
    return tuple(data.values()), len(rows), min(rows)


@pytest.mark.parametrize("name", SMOOTHERS)
@pytest.mark.parametrize("where", ["inputs", "targets"])
def test_every_smoother_says_what_is_not_finite(name, where, request):
    smoother = smoother_called(name, request)
    for seed in range(3):
        data, count, first = broken(seed, where)
        kan = KAN([1, 2, 1])
        one, two = (
            knot_hierarchy(kan, LeastSquares(kan, data), levels, smoother) for levels in (1, 2)
        )
        verb = "is" if count == 1 else "are"
        told = f"{SENTENCE}{count} of 40 {where} {verb} not finite, the first at index {first};"
        for schedule, levels in ((cascade([3]), one), (cascade([3, 3]), two), (cycle(2), two)):
            with pytest.raises(FloatingPointError, match=re.escape(told)):
                run(schedule, levels, levels[0].operator.start(), None)
        trained = train(two, two[0].operator.start(), max_cycles=2)
        assert trained.reason is Reason.NOT_FINITE
        assert told in str(trained)
        torch.testing.assert_close(trained.value, two[0].operator.start())
        solved = Solver(one).solve(u=one[0].operator.start())
        assert solved.reason is Reason.NOT_FINITE


@pytest.mark.parametrize("name", [name for name in SMOOTHERS if name != "last layer"])
def test_one_bad_batch_is_told(name, request):
    good, bad = broken(0, "targets")[0], broken(1, "targets")[0]
    good = good[0], good[0] ** 2
    kan = KAN([1, 2, 1])
    smoother = smoother_called(name, request)
    levels = knot_hierarchy(kan, LeastSquares(kan, good), 1, smoother)
    solver = Solver(levels, "V(0,0)", batches=[good, bad, good])
    solution = solver.solve(u=levels[0].operator.start())
    assert solution.reason is Reason.NOT_FINITE
    assert solution.cycles == 1
    assert SENTENCE in str(solution)
    assert bool(torch.isfinite(solution.value).all())


@pytest.mark.parametrize("name", SMOOTHERS)
def test_parameters_that_are_not_finite_are_told(name, request):
    """As they come into a level; `run` sees them too, after its steps."""
    smoother = smoother_called(name, request)
    x = torch.linspace(-1, 1, 40, dtype=torch.float64).unsqueeze(1)
    for place in (0, 9, 18, 27):  # of both layers
        level = knot_hierarchy(KAN([1, 2, 1]), LeastSquares(KAN([1, 2, 1]), (x, x)), 1, smoother)[0]
        u = level.operator.start()
        u[place] = math.nan
        with pytest.raises(FloatingPointError, match=re.escape(SENTENCE) + "1 of 28 parameters is"):
            smoother.smooth(level, u, None, 2, smoother.start(level, u))


def test_a_loss_without_value_may_not_hide_in_its_gradient():
    module = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    u = torch.zeros(1, dtype=torch.float64)  # the slope of a square root at 0 is infinite
    for smoother in (LBFGS(), Broyden(), SGD, LevenbergMarquardt()):
        problem = LeastSquares.from_torch(module, lambda m: 1.0 + m.weight.abs().sqrt())
        level = Level(problem, smoother, objective=problem.value)
        with pytest.raises(FloatingPointError, match=re.escape(SENTENCE) + "neither data nor par"):
            smoother.smooth(level, u, None, 2, smoother.start(level, u))
    with pytest.raises(ValueError, match=re.escape(SENTENCE)):
        with torch.no_grad():
            module.weight.zero_()
        levenberg_marquardt(lambda m: 1.0 + m.weight.abs().sqrt(), module)


def test_other_places():
    x = torch.linspace(-1, 1, 20, dtype=torch.float64).unsqueeze(1)
    bad = torch.where(torch.arange(20).unsqueeze(1) == 7, math.nan, x)
    net = torch.nn.Sequential(torch.nn.Linear(1, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 1))
    net = net.double().eval()

    def refused(problem, smoother, words):
        level = Level(problem, smoother, objective=problem.value)
        with pytest.raises(FloatingPointError, match=re.escape(SENTENCE) + words):
            smoother.smooth(level, problem.start(), None, 1, smoother.start(level, problem.start()))

    terms = [Term(lambda u: u.value, x), Term(lambda u: u.value - 1.0, bad)]
    points = "1 of 20 points of term 1 is not finite, the first at index 7; leave such points out"
    refused(Collocation(net, terms), LevenbergMarquardt(), points)
    terms[1] = replace(terms[0], attention=bad[:, 0])
    refused(Collocation(net, terms), LBFGS(), "1 of 20 factors .attention. of term 1 is")
    classes = (x[:, 0] > 0.0).long()
    cross_entropy = torch.nn.functional.cross_entropy
    refused(
        Objective(torch.nn.Linear(1, 2).double(), cross_entropy, (bad, classes)),
        NewtonLastLayer(),
        "1 of 20 inputs is",
    )
    net[1].get_buffer("running_mean")[2] = math.inf
    buffer = "1 of 3 entries of '1.running_mean', which is not trained, is not finite"
    refused(LeastSquares(net, (x, x)), LevenbergMarquardt(), buffer)
    net[1].running_mean.zero_()
    net[2].bias.requires_grad_(False).fill_(math.nan)
    refused(LeastSquares(net, (x, x)), LBFGS(), "1 of 1 entries of '2.bias', which is not trained,")
    refused(
        Objective.from_torch(torch.nn.Linear(1, 1), lambda m: m(bad.float()).sum()),
        Broyden(),
        "neither data nor parameters hold a NaN or Inf, so check what else the loss",
    )


def test_held_out_data_and_last_layers():
    x = torch.linspace(-1, 1, 20, dtype=torch.float64).unsqueeze(1)
    bad = torch.where(torch.arange(20).unsqueeze(1) == 7, math.nan, x)
    kan = KAN([1, 2, 1])
    held_out = LeastSquares(kan, (x, bad))
    smoother = EarlyStop(LevenbergMarquardt(), held_out, 3)
    levels = knot_hierarchy(kan, LeastSquares(kan, (x, x)), 1, smoother)
    told = f"with held-out data, {SENTENCE}1 of 20 targets is not finite"
    with pytest.raises(FloatingPointError, match=re.escape(told)):
        run(cascade([3]), levels, levels[0].operator.start(), None)
    levels = knot_hierarchy(kan, LeastSquares(kan, (x, x)), 1, LevenbergMarquardt())
    with pytest.raises(FloatingPointError, match=re.escape(f"Patience, {told}")):
        Solver(levels, monitor=Patience(held_out.value, 3)).solve(u=levels[0].operator.start())
    before = [p.clone() for p in kan.parameters()]
    for data in ((x, bad), (bad, x)):
        with pytest.raises(ValueError, match="features or targets that are not finite"):
            solve_last_layer_(kan, [(x, x), data])
    assert all(map(torch.equal, before, kan.parameters()))


def test_an_overshoot_is_no_start():
    """What a line search or a trust region meets further on may well be infinite."""
    x = torch.linspace(0.0, 1.0, 20, dtype=torch.float64).unsqueeze(1)
    problem = LeastSquares.from_torch(
        torch.nn.Linear(1, 1).double(), lambda m: torch.log(m(x) + 2.0) - torch.log(0.1 + 9.0 * x)
    )
    u = torch.zeros(2, dtype=torch.float64)
    for smoother in (LevenbergMarquardt(mu=1e-8), Broyden()):
        level = Level(problem, smoother, objective=problem.value)
        new, _ = run(cascade([40]), Hierarchy([level]), u, None)
        assert problem.value(new) < 1e-6 * problem.value(u)


@pytest.mark.parametrize("make", [torch.clone, torch.Tensor.to_sparse])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_penalty_that_is_not_finite_is_named(make, value):
    def penalty(network):
        rows = torch.eye(42, dtype=torch.float64)[: sum(p.numel() for p in network.parameters())]
        rows[3, 3] = value
        return make(rows)

    x = torch.linspace(-1, 1, 40, dtype=torch.float64).unsqueeze(1)
    kan = KAN([1, 3, 1], 4)
    levels = knot_hierarchy(kan, LeastSquares(kan, (x, x.sin()), penalty), 1, LBFGS())
    words = "1 of 42 rows of the penalty is not finite, the first at index 3; change it"
    with pytest.raises(FloatingPointError, match=words):
        run(cascade([2]), levels, levels[0].operator.start(), None)


def test_masked_targets_are_data():
    """A loss that leaves NaN targets out is finite, and so is what it is given."""
    x = torch.linspace(-1, 1, 20, dtype=torch.float64).unsqueeze(1)
    y = torch.where(torch.arange(20).unsqueeze(1) % 3 == 0, math.nan, 2.0 * x)
    network = torch.nn.Linear(1, 1).double()
    problem = Objective(network, lambda out, y: (out - y)[~y.isnan()].square().mean(), (x, y))
    level = Level(problem, LBFGS(), objective=problem.value)
    u, _ = run(cascade([30]), Hierarchy([level]), problem.start(), None)
    assert u.tolist() == pytest.approx([2.0, 0.0], abs=1e-6)


@pytest.mark.parametrize("name", ["L-BFGS", "Broyden", "gradient descent"])
@pytest.mark.parametrize("exponent", [-600, 600])
def test_gradients_without_a_square_are_told(name, exponent):
    """A line search would find that no step lowers a loss of 0, and leave the start."""
    smoother = SMOOTHERS[name]
    x = torch.linspace(-1, 1, 40, dtype=torch.float64).unsqueeze(1)
    kan = KAN([1, 2, 1])
    with torch.no_grad():
        kan.coefficients[1].mul_(2.0**exponent)
    levels = knot_hierarchy(kan, LeastSquares(kan, (x, x * 2.0**exponent)), 1, smoother)
    with pytest.raises(FloatingPointError, match="whose square vanishes|not finite"):
        run(cascade([3]), levels, levels[0].operator.start(), None)
    minimum = Level(lambda u: 0.0 * u, smoother, objective=lambda u: 0.0, size=2)
    u = torch.ones(2, dtype=torch.float64)
    assert torch.equal(run(cascade([3]), Hierarchy([minimum]), u, None)[0], u)
