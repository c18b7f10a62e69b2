"""What an outcome of a solver is worth: which minimum it is, and how many digits are right.

Solved is a problem at the global or a listed local minimum. Its value must agree with the known
one to a relative 1e-6; where that is zero, `1/2 |r|^2` must be at most 1e-16; in a regression whose
residuals are nearly rounding (Lanczos1), the norms must agree to 1e-12 of that of the observations.
"""

from __future__ import annotations

import math
from itertools import permutations

import torch

from tests.training.least_squares.standard.problem import Standard

GLOBAL, LOCAL, INFINITY = "global", "local", "infinity"
FLAT, MISSED = "flat", "missed"
SOLVED = {GLOBAL, LOCAL}
MOST_DIGITS = 11.0  # that NIST certifies


def verdict(problem: Standard, x: torch.Tensor, value: float) -> str:
    """`global` or `local` minimum, the value at `infinity`, `flat` elsewhere, or `missed`.

    Flat: to second order, nothing near lowers `1/2 |r|^2` by more than 1e-6 of it. Such a point may
    be a saddle, an unlisted minimum, or on a plateau.
    """
    if not (math.isfinite(value) and bool(torch.isfinite(x).all())):
        return MISSED
    for k, known in enumerate(problem.minima):
        if agrees(problem, value, known):
            return LOCAL if k else GLOBAL
    # Approached from above, slowly; a solver may end on the way.
    if any(abs(value - known) <= 1e-3 * known for known in problem.at_infinity):
        return INFINITY
    return FLAT if promised(problem, x) <= 1e-6 else MISSED


def agrees(problem: Standard, value: float, known: float) -> bool:
    if known == 0.0:
        return value <= 1e-16
    rounding = 1e-12 * problem.observed
    return abs(value - known) <= max(1e-6 * known, 0.5 * rounding**2)


def promised(problem: Standard, x: torch.Tensor) -> float:
    """How much Newton's step would lower `1/2 |r|^2`, relative to it, were it quadratic.

    With exact second derivatives and the sizes of their eigenvalues, so that nothing is promised at
    a saddle. Unknowns whose change by their own size r does not feel are left out.
    """
    r, J = problem.residual(x), torch.func.jacrev(problem.residual)(x)
    half = torch.func.hessian(lambda x: 0.5 * problem.residual(x).square().sum())(x)
    if not bool(torch.isfinite(J).all() and torch.isfinite(half).all()):
        return math.inf
    lengths = J.norm(dim=0)
    felt = lengths * (1.0 + x.abs()) > 1e-12 * r.norm()
    if not bool(felt.any()):
        return 0.0
    lengths = lengths[felt]
    half = half[felt][:, felt] / lengths / lengths[:, None]
    values, V = torch.linalg.eigh(half)
    slopes = V.T @ ((J.T @ r)[felt] / lengths)
    seen = values.abs() > 1e-15 * values.abs().max()
    return float((slopes[seen].square() / values[seen].abs()).sum() / r.square().sum())


def digits(estimate: float, certified: float) -> float:
    """Decimal digits that agree, the logarithm of the relative error: 0 to 11."""
    error = abs(estimate - certified) / abs(certified)
    if not error < 1.0:
        return 0.0
    return min(MOST_DIGITS, -math.log10(max(error, 1e-300)))


def parameter_digits(problem: Standard, x: torch.Tensor) -> float:
    """Of the worst parameter, after equal terms have been put in the order that fits best."""
    if problem.certified is None:
        raise ValueError(f"{problem.name} has no certified parameters")
    found = []
    for order in permutations(problem.groups):
        moved = x.clone()
        for places, taken in zip(problem.groups, order, strict=True):
            moved[list(places)] = x[list(taken)]
        pairs = zip(moved.tolist(), problem.certified.tolist(), strict=True)
        found.append(min(digits(a, b) for a, b in pairs))
    return max(found)
