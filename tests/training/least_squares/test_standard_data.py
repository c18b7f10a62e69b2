"""Law: the standard problems are those of their authors; minima, starts, derivatives agree."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import approx_fprime

from tests.training.least_squares.standard import nist
from tests.training.least_squares.standard.problems import mgh, name_of, problems
from tests.training.least_squares.standard.verdict import (
    digits,
    parameter_digits,
    promised,
    verdict,
)

MINPACK = json.loads((Path(__file__).parent / "standard" / "minpack.json").read_text())
PROBLEMS = {problem.name: problem for problem in problems()}
# 1/2 |r|^2 at the standard start, where MINPACK prints none: a plain Python version of its objfcn.
STARTS = {
    "biggs": 0.3895350378279851,
    "gaussian": 1.9440534955834423e-06,
    "gulf": 6.055352912784745,
    "penalty 1 4": 442.53132,
    "penalty 1 10": 74016.282675,
    "penalty 2 4": 1.1700044027315122,
    "penalty 2 10": 81.32638828298356,
    "brown badly scaled": 499999000001.5,
    "beale": 7.1015625,
    "extended rosenbrock 10": 60.5,
    "extended powell singular 12": 322.5,
    "wood": 9596.0,
    "variably dimensioned 10": 1099275.58125,
}
# The paper's sums of squares at minima, where they are not zero.
PAPER = {
    "freudenstein roth": 48.9842,
    "jennrich sampson": 124.362,
    "bard": 8.21487e-3,
    "gaussian": 1.12793e-8,
    "meyer": 87.9458,
    "kowalik osborne": 3.07505e-4,
    "brown dennis": 85822.2,
    "osborne 1": 5.46489e-5,
    "biggs": 5.65565e-3,
    "osborne 2": 4.01377e-2,
    "watson 6": 2.28767e-3,
    "watson 9": 1.39976e-6,
    "watson 12": 4.72238e-10,
    "penalty 1 4": 2.24997e-5,
    "penalty 1 10": 7.08765e-5,
    "penalty 2 4": 9.37629e-6,
    "penalty 2 10": 2.93660e-4,
    "trigonometric 10": 2.79506e-5,
    "brown almost linear 10": 1.0,
    "linear full rank 5 x 50": 45.0,
    "linear rank 1 5 x 50": 50 * 49 / (2 * 101),
    "linear rank 1 zeros 5 x 50": (50**2 + 3 * 50 - 6) / (2 * 97),
    "chebyquad 8 x 8": 3.51687e-3,
    "chebyquad 10 x 10": 6.50395e-3,
}
AT_INFINITY = {"bard": 17.4286, "kowalik osborne": 1.02734e-3}


def jacobian(problem, x):
    return torch.func.jacrev(problem.residual)(x)


def test_all_are_there():
    assert len(PROBLEMS) == len(problems()) == 74
    families = {name_of(problem.residual) for problem in mgh()}
    assert len(families) == 35
    assert len(nist.problems()) == 27
    assert sum(len(problem.starts) for problem in problems()) == 191


@pytest.mark.parametrize("name", nist.MODELS)
def test_certified_numbers_are_those_of_the_data(name):
    problem, data = PROBLEMS[name], nist.DATA[name]
    x, known = problem.certified, data["sum_of_squares"]
    if name == "Lanczos1":  # its parameters are certified to too few digits for its residuals
        x = x - torch.linalg.lstsq(jacobian(problem, x), problem.residual(x)).solution
    r, J = problem.residual(x), jacobian(problem, x)
    m, n = J.shape
    tolerance = 2e-3 if name == "Lanczos1" else 2e-10
    assert float(r @ r) == pytest.approx(known, rel=tolerance)
    # Of Rat43 NIST prints degrees of freedom that are not those of its own deviation.
    assert data["residual_deviation"] == pytest.approx(math.sqrt(known / (m - n)), rel=1e-10)
    unit = J / J.norm(dim=0)
    spread = torch.linalg.inv(unit.T @ unit).diagonal().sqrt() / J.norm(dim=0)
    found = spread * data["residual_deviation"]
    assert torch.allclose(found, problem.deviations, rtol=1e-7, atol=0.0)
    assert promised(problem, x) < (1e-5 if name == "Lanczos1" else 1e-9)


@pytest.mark.parametrize("kind", MINPACK)
def test_residuals_at_the_starts_are_those_of_minpack(kind):
    for name, published in MINPACK[kind].items():
        if name not in PROBLEMS:  # sizes that are left out here
            continue
        problem = PROBLEMS[name]
        for start, told in zip(problem.starts.values(), published, strict=False):
            vector = problem.residual(start)
            if kind.endswith("gradient"):
                vector = jacobian(problem, start).T @ vector
            norm = told[0] if isinstance(told, list) else told
            assert float(vector.norm()) == pytest.approx(norm, rel=1e-7), name


@pytest.mark.parametrize("name", STARTS)
def test_values_at_other_starts(name):
    assert PROBLEMS[name].value(PROBLEMS[name].starts["x0"]) == pytest.approx(STARTS[name])


@pytest.mark.parametrize("name", PAPER)
def test_minima_of_the_paper_are_listed(name):
    problem = PROBLEMS[name]
    assert any(2.0 * known == pytest.approx(PAPER[name], rel=6e-6) for known in problem.minima)
    if name in AT_INFINITY:
        assert 2.0 * problem.at_infinity[0] == pytest.approx(AT_INFINITY[name], rel=6e-6)


@pytest.mark.parametrize("problem", mgh(), ids=lambda problem: problem.name)
def test_minima_are_minima(problem):
    assert len(problem.points) == len(problem.minima)
    assert problem.minima[0] == min(problem.minima)
    for known, x in zip(problem.minima, problem.points, strict=True):
        rounding = 1e-8 if problem.name.startswith("watson") else 1e-10
        assert problem.value(x) == pytest.approx(known, rel=rounding, abs=1e-24)
        assert verdict(problem, x, problem.value(x)) == (
            "global" if x is problem.points[0] else "local"
        )
        if known == 0.0:
            continue  # no sum of squares is less
        assert promised(problem, x) < 1e-12
        half = torch.func.hessian(lambda x: 0.5 * problem.residual(x).square().sum())(x)
        lengths = jacobian(problem, x).norm(dim=0).clamp_min(1e-100)
        curvatures = torch.linalg.eigvalsh(half / lengths / lengths[:, None])
        assert float(curvatures[0]) >= -1e-10 * float(curvatures[-1])


@pytest.mark.parametrize("problem", problems(), ids=lambda problem: problem.name)
def test_jacobians_are_those_of_finite_differences(problem):
    start = next(iter(problem.starts.values()))
    J = jacobian(problem, start)
    assert J.dtype == torch.float64

    sizes = torch.where(start == 0.0, 1.0, start.abs())

    def r(s):
        return problem.residual(start + sizes * torch.from_numpy(s)).numpy()

    zero, step = np.zeros(len(start)), 6e-6
    sides = [approx_fprime(zero, r, h).reshape(J.shape) for h in (step, -step)]
    found = torch.from_numpy(sum(sides) / 2.0)  # central
    J = J * sizes
    scale = J.norm(dim=0) + 1e-3 * problem.residual(start).norm()
    assert float(((J - found) / scale).abs().max()) < 1e-6


def test_verdicts():
    misra, bard, box = PROBLEMS["Misra1a"], PROBLEMS["bard"], PROBLEMS["box"]
    x = misra.certified
    assert verdict(misra, x, misra.minima[0] * (1.0 + 9e-7)) == "global"
    moved = x * (1.0 + 1e-4)
    assert verdict(misra, moved, misra.value(moved)) == "missed"
    assert verdict(misra, x, math.nan) == "missed"
    far = torch.tensor([0.8407, -2e8, -2e8], dtype=torch.float64)
    assert verdict(bard, far, bard.value(far)) == "infinity"
    near = box.points[0] + 1e-6
    assert verdict(box, near, box.value(near)) == "missed"
    plateau = torch.tensor([float(np.mean(nist.DATA["BoxBOD"]["y"])), 100.0], dtype=torch.float64)
    assert verdict(PROBLEMS["BoxBOD"], plateau, PROBLEMS["BoxBOD"].value(plateau)) == "flat"


def test_digits():
    assert digits(1.001, 1.0) == pytest.approx(3.0)
    assert (digits(1.0, 1.0), digits(2.5, 1.0), digits(math.nan, 1.0)) == (11.0, 0.0, 0.0)
    lanczos = PROBLEMS["Lanczos3"]
    assert parameter_digits(lanczos, lanczos.certified[[2, 3, 4, 5, 0, 1]]) == 11.0
    assert parameter_digits(lanczos, lanczos.certified[[1, 0, 2, 3, 4, 5]]) == 0.0
    assert parameter_digits(lanczos, lanczos.certified * 1.0001) == pytest.approx(4.0)
