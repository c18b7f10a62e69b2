"""Knot hierarchies nest exactly; their cycles, in both forms, never raise the loss."""

import numpy as np
import pytest
import torch

from mgnet import cascade, cycle, parse, run
from mgnet.knots import (
    KAN,
    GradientDescent,
    knot_hierarchy,
    knot_transfer,
    kronecker_matrix,
    roughness,
)
from mgnet.training import (
    LBFGS,
    AdaptiveBasis,
    Ansatz,
    Broyden,
    Collocation,
    LastLayer,
    LeastSquares,
    LevenbergMarquardt,
    Objective,
    Term,
    TorchOptimizer,
)
from mgnet.training.least_squares.last_layer import LinearPart


def data():
    generator = torch.Generator().manual_seed(0)
    x = 2.0 * torch.rand(200, 2, generator=generator, dtype=torch.float64) - 1.0
    return x, torch.sin(3 * x[:, :1]) * torch.cos(4 * x[:, 1:])


def problem(kan):
    return LeastSquares(kan, data())


def quartic(kan):
    """An objective that is no sum of squares known to be one."""
    return Objective(kan, lambda outputs, targets: (outputs - targets).pow(4).mean(), data())


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("factor", [2, 3])
def test_the_transfer_carries_a_network_to_its_refinement(linear, factor):
    kan = KAN([2, 3, 3, 1], linear=linear)
    u = torch.nn.utils.parameters_to_vector(kan.parameters()).detach()
    fine = torch.nn.utils.parameters_to_vector(kan.refine(factor).parameters()).detach()
    transfer = knot_transfer(kan, factor)
    torch.testing.assert_close(transfer.prolong(u), fine)
    torch.testing.assert_close(transfer.inject(fine), u)
    fine += torch.linspace(-1.0, 1.0, len(fine), dtype=torch.float64) ** 3
    network = kan.refine(factor)
    torch.nn.utils.vector_to_parameters(fine, network.parameters())
    coarse = torch.nn.utils.parameters_to_vector(network.coarsen(factor).parameters())
    torch.testing.assert_close(transfer.inject(fine), coarse.detach())


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("factor", [2, 3])
def test_the_kronecker_matrix_is_the_prolongation(linear, factor):
    kan = KAN([2, 3, 2, 1], [2, 5] if linear else [2, 5, 3], linear=linear)
    columns = torch.eye(sum(p.numel() for p in kan.parameters()), dtype=torch.float64)
    expected = torch.stack([knot_transfer(kan, factor).prolong(column) for column in columns], 1)
    np.testing.assert_array_equal(kronecker_matrix(kan, factor).toarray(), expected.numpy())
    u = torch.nn.utils.parameters_to_vector(kan.parameters()).detach().numpy()
    fine = torch.nn.utils.parameters_to_vector(kan.refine(factor).parameters()).detach().numpy()
    np.testing.assert_allclose(kronecker_matrix(kan, factor) @ u, fine, atol=1e-15)


def flat(network):
    return torch.nn.utils.parameters_to_vector(network.parameters()).detach()


@pytest.mark.parametrize("seed", range(8))
def test_transfers_of_some_layers(seed):
    """Also on axes so long that matrices are not dense, and inside another module."""
    draw = np.random.default_rng(seed)
    count, linear, long = int(draw.integers(1, 4)), bool(draw.integers(2)), seed % 4 == 0
    widths = draw.integers(1, 4, count + 1 + linear).tolist()
    intervals = draw.integers(130 if long else 1, 150 if long else 7, count).tolist()
    kan = KAN(widths, intervals, int(draw.integers(1, 6)), linear=linear)
    factor = int(draw.integers(2, 4))
    some = draw.choice(count, int(draw.integers(1, count + 1)), replace=False).tolist()
    fine, transfer = kan.refine(factor, some), knot_transfer(kan, factor, some)
    torch.testing.assert_close(transfer.prolong(flat(kan)), flat(fine), rtol=0, atol=1e-14)
    torch.testing.assert_close(transfer.inject(flat(fine)), flat(kan), rtol=0, atol=1e-9)
    other = flat(fine) + torch.from_numpy(draw.standard_normal(len(flat(fine))))
    torch.nn.utils.vector_to_parameters(other, fine.parameters())
    coarse = flat(fine.coarsen(factor, layers=some))
    torch.testing.assert_close(transfer.inject(other), coarse, rtol=0, atol=1e-9)
    P = kronecker_matrix(kan, factor, some)
    np.testing.assert_allclose(P @ flat(kan).numpy(), transfer.prolong(flat(kan)), atol=1e-14)
    np.testing.assert_allclose(P.T @ other.numpy(), transfer.restrict(other), atol=1e-12)
    held = knot_transfer(Ansatz(kan), factor, some)
    assert torch.equal(held.prolong(flat(kan)), transfer.prolong(flat(kan)))


@pytest.mark.parametrize("seed", range(8))
def test_a_layer_is_refined_until_it_has_its_most_intervals(seed):
    draw = np.random.default_rng(seed)
    count, factor, levels = int(draw.integers(1, 4)), int(draw.integers(2, 4)), 4
    first = draw.integers(1, 5, count).tolist()
    caps = [None if draw.integers(3) == 0 else n * factor ** int(draw.integers(4)) for n in first]
    caps[draw.integers(count)] = None
    kan = KAN([2] * (count + 1), first)
    told = {"factor": factor, "most_intervals": tuple(caps)}
    x, y = data()[0], data()[0]
    hierarchy = knot_hierarchy(kan, LeastSquares(kan, (x, y)), levels, LBFGS(), **told)
    sizes = []
    for number, level in enumerate(hierarchy):
        network = hierarchy.network(number, level.operator.start())
        sizes.append(network.intervals)
        torch.testing.assert_close(network(x), kan(x))
    for fine, coarse in zip(sizes, sizes[1:], strict=False):
        for n, m, cap in zip(fine, coarse, caps, strict=True):
            assert n == (m if cap is not None and m * factor > cap else m * factor)
    assert sizes[-1] == tuple(first)
    alike = len(set(sizes[0])) == 1
    numbers = sizes[0][:1] if alike else sizes[0]
    assert hierarchy[0].name == f"level 0 ({', '.join(map(str, numbers))} intervals)"
    if all(cap is None for cap in caps):
        same = knot_hierarchy(kan, LeastSquares(kan, (x, y)), levels, LBFGS(), factor=factor)
        assert torch.equal(same[0].operator.start(), hierarchy[0].operator.start())


def test_one_number_caps_all_layers():
    kan = KAN([2, 3, 1], [2, 8])
    hierarchy = knot_hierarchy(kan, problem(kan), 3, LBFGS(), most_intervals=8)
    assert [level.name for level in hierarchy] == [
        "level 0 (8 intervals)",
        "level 1 (4, 8 intervals)",
        "level 2 (2, 8 intervals)",
    ]


def test_impossible_most_intervals_are_refused():
    kan = KAN([2, 2, 2], [4, 6])

    def made(most, levels=3, kan=kan):
        return knot_hierarchy(kan, problem(kan), levels, LBFGS(), most_intervals=most)

    for most in ((8,), (8, 8, 8), "88", 0, (8, -1), 8.0, (True, 8)):
        with pytest.raises(ValueError, match="got most_intervals .* for 2 spline layers; give a"):
            made(most)
    with pytest.raises(ValueError, match="but layer 1 has 6 intervals already"):
        made((None, 5))
    with pytest.raises(ValueError, match=r"got 4 levels, .* 4, 6 intervals .* give levels=3 at"):
        made((16, 6), 4)
    with pytest.raises(ValueError, match="give levels=1 at most"):
        made((7, 11), 10**30)
    with pytest.raises(ValueError, match=r"10\^30|about 1e30 levels"):
        made((None, 6), 10**30)  # more than memory holds
    tied = KAN([2, 2, 2], 4)
    tied.coefficients[1] = tied.coefficients[0]
    with pytest.raises(ValueError, match=r"most_intervals \(8, 4\), but layer 1 shares its coeff"):
        made((8, 4), 2, tied)
    assert made(8, 2, tied)[0].name == "level 0 (8 intervals)"


@pytest.mark.parametrize("form", ["subspace", "injected"])
def test_laws_and_cycles_of_layers_with_different_intervals(form):
    kan = KAN([2, 3, 1], 2)
    told = {"form": form, "most_intervals": (None, 4)}
    hierarchy = knot_hierarchy(kan, problem(kan), 3, LevenbergMarquardt(), **told)
    told = hierarchy.check(hierarchy[0].operator.start())
    assert told.count("gradient of the objective") == 3
    u, memory = run(cascade([8, 4, 4]), hierarchy, hierarchy[0].operator.start(), None)
    before = hierarchy[0].operator.value(u)
    u, _ = run(parse("V(1,1)", 3), hierarchy, u, None, memory)
    assert hierarchy[0].operator.value(u) < before
    assert hierarchy.network(0, u).intervals == (8, 4)


@pytest.mark.parametrize("form", ["subspace", "injected"])
@pytest.mark.parametrize("objective", [problem, quartic])
@pytest.mark.parametrize("factor", [2, 3])
def test_all_laws_hold(form, objective, factor):
    kan = KAN([2, 3, 1], 2)
    hierarchy = knot_hierarchy(kan, objective(kan), 3, LBFGS(), factor=factor, form=form)
    assert hierarchy.network(0, hierarchy[0].operator.start()).intervals == (2 * factor**2,) * 2
    told = hierarchy.check(hierarchy[0].operator.start())
    assert told.count("gradient of the objective") == 3
    assert told.count("recentering") == (2 if form == "subspace" else 0)
    assert told.count("nesting") == (2 if form == "injected" else 0)


def test_refinement_in_a_cascade_loses_nothing():
    kan = KAN([2, 3, 1], 2)
    hierarchy = knot_hierarchy(kan, problem(kan), 3, LevenbergMarquardt())
    values = []

    def record(step, data):
        if step.action in ("solve", "interpolate", "post"):
            values.append((step.action, data.level.operator.value(data.state)))

    run(cascade([5, 4, 3]), hierarchy, hierarchy[0].operator.start(), None, record=record)
    assert [action for action, _ in values] == ["solve", *["interpolate", "post"] * 2]
    for (_, before), (action, after) in zip(values[:-1], values[1:], strict=True):
        assert after == pytest.approx(before, rel=1e-10) if action == "interpolate" else True
        assert after <= before * (1 + 1e-10)


@pytest.mark.parametrize("form", ["subspace", "injected"])
@pytest.mark.parametrize("text", ["V(1,1)", "F(1,0)", "W(0,1)"])
@pytest.mark.parametrize(
    ("objective", "smoother"),
    [(problem, LevenbergMarquardt()), (problem, LBFGS()), (quartic, LBFGS())],
    ids=["Levenberg-Marquardt", "L-BFGS", "L-BFGS, fourth powers"],
)
def test_cycles_around_a_trained_state_never_raise_the_loss(text, objective, smoother, form):
    kan = KAN([2, 3, 1], 2)
    hierarchy = knot_hierarchy(kan, objective(kan), 3, smoother, form=form)
    fine = hierarchy[0].operator
    u, memory = run(cascade([10, 5, 5]), hierarchy, fine.start(), None)
    values = [fine.value(u)]
    for _ in range(3):
        u, memory = run(parse(text, 3), hierarchy, u, None, memory)
        values.append(fine.value(u))
    assert all(b <= a for a, b in zip(values[:-1], values[1:], strict=True))
    assert values[-1] < 0.9 * values[0]


@pytest.mark.parametrize("form", ["subspace", "injected"])
@pytest.mark.parametrize("objective", [problem, quartic])
def test_coarse_corrections_alone_lower_the_loss(form, objective):
    kan = KAN([2, 3, 1], 2)
    hierarchy = knot_hierarchy(kan, objective(kan), 3, LBFGS(), form=form)
    fine = hierarchy[0].operator
    lengths = []

    def record(step, told):
        if step.action == "up":
            lengths.append(told.step_length)

    u, _ = run(parse("V(0,0,5)", 3), hierarchy, fine.start(), None, record=record)
    assert all(length > 0.0 for length in lengths)
    assert fine.value(u) < 0.8 * fine.value(fine.start())


def test_the_network_of_a_level():
    kan = KAN([2, 3, 1], 2)
    hierarchy = knot_hierarchy(kan, problem(kan), 2, LevenbergMarquardt())
    u = hierarchy[0].operator.start() + 0.1
    network = hierarchy.network(0, u)
    assert network.intervals == (4, 4)
    x = data()[0]
    torch.testing.assert_close(network(x), hierarchy[0].operator.outputs(u))


def test_levels_with_a_part_of_the_samples_cost_less():
    kan = KAN([2, 3, 1], 2)
    hierarchy = knot_hierarchy(kan, problem(kan), 3, LBFGS(), samples=[1.0, 0.5, 0.25])
    samples = [len(level.operator.data[0]) for level in hierarchy]
    assert [level.cost for level in hierarchy] == [count / samples[0] for count in samples]
    around = hierarchy[1].recenter(hierarchy[1].operator.start())
    assert around.cost == hierarchy[1].cost == 0.5
    # Losses over other samples do not agree, as nested levels of the same samples do.
    assert knot_hierarchy(kan, problem(kan), 3, LBFGS()).nested and not hierarchy.nested
    finer = hierarchy[0].transfer.prolong(hierarchy[1].operator.start())
    coarse, fine = (
        hierarchy[1].objective(hierarchy[1].operator.start()),
        hierarchy[0].objective(finer),
    )
    assert coarse != pytest.approx(fine, rel=1e-6)


def test_refusal():
    kan = KAN([1, 1])
    with pytest.raises(ValueError, match="knot_hierarchy got 0 levels"):
        knot_hierarchy(kan, problem(KAN([2, 1])), 0, LevenbergMarquardt())
    with pytest.raises(ValueError, match="got form 'fas'; it must be 'subspace' or 'injected'"):
        knot_hierarchy(kan, problem(KAN([2, 1])), 2, LevenbergMarquardt(), form="fas")


FREEZABLE = {
    "LM": LevenbergMarquardt(),
    "L-BFGS": LBFGS(),
    "Broyden": Broyden(),
    "Adam": TorchOptimizer(torch.optim.Adam, {"lr": 1e-3}),
    "descent": GradientDescent(),
    "in the ReLU geometry": GradientDescent("relu"),
}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", FREEZABLE)
def test_frozen_parameters_stay_exactly_and_the_others_train(name, seed):
    """Any choice of layers, also the linear one; on every level the frozen ones are refined."""
    draw = np.random.default_rng([seed, len(name)])
    linear = name != "in the ReLU geometry" and bool(draw.integers(2))
    kan = KAN([2, 3, 2, 1], 2, linear=linear)
    parameters = list(kan.named_parameters())
    count = int(draw.integers(1, len(parameters)))
    frozen = [parameters[k][0] for k in draw.choice(len(parameters), count, replace=False)]
    for part in frozen:
        kan.get_parameter(part).requires_grad_(False)
    levels, factor = int(draw.integers(1, 4)), int(draw.choice([2, 3]))
    form = str(draw.choice(["subspace", "injected"]))
    x = torch.from_numpy(draw.uniform(-1.0, 1.0, (60, 2)))
    problem = LeastSquares(kan, (x, torch.sin(3 * x.sum(1, keepdim=True))), roughness_rows)
    hierarchy = knot_hierarchy(kan, problem, levels, FREEZABLE[name], factor=factor, form=form)
    start, fine = hierarchy[0].operator.start(), kan
    for _ in range(levels - 1):
        fine = fine.refine(factor)
    for schedule in (cascade([4] * levels), cycle(levels)):
        u, _ = run(schedule, hierarchy, start, None)
        assert hierarchy[0].operator.value(u) < hierarchy[0].operator.value(start)
        found = hierarchy.network(0, u)
        for part, p in fine.named_parameters():
            assert torch.equal(found.get_parameter(part), p) == (part in frozen), part
        # The objective is that of the network with these parameters, at the data.
        error = (found(x) - problem.data[1]).detach().square().sum() / 120.0
        assert float(error) == pytest.approx(hierarchy[0].operator.mean_square(u) / 2.0)


def roughness_rows(kan):
    return roughness(kan, 1e-6)


def test_a_penalty_of_frozen_parameters_alone_is_left_out():
    kan = KAN([1, 2, 1], 3)
    whole = LeastSquares(kan, (X1, X1**2), roughness_rows)
    u = whole.start()
    kan.coefficients[0].requires_grad_(False)
    part = LeastSquares(kan, (X1, X1**2), roughness_rows)
    torch.testing.assert_close(part(part.start()), whole(u)[kan.coefficients[0].numel() :])
    assert part.penalty_at(part.start()) < whole.penalty_at(u)
    coupled = LeastSquares(kan, (X1, X1**2), lambda kan: torch.ones(1, 24, dtype=torch.float64))
    with pytest.raises(ValueError, match="couples trained parameters with frozen ones"):
        coupled.value(coupled.start())


def test_an_equation_with_a_frozen_coefficient():
    ansatz = Ansatz(KAN([1, 2, 1], 2), coefficients={"k": 2.0})
    ansatz.coefficients["k"].requires_grad_(False)
    problem = Collocation(ansatz, [Term(lambda u: u.d(0) - u.coefficients["k"] * u.value, X1)])
    hierarchy = knot_hierarchy(ansatz, problem, 2, LevenbergMarquardt())
    u, _ = run(cascade([3, 3]), hierarchy, hierarchy[0].operator.start(), None)
    assert float(hierarchy.network(0, u).coefficients["k"]) == 2.0


def test_what_frozen_leaves_nothing_to_do_is_refused():
    kan = KAN([1, 2, 1], 2)
    kan.coefficients[1].requires_grad_(False)
    for smoother in (LastLayer(), AdaptiveBasis(LevenbergMarquardt())):
        hierarchy = knot_hierarchy(kan, LeastSquares(kan, (X1, X1)), 1, smoother)
        with pytest.raises(ValueError, match=r"'coefficients.1' of the last layer is frozen"):
            run(cascade([3]), hierarchy, hierarchy[0].operator.start(), None)
    kan.requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter that requires a gradient; there is nothing"):
        LeastSquares(kan, (X1, X1))
    kan.coefficients[1].requires_grad_(True)  # the last layer alone
    for smoother in (LastLayer(), AdaptiveBasis(LevenbergMarquardt()), LevenbergMarquardt()):
        hierarchy = knot_hierarchy(kan, LeastSquares(kan, (X1, X1)), 2, smoother)
        u, _ = run(cascade([25, 25]), hierarchy, hierarchy[0].operator.start(), None)
        found = hierarchy.network(0, u)
        assert torch.equal(found.coefficients[0], kan.refine().coefficients[0])
        basis = problem_basis(found)
        best = torch.linalg.lstsq(basis, X1, driver="gelsd").solution
        error = 0.5 * float((basis @ best - X1).square().mean())
        assert hierarchy[0].operator.value(u) == pytest.approx(error, rel=1e-6, abs=1e-12)


def problem_basis(kan):
    parameters = {name: p.detach() for name, p in kan.named_parameters()}
    return LinearPart(kan).features(parameters, X1)


X1 = torch.linspace(-1.0, 1.0, 30, dtype=torch.float64).unsqueeze(1)
