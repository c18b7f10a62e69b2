"""The mode of a posterior by Gauss-Newton steps, while the prior and the noise adapt to the data.

A few damped steps alternate with an update of all weights of the prior, which uses the covariance
of Laplace's approximation, until both converge. Sources: Foresee and Hagan, "Gauss-Newton
approximation to Bayesian learning" (1997); MacKay, "Bayesian interpolation" (1992).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mgnet.estimators.evidence.likelihood import Likelihood
from mgnet.estimators.evidence.model import Hidden, Model
from mgnet.estimators.evidence.prior import Prior
from mgnet.estimators.evidence.systems import System, system_of

__all__ = ["Fitted", "maximize"]

EVERY = 2  # steps between updates of the prior
# A gain below this multiple of the square root of the rows is small; converged after this many.
GAIN, GAINS = 0.03, 2
CHANGE = 0.1  # change of the weights of a linear model's prior at convergence
TRIES = 8
LEAST_DAMPING = 1e-7


@dataclass(frozen=True, eq=False)
class Fitted:
    """A model with its parameters, prior and noise.

    Attributes
    ----------
    model : Model
        Model that was fitted.
    u : array of shape (parameters,)
        Parameters.
    prior : Prior
        Prior of the parameters.
    variance : float
        Variance of the errors.
    determined : array of shape (parameters,)
        Degree to which the data, not the prior, determine each parameter: 0 to 1.
    steps : int
        Number of steps.
    """

    model: Model
    u: np.ndarray
    prior: Prior
    variance: float
    determined: np.ndarray
    steps: int


def maximize(
    model: Model,
    B: np.ndarray,
    likelihood: Likelihood,
    steps: int,
    begin: Fitted | None = None,
    stop: Callable[[], bool] = lambda: False,
    blocks: bool = False,
) -> Fitted:
    """Fit the parameters, the weights of the prior and the noise in turn, until all agree.

    Parameters
    ----------
    model : Model
        Model to fit.
    B : array of shape (rows, columns)
        Features of the rows.
    likelihood : Likelihood
        Likelihood of the rows.
    steps : int
        Largest number of steps.
    begin : Fitted, optional
        Initial parameters, prior and noise.
    stop : callable
        Function that returns whether to end before the next step.
    blocks : bool
        Whether to avoid matrices over all parameters, of which there may be thousands.
    """
    if begin is None:
        u, prior = model.start(likelihood.start()), model.prior()
        variance, determined = likelihood.variance(model.outputs(B, u), 0.0), np.zeros(len(u))
    else:
        u, prior, variance, determined = begin.u, begin.prior, begin.variance, begin.determined
    curved = isinstance(model, Hidden)
    damping, calm, taken = float(curved and begin is None), 0, 0
    system, loss = system_of(model, B, likelihood, u, blocks)
    for taken in range(1, steps + 1):
        if stop():
            break
        system.set(variance, prior.precisions)
        found = _step(model, B, likelihood, system, loss, damping)
        if found is None:
            break
        u, gain, damping = found
        system, loss = system_of(model, B, likelihood, u, blocks)
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


def _step(
    model: Model,
    B: np.ndarray,
    likelihood: Likelihood,
    system: System,
    loss: float,
    damping: float,
) -> tuple[np.ndarray, float, float] | None:
    """A step that does not raise the objective (new parameters, gain, next damping), or None."""
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
