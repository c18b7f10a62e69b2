"""Batches: every sample once per epoch, reproducible, the same on all levels."""

import pytest
import torch

from mgnet import Solver
from mgnet.knots import KAN, knot_hierarchy
from mgnet.training import (
    Collocation,
    LevenbergMarquardt,
    Objective,
    Term,
    TorchOptimizer,
    by_residual,
    minibatches,
    resampled,
)


def line(count):
    return torch.linspace(-1, 1, count, dtype=torch.float64).unsqueeze(1)


def test_an_epoch_has_every_sample_once():
    x = torch.arange(10.0).unsqueeze(1)
    first, second = minibatches((x, 2.0 * x), 5, seed=4), minibatches((x, 2.0 * x), 5, seed=4)
    epochs = []
    for _ in range(2):
        pairs = [next(first) for _ in range(2)]
        assert all(torch.equal(targets, 2.0 * inputs) for inputs, targets in pairs)
        assert all(torch.equal(pair[0], next(second)[0]) for pair in pairs)
        epochs.append(torch.cat([inputs for inputs, _ in pairs]).flatten().tolist())
    assert sorted(epochs[0]) == sorted(epochs[1]) == x.flatten().tolist()
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize("size", [0, 11])
def test_size_of_a_batch(size):
    with pytest.raises(ValueError, match="size"):
        minibatches((line(10), line(10)), size)


def test_classes_by_cross_entropy_in_minibatches():
    """Which third of [-1, 1] a point is in: the gradient of a batch is torch's own."""
    x = line(300)
    labels = ((x.squeeze(1) + 1.0) * 1.5).long().clamp(max=2)
    kan = KAN([1, 3], 6)
    objective = Objective(kan, torch.nn.functional.cross_entropy, (x, labels))
    smoother = TorchOptimizer(torch.optim.Adam, {"lr": 0.1})
    hierarchy = knot_hierarchy(kan, objective, 2, smoother)
    batch = next(minibatches((x, labels), 60))
    bound = hierarchy.with_data(batch)
    assert all(torch.equal(level.operator.data[0], batch[0]) for level in bound)
    loss = torch.nn.functional.cross_entropy(kan(batch[0]), batch[1])
    (gradient,) = torch.autograd.grad(loss, kan.coefficients[0])
    coarse = bound[1].operator
    torch.testing.assert_close(coarse(coarse.start()), gradient.flatten())
    solver = Solver(hierarchy, "nested V(1,1)", max_cycles=60, batches=minibatches((x, labels), 60))
    solution = solver.solve(u=hierarchy[0].operator.start())
    assert hierarchy[0].operator.value(solution.value) < 0.25
    wrong = hierarchy.with_data(batch).network(0, solution.value)(x).argmax(1) != labels
    assert float(wrong.double().mean()) < 0.1


def test_new_points_in_each_cycle():
    kan = KAN([1, 3, 1], 3, 5)
    terms = [
        Term(lambda u: u.d(0) - torch.cos(u.points), line(40)),
        Term(lambda u: u.value, torch.zeros(1, 1).double()),
    ]
    problem = Collocation(kan, terms)

    def draw(generator):
        return 2.0 * torch.rand(40, 1, generator=generator, dtype=torch.float64) - 1.0

    batches = list(zip(range(3), resampled(terms, [draw, None], seed=1), strict=False))
    again = next(resampled(terms, [draw, None], seed=1))
    assert torch.equal(batches[0][1][0].points, again[0].points)
    assert not torch.equal(batches[0][1][0].points, batches[1][1][0].points)
    assert batches[1][1][1] is terms[1]
    hierarchy = knot_hierarchy(kan, problem, 2, LevenbergMarquardt())
    same = [level.operator.terms[0].points for level in hierarchy.with_data(batches[0][1])]
    assert torch.equal(*same)
    solver = Solver(hierarchy, "V(1,1)", max_cycles=25, batches=resampled(terms, [draw, None]))
    u = solver.solve(u=hierarchy[0].operator.start()).value
    x = line(50)
    error = hierarchy.network(0, u)(x) - torch.sin(x)
    assert float(error.detach().abs().max()) < 1e-3
    with pytest.raises(ValueError, match="2 terms"):
        next(resampled(terms, [draw]))


def test_points_gather_where_the_residual_is():
    problem = Collocation(KAN([1, 1]), [Term(lambda u: (u.points > 0.5).double(), line(5))])
    drawn = by_residual(
        problem, problem.start(), line(4000), 400, torch.Generator().manual_seed(0), share=0.8
    )
    inside = float((drawn > 0.5).double().mean())
    assert 0.7 < inside < 0.87  # 0.8 + 0.2 / 4, less for drawing without replacement
    with pytest.raises(ValueError, match="candidates"):
        by_residual(problem, problem.start(), line(5), 10, torch.Generator())
