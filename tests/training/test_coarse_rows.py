"""Coarse levels have the first samples of one order, and cost as many as they see."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from mgnet import Hierarchy, Jacobi, Level, Solver, cascade, gallery, run
from mgnet.depth import ODENet, depth_hierarchy
from mgnet.knots import KAN, knot_hierarchy, roughness
from mgnet.training import (
    Collocation,
    LeastSquares,
    LevenbergMarquardt,
    Objective,
    Term,
    TorchOptimizer,
)
from mgnet.training.coarse_rows import coarse_rows, unseen

X = torch.linspace(-1.0, 1.0, 1500, dtype=torch.float64).unsqueeze(1)
Y = torch.sin(8.0 * X)
KINDS = {
    "squares": lambda kan: LeastSquares(kan, (X, Y)),
    "huber": lambda kan: LeastSquares(kan, (X, Y), roughness, loss="huber", chunk_size=50),
    "loss": lambda kan: Objective(kan, torch.nn.functional.l1_loss, (X, Y)),
    "points": lambda kan: Collocation(
        kan, [Term(lambda u: u.d(0) - u.points, X), Term(lambda u: u.value, X[:5], weight=3.0)]
    ),
}


def made(kind="squares", levels=3, **options):
    kan = KAN([1, 3, 1], 4, generator=torch.Generator().manual_seed(1))
    smoother = TorchOptimizer(torch.optim.SGD) if kind == "loss" else LevenbergMarquardt()
    return knot_hierarchy(kan, KINDS[kind](kan), levels, smoother, **options)


def inputs_of(problem):
    if isinstance(problem, Collocation):
        return torch.cat([term.points for term in problem.terms])
    return problem.data[0]


@pytest.mark.parametrize("form", ["subspace", "injected"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [1.0, 3.3, 10])
def test_samples_are_nested_and_cost_what_they_are(kind, rows, form):
    plain = made(kind, form=form)
    thin = coarse_rows(plain, rows)
    whole = plain[0].operator.samples
    assert thin[0] is plain[0]
    finer = set(inputs_of(thin[0].operator)[:, 0].tolist())
    for before, level in zip(plain[1:], thin[1:], strict=True):
        count = min(whole, math.ceil(rows * before.size))
        problem = level.operator
        assert problem.samples == pytest.approx(count, abs=2)
        assert level.cost == pytest.approx(before.cost * problem.samples / whole)
        assert f"{problem.samples} of {whole} samples" in str(level)
        own = set(inputs_of(problem)[:, 0].tolist())
        assert own <= finer
        finer = own
        u = problem.start() + 0.1
        if kind != "points":
            kept = torch.isin(X[:, 0], inputs_of(problem)[:, 0])
            other = before.operator.with_data((X[kept], Y[kept]))
            assert problem.value(u) == pytest.approx(other.value(u))
        assert level.objective(u) == problem.value(u)
        torch.testing.assert_close(level.operator(u), problem.gradient(u))
        assert level.recenter is None or level.recenter.fine is problem
    assert not thin.nested
    assert thin.network(1, thin[1].operator.start()).intervals == (8, 8)
    assert thin.check(thin[0].operator.start()).count("gradient of the objective") == 3


def test_terms_with_few_points_keep_them_and_their_weights():
    plain = made("points")
    few = coarse_rows(plain, 2.0)[2].operator
    assert [term.samples for term in few.terms] == [79, 5]  # 84 for 42 parameters
    u = few.start()
    interior, ends = few.unscaled(u)
    expected = 0.5 * (interior.square().mean() + 3.0 * ends.square().mean())
    assert few.value(u) == pytest.approx(float(expected))
    others, part = unseen(plain[2], coarse_rows(plain, 2.0)[2])
    assert [term.samples for term in others.terms] == [1421, 5]  # type: ignore[union-attr]
    assert part == pytest.approx(1421 / 1505)


def test_weights_are_carried_and_uneven_ones_take_more_samples():
    kan = KAN([1, 3, 1], 4)
    weights = torch.ones(1500, dtype=torch.float64)
    weights[::2] = 3.0
    kept = {}
    for name, given in {"alike": None, "uneven": weights}.items():
        problem = LeastSquares(kan, (X, Y), sample_weight=given)
        kept[name] = coarse_rows(knot_hierarchy(kan, problem, 2, LevenbergMarquardt()), 10.0)[1]
    # Kish: 1500 such weights tell as much as 1500 * 4 / 5 alike.
    assert kept["alike"].operator.samples == 420
    assert kept["uneven"].operator.samples == 525
    few = kept["uneven"].operator
    assert few.sample_weight.tolist() == [
        weights[torch.searchsorted(X[:, 0], x)].item() for x in few.data[0][:, 0]
    ]
    u = few.start()
    squares = (kan(few.data[0]) - few.data[1]).detach().square()[:, 0]
    expected = 0.5 * float((few.sample_weight * squares).sum() / few.sample_weight.sum())
    assert few.value(u) == pytest.approx(expected)


def test_what_a_level_does_not_see_is_all_else():
    plain = made()
    thin = coarse_rows(plain, 10.0)
    others, part = unseen(plain[2], thin[2])
    assert part == pytest.approx(1.0 - 420 / 1500)
    seen, rest = thin[2].operator.data[0], others.data[0]  # type: ignore[union-attr]
    assert sorted(torch.cat([seen, rest])[:, 0].tolist()) == X[:, 0].tolist()
    assert unseen(plain[0], thin[0]) == (None, 1.0)
    close = coarse_rows(plain, 35.0)  # of 42 parameters: 30 are left
    assert close[2].operator.samples == 1470
    assert unseen(plain[2], close[2]) == (None, 1.0)


def test_a_cycle_on_thinned_levels_never_raises_the_objective():
    for form in ("subspace", "injected"):
        thin = coarse_rows(made(form=form), 3.0)
        u, _ = run(cascade([3, 3, 3]), thin, thin[0].operator.start(), None)
        before = thin[0].operator.value(u)

        after = Solver(thin, "V(1,1)", max_cycles=2).solve(u=u)
        assert thin[0].operator.value(after.value) <= before


def test_coarse_levels_see_a_part_of_every_batch():
    x = torch.linspace(-1.0, 1.0, 900, dtype=torch.float64).unsqueeze(1)
    kan = KAN([1, 2, 1], 2)
    hierarchy = knot_hierarchy(kan, LeastSquares(kan, (x, x)), 3, LevenbergMarquardt())
    batch = x[:300], x[:300]
    levels = coarse_rows(hierarchy, 5.0).with_data(batch)
    assert [level.operator.samples for level in levels] == [300, 5 * 28, 5 * 20]
    own = coarse_rows(hierarchy.with_data(batch), 5.0)
    for one, other in zip(levels, own, strict=True):
        assert torch.equal(one.operator.data[0], other.operator.data[0])
    assert [level.evaluation_cost for level in levels] == [1.0, 140 / 300, 100 / 300]


@pytest.mark.parametrize(
    ("width", "samples", "seen"), [(3, 1500, 1500), (3, 2500, 2000), (18, 9000, 2520)]
)
def test_by_default_ten_per_parameter_but_two_thousand_at_least(width, samples, seen):
    x = torch.linspace(-1.0, 1.0, samples, dtype=torch.float64).unsqueeze(1)
    kan = KAN([1, width, 1], 4)  # 14 parameters for each hidden value
    hierarchy = knot_hierarchy(kan, LeastSquares(kan, (x, x)), 2, LevenbergMarquardt())
    thin = coarse_rows(hierarchy)
    assert [level.operator.samples for level in thin] == [samples, seen]
    assert (thin is hierarchy) == (samples == seen)


def test_levels_without_samples_stay_and_numbers_for_them_are_refused():
    kan = KAN([1, 3, 1], 4)
    free = LeastSquares.from_torch(kan, lambda kan: (kan(X) - Y)[:, 0])
    for hierarchy in (
        knot_hierarchy(kan, free, 2, LevenbergMarquardt()),
        gallery.poisson(15),
    ):
        assert coarse_rows(hierarchy, "auto") is hierarchy
        assert coarse_rows(hierarchy, None) is hierarchy
        with pytest.raises(
            TypeError, match="coarse_rows got rows 5.0, but level 1.* has no samples"
        ):
            coarse_rows(hierarchy, 5.0)
    plain = made()
    assert coarse_rows(plain, math.inf) is plain
    own = [replace(level, residual=lambda u, f: -u) for level in plain]
    with pytest.raises(TypeError, match="has no samples"):
        coarse_rows(Hierarchy(own), 5.0)


def test_an_objective_of_the_users_own_stays():
    def held_out(u):
        return float(u.norm())

    plain = made()
    levels = [plain[0], *(replace(level, objective=held_out) for level in plain[1:])]
    assert [level.objective for level in coarse_rows(Hierarchy(levels), 2.0)[1:]] == [held_out] * 2


def test_classes_are_all_seen():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(4000, 2, generator=generator, dtype=torch.float64)
    labels = (x[:, 0] > 0.99).long()
    kan = KAN([2, 2], 2)
    problem = Objective(kan, torch.nn.functional.cross_entropy, (x, labels))
    hierarchy = knot_hierarchy(kan, problem, 2, TorchOptimizer(torch.optim.Adam))
    few = coarse_rows(hierarchy, 10.0)[1].operator.data[1]
    assert len(few) == 200
    assert abs(int(few.sum()) - 200 * float(labels.double().mean())) <= 2


def test_layers_are_thinned_as_knots_are():
    torch.manual_seed(0)
    ends = {"before": torch.nn.Linear(1, 2), "after": torch.nn.Linear(2, 1)}
    net = ODENet(torch.nn.Linear(2, 2), 2, **ends).double()
    hierarchy = depth_hierarchy(net, LeastSquares(net, (X, Y)), 3, LevenbergMarquardt())
    thin = coarse_rows(hierarchy, 10.0)
    sizes = [level.size for level in hierarchy]
    assert [level.operator.samples for level in thin] == [1500, 10 * sizes[1], 10 * sizes[2]]
    assert thin[2].cost == pytest.approx(2 * 10 * sizes[2] / 1500)


@pytest.mark.parametrize("rows", [0.5, -1.0, float("nan"), "all", True])
def test_other_rows_are_refused(rows):
    with pytest.raises(ValueError, match="coarse_rows got rows .*; give samples per parameter"):
        coarse_rows(made(), rows)


def test_operators_that_are_no_objectives():
    level = Level(np.eye(2), Jacobi(), objective=np.sum)
    assert coarse_rows(Hierarchy([level]))[0] is level
