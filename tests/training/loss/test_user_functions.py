"""Law: a function of the user gives the answer that its author meant, or is refused."""

import numpy as np
import pytest
import torch

from mgnet.training import LeastSquares, Objective, levenberg_marquardt
from mgnet.training.loss.user_functions import check_loss_pairs, watched_parameters


def drawn(seed, samples=None):
    generator = torch.Generator().manual_seed(seed)
    n = samples or int(torch.randint(2, 30, (), generator=generator))
    x = torch.randn(n, 2, dtype=torch.float64, generator=generator)
    torch.manual_seed(seed)
    network = torch.nn.Sequential(
        torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1)
    ).double()
    return network, x, x.sum(1).sin()


def plain(o, t):
    return (o - t).square().mean()


def squeezes(o, t):
    return (o.squeeze(-1) - t).square().mean()


def over_the_last_axis(o, t):
    return (o - t).norm(dim=-1).mean()


def adds_the_column(o, t):
    return (o - t[:, None]).norm(dim=-1).mean()


def relative(o, t):
    return ((o - t) / (1.0 + t.abs())).square().sum()


COLUMN, FLAT = True, False  # of the targets; outputs have a column
CASES = [
    (plain, COLUMN, True),
    (plain, FLAT, False),
    (squeezes, FLAT, True),
    (squeezes, COLUMN, False),
    (over_the_last_axis, COLUMN, True),
    (adds_the_column, FLAT, True),
    (relative, COLUMN, True),
    (relative, FLAT, False),
    (torch.nn.functional.mse_loss, COLUMN, True),
    (torch.nn.functional.mse_loss, FLAT, False),
    (torch.nn.functional.l1_loss, FLAT, False),
    (torch.nn.functional.huber_loss, COLUMN, True),
    (lambda o, t: (o[:, 0] - t).abs().mean(), FLAT, True),
    (lambda o, t: torch.nn.functional.cosine_similarity(o, t, dim=1).mean(), COLUMN, True),
]


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize(("loss", "column", "right"), CASES)
@pytest.mark.parametrize("seed", range(5))
def test_a_loss_that_pairs_all_outputs_and_targets_is_refused(loss, column, right, seed):
    network, x, y = drawn(seed)
    y = y.unsqueeze(1) if column else y
    objective = Objective(network, loss, (x, y))
    u = objective.start()
    if right:
        assert objective.value(u) == pytest.approx(loss(network(x), y).item(), rel=1e-12)
    else:
        for method in ("value", "gradient"):
            fresh = Objective(network, loss, (x, y))
            with pytest.raises(ValueError, match=r"compares all \d+ \* \d+ pairs .*; it must"):
                getattr(fresh, method)(u)


def test_classes_are_not_compared():
    for classes in (1, 3):
        outputs, targets = torch.randn(4, classes), torch.zeros(4).long()
        check_loss_pairs(torch.nn.functional.cross_entropy, outputs, targets)


@pytest.mark.parametrize("seed", range(5))
def test_residuals_of_all_pairs_are_refused_unless_meant(seed):
    network, x, y = drawn(seed)
    n = len(x)
    with pytest.raises(ValueError, match=rf"returned shape \({n}, {n}\), .*y.reshape\({n}, 1\)"):
        levenberg_marquardt(lambda m: m(x) - y, network)
    problem = LeastSquares.from_torch(network, lambda m: (m(x) ** 2, m(x) - y))
    with pytest.raises(ValueError, match="broadcast to all pairs"):
        problem.linearize(problem.start())
    meant = LeastSquares.from_torch(network, lambda m: (m(x) - y).flatten())
    expected = 0.5 * float((network(x) - y).square().sum())
    assert meant.value(meant.start()) == pytest.approx(expected)


@pytest.mark.parametrize(
    "residual",
    [
        lambda m, x: m(x) * x,
        lambda m, x: torch.autograd.grad(m(x).sum(), x, create_graph=True)[0] - m(x),
        lambda m, x: m(x).square() - x * m(x),
    ],
)
def test_as_many_inputs_as_samples_are_no_pairs(residual):
    torch.manual_seed(0)
    network, x = torch.nn.Sequential(torch.nn.Linear(3, 1), torch.nn.Tanh()), torch.randn(3, 3)
    x.requires_grad_()
    problem = LeastSquares.from_torch(network, lambda m: residual(m, x))
    expected = 0.5 * float(residual(network, x).square().sum())
    assert problem.value(problem.start()) == pytest.approx(expected, rel=1e-5)


def clamps(module):
    module[0].weight.data.clamp_(min=0.0)


def scales(module):
    for parameter in module.parameters():
        parameter.mul_(0.9)


def scales_quietly(module):
    with torch.no_grad():
        scales(module)


@pytest.mark.parametrize("edit", [clamps, scales, scales_quietly])
@pytest.mark.parametrize("kind", ["loss", "residual"])
def test_functions_that_edit_parameters_are_refused(edit, kind):
    network, x, y = drawn(0, samples=8)
    before = torch.nn.utils.parameters_to_vector(network.parameters()).clone()

    def residual(module):
        edit(module)
        return module(x)[:, 0] - y

    if kind == "loss":
        objective = Objective.from_torch(network, lambda m: residual(m).square().mean())
    else:
        objective = LeastSquares.from_torch(network, residual)
    u = objective.start()
    kept = u.clone()
    for evaluate in (objective.value, objective.gradient):
        with pytest.raises(ValueError, match="a function of Sequential edits its parameters"):
            evaluate(u)
    assert torch.equal(u, kept)
    after = torch.nn.utils.parameters_to_vector(network.parameters())
    assert torch.equal(before, after)


def test_other_errors_and_nan_pass():
    u = torch.tensor([np.nan, 1.0])
    assert watched_parameters("Linear", lambda: 3, u) == 3
    with pytest.raises(RuntimeError, match="own"):
        watched_parameters("Linear", lambda: (_ for _ in ()).throw(RuntimeError("own")), u)
