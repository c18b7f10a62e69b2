"""The mode of a posterior by Gauss-Newton steps, while the prior and the noise adapt to the data.

A few damped steps, then one update of all weights of the prior from the covariance that Laplace's
approximation gives; and so on, until both rest. Sources: Foresee and Hagan, "Gauss-Newton
approximation to Bayesian learning" (1997); MacKay, "Bayesian interpolation" (1992).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import get_lapack_funcs

from mgnet.estimators.evidence.likelihood import Likelihood
from mgnet.estimators.evidence.model import Hidden, Model
from mgnet.estimators.evidence.prior import Prior

__all__ = ["Fitted", "maximize", "work_of_step"]

EVERY = 2  # steps between updates of the prior
GAIN, GAINS = 0.03, 2  # a step gains little below so many roots of the rows; rest after so many
CHANGE = 0.1  # of weights of a linear model's prior at rest
TRIES = 8
LEAST_DAMPING = 1e-7
potrf, potri, potrs, trtrs = get_lapack_funcs(
    ("potrf", "potri", "potrs", "trtrs"), dtype=np.float64
)
BLOCK = 2**22  # numbers of a Jacobian in memory at once


@dataclass(frozen=True, eq=False)
class Fitted:
    """A model with parameters, and what they were chosen by.

    Attributes
    ----------
    model : Model
    u : array of shape (parameters,)
    prior : Prior
    variance : float
        Of the errors.
    determined : array of shape (parameters,)
        How far the data, and not the prior, determine each parameter: 0 to 1.
    steps : int
    """

    model: Model
    u: np.ndarray
    prior: Prior
    variance: float
    determined: np.ndarray
    steps: int


class _Normal:
    """`(K^T K / v + P) d = K^T s / v - P u`, P diagonal, by a Cholesky factorization."""

    def __init__(self, gram: np.ndarray, slope: np.ndarray, u: np.ndarray):
        self.gram, self.slope, self.u = gram, slope, u
        self.size = float(np.trace(gram)) / len(u)

    def set(self, variance: float, precisions: np.ndarray) -> None:
        self.variance, self.precisions = variance, precisions
        self.gradient = self.slope / variance - precisions * self.u

    def _factor(self, damping: float) -> np.ndarray | None:
        matrix = self.gram / self.variance
        matrix.flat[:: len(matrix) + 1] += self.precisions + damping * self.size / self.variance
        factor, failed = potrf(matrix.T, lower=1, overwrite_a=1)
        return None if failed else factor

    def solve(self, damping: float) -> np.ndarray | None:
        factor = self._factor(damping)
        return None if factor is None else potrs(factor, self.gradient, lower=1)[0]

    def variances(self) -> np.ndarray | None:
        factor = self._factor(0.0)
        return None if factor is None else np.diag(potri(factor, lower=1)[0]).copy()


class _Dual:
    """The same by a matrix as large as there are rows, for more parameters than rows (Woodbury)."""

    def __init__(self, K: np.ndarray, s: np.ndarray, u: np.ndarray):
        self.K, self.slope, self.u = K, K.T @ s, u
        self.size = float(np.vdot(K, K)) / len(u)

    def set(self, variance: float, precisions: np.ndarray) -> None:
        self.variance, self.precisions = variance, precisions
        self.gradient = self.slope / variance - precisions * self.u

    def _factor(self, damping: float) -> tuple[np.ndarray, np.ndarray] | None:
        covariances = 1.0 / (self.precisions + damping * self.size / self.variance)
        roots = self.K * np.sqrt(covariances)
        matrix = roots @ roots.T  # BLAS computes half of such a product
        matrix.flat[:: len(matrix) + 1] += self.variance
        factor, failed = potrf(matrix.T, lower=1, overwrite_a=1)
        return None if failed else (factor, covariances)

    def solve(self, damping: float) -> np.ndarray | None:
        known = self._factor(damping)
        if known is None:
            return None
        factor, covariances = known
        d = covariances * self.gradient
        return d - covariances * (self.K.T @ potrs(factor, self.K @ d, lower=1)[0])

    def variances(self) -> np.ndarray | None:
        known = self._factor(0.0)
        if known is None:
            return None
        factor, covariances = known
        half = trtrs(factor, self.K, lower=1)[0]
        return covariances - covariances**2 * np.einsum("np,np->p", half, half)


def work_of_step(rows: float, size: float) -> float:
    """Multiplications of a step, about.

    Examples
    --------
    >>> work_of_step(1000, 10), work_of_step(10, 1000)
    (101000.0, 101000.0)
    """
    few, many = sorted((float(rows), float(size)))
    return few * few * many + few**3


def maximize(
    model: Model,
    B: np.ndarray,
    likelihood: Likelihood,
    steps: int,
    begin: Fitted | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Fitted:
    """Parameters, weights of the prior and the noise, from each other.

    Parameters
    ----------
    model : Model
    B : array of shape (rows, columns)
        Features of the rows.
    likelihood : Likelihood
    steps : int
        At most.
    begin : Fitted, optional
        Parameters, prior and noise to begin with.
    stop : callable
        Whether to end before the next step.
    """
    if begin is None:
        u, prior = model.start(likelihood.start()), model.prior()
        variance, determined = likelihood.variance(model.outputs(B, u), 0.0), np.zeros(len(u))
    else:
        u, prior, variance, determined = begin.u, begin.prior, begin.variance, begin.determined
    curved = isinstance(model, Hidden)
    damping, calm, taken = float(curved and begin is None), 0, 0
    system, loss = _system(model, B, likelihood, u)
    for taken in range(1, steps + 1):
        if stop():
            break
        system.set(variance, prior.precisions)
        found = _step(model, B, likelihood, system, loss, damping)
        if found is None:
            break
        u, gain, damping = found
        system, loss = _system(model, B, likelihood, u)
        little = gain < GAIN * np.sqrt(likelihood.rows)
        if taken % EVERY and not little and curved:
            continue
        system.set(variance, prior.precisions)
        variances = system.variances()
        if variances is None:
            continue
        determined = np.clip(1.0 - prior.precisions * variances, 0.0, 1.0)
        former, prior = prior, prior.updated(u, variances)
        variance = likelihood.variance(model.outputs(B, u), float(determined.sum()))
        calm = calm + 1 if little else 0
        if calm == GAINS or (not curved and prior.change(former) < CHANGE):
            break
    return Fitted(model, u, prior, variance, determined, taken)


def _system(
    model: Model, B: np.ndarray, likelihood: Likelihood, u: np.ndarray
) -> tuple[_Normal | _Dual, float]:
    """The equations of a step at u, and the loss there."""
    if len(B) * likelihood.outputs < len(u):
        f, J = model.linearized(B, u)
        return _Dual(*likelihood.equations(f, J), u), likelihood.loss(f)
    loss, gram, slope = 0.0, np.zeros((len(u), len(u))), np.zeros(len(u))
    block = max(1, BLOCK // (len(u) * likelihood.outputs))
    for start in range(0, len(B), block):
        part = slice(start, start + block)
        f, J = model.linearized(B[part], u)
        own = likelihood.at(part)
        K, s = own.equations(f, J)
        loss, gram, slope = loss + own.loss(f), gram + K.T @ K, slope + K.T @ s
    return _Normal(gram, slope, u), loss


def _step(
    model: Model,
    B: np.ndarray,
    likelihood: Likelihood,
    system: _Normal | _Dual,
    loss: float,
    damping: float,
) -> tuple[np.ndarray, float, float] | None:
    """A step that does not raise the objective: new parameters, the gain and the next damping."""
    u, variance, precisions = system.u, system.variance, system.precisions
    value = loss / variance + 0.5 * float(precisions @ (u * u))
    for _ in range(TRIES):
        d = system.solve(damping)
        if d is not None:
            new = u + d
            there = likelihood.loss(model.outputs(B, new)) / variance
            gain = value - there - 0.5 * float(precisions @ (new * new))
            if gain >= -1e-9 * abs(value):
                added = damping * system.size / variance
                promised = 0.5 * float(d @ (system.gradient + added * d))
                ratio = gain / max(promised, 1e-300)
                damping *= 0.3 if ratio > 0.5 else 1.0 if ratio > 0.1 else 3.0
                return new, gain, damping if damping > LEAST_DAMPING else 0.0
        damping = max(4.0 * damping, 1e-4)
    return None
