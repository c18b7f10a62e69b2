"""Law: TAO trains networks of either precision and lowers the loss at every visit."""

import numpy as np
import pytest
import torch

from mgnet import Hierarchy, Level, Solver, gallery
from mgnet.knots import KAN, knot_hierarchy
from mgnet.training import Objective


@pytest.fixture
def make(petsc):
    from mgnet.petsc import TAOSmoother

    return TAOSmoother


def test_a_quadratic_is_solved(make):
    A, f = gallery.poisson(15, levels=1)[0].matrix, np.sin(np.arange(15.0))
    level = Level(A, make("q_"), objective=lambda u: 0.5 * float(u @ (A @ u)))
    solution = Solver(Hierarchy([level]), "V(0,0,50)", rtol=1e-6).solve(f)
    np.testing.assert_allclose(A @ solution.value, f, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("kind", ["lmvm", "bncg", "cg"])
def test_a_network_is_trained(make, dtype, kind):
    x = torch.linspace(-1, 1, 200, dtype=dtype).unsqueeze(1)
    kan = KAN([1, 3, 1], intervals=4, dtype=dtype, generator=torch.Generator().manual_seed(0))
    problem = Objective(kan, torch.nn.functional.mse_loss, (x, torch.sin(4 * x)))
    tao = make(f"{kind}_", {"tao_type": kind, "tao_gatol": 0.0, "tao_grtol": 0.0})
    hierarchy = knot_hierarchy(kan, problem, 2, tao)
    solver = Solver(hierarchy, "cascade 30,30", max_cycles=1)
    solution = solver.solve(u=hierarchy[0].operator.start())
    before, after = (
        hierarchy[0].operator.value(u) for u in (problem_start(hierarchy), solution.value)
    )
    assert solution.value.dtype == dtype
    assert after < 0.1 * before


def problem_start(hierarchy):
    return hierarchy[0].operator.start()


def test_the_right_hand_side_of_a_coarse_level_counts(make):
    level = Level(lambda u: u, make("rhs_"), objective=lambda u: 0.5 * float(u @ u))
    u, _ = level.smoother.smooth(
        level, np.zeros(3), np.arange(3.0), 5, level.smoother.start(level, np.zeros(3))
    )
    np.testing.assert_allclose(u, np.arange(3.0), atol=1e-6)


def test_a_nan_is_a_reason(make):
    level = Level(lambda u: u * np.nan, make("nan_"), objective=lambda u: np.nan)
    solution = Solver(Hierarchy([level]), "V(0,0)").solve(np.ones(2), u=np.ones(2))
    assert solution.reason.name == "NOT_FINITE"
    late = Level(lambda u: u, make("late_"), objective=lambda u: np.nan)
    solution = Solver(Hierarchy([late]), "V(0,0)", max_cycles=3).solve(u=np.ones(2))
    assert solution.reason.name == "NOT_FINITE"


def test_errors_of_the_objective_come_through(make, petsc):
    def broken(u):
        raise KeyError("the data are gone")

    level = Level(lambda u: u, make("err_"), objective=broken)
    with pytest.raises(KeyError, match="the data are gone"):
        Solver(Hierarchy([level]), "V(0,0)").solve(u=np.ones(2))
    with pytest.raises(TypeError, match="TAOSmoother.* no objective"):
        Solver(Hierarchy([Level(lambda u: u, make())]), "V(0,0)").solve(u=np.ones(2))
