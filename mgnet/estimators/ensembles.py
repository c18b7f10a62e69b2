"""The default training of the estimators: an ensemble whose penalties follow from the data."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import numpy as np
import torch

from mgnet.estimators.blas_threads import one_blas_thread
from mgnet.estimators.evidence.assembly import joined
from mgnet.estimators.evidence.ensemble import Ensemble, train
from mgnet.estimators.evidence.features import different_values
from mgnet.estimators.evidence.likelihood import Classes, Likelihood, Normal
from mgnet.estimators.evidence.plan import Plan, plan_of
from mgnet.estimators.evidence.stacking import folds_of
from mgnet.estimators.evidence.watch import Watch
from mgnet.estimators.training_budget import TrainingBudget
from mgnet.knots import KAN
from mgnet.limits import is_count, shown, written

__all__ = ["Trained", "check_ensemble", "trained_ensembles"]

MOST_PARAMETERS = 1_000_000
MOST_NUMBERS = 100_000_000  # limit on the entries of a matrix
SAMPLE = 1000  # rows on which the differences of members are measured
# Parameters for the training of a single network, and the values that leave it to the ensemble.
# n_iter_no_change is another one, but scikit-learn's checks set it.
SINGLE: dict[str, Any] = {
    "roughness": "auto",
    "most_intervals": None,
    "optimizer": "auto",
    "cycle": "",
    "n_init": "auto",
    "tol": 1e-3,
    "early_stopping": True,
    "validation_fraction": 0.1,
}


@dataclass(frozen=True, eq=False)
class Trained:
    """Ensembles: one for each target, or one for all classes.

    Attributes
    ----------
    ensembles : list of Ensemble
        The ensembles.
    network : KAN
        One network for all ensembles, whose outputs are the means of their members.
    interrupted : bool
        Whether Ctrl-C ended the training.
    """

    ensembles: list[Ensemble]
    network: KAN
    interrupted: bool


def check_ensemble(estimator: Any) -> None:
    """Refuse parameters that belong to the training of a single network.

    Raises
    ------
    ValueError
        If a parameter is not valid for an ensemble.
    """
    kind, ensemble = type(estimator).__name__, estimator.ensemble
    if not is_count(ensemble):
        raise ValueError(f"{kind} got ensemble {shown(ensemble)}; it must be a positive integer")
    if ensemble == 1:
        return
    for name, default in SINGLE.items():
        value = getattr(estimator, name)
        if not (value is default or isinstance(value, str | Real) and value == default):
            raise ValueError(
                f"{kind} got {name} {shown(value)} and ensemble {ensemble}; {name} is for the "
                "training of a single network: give ensemble=1 too, or leave it out"
            )
    for name in ("intervals", "levels"):
        value = getattr(estimator, name)
        if not (isinstance(value, str) and value == "auto" or is_count(value)):
            raise ValueError(
                f'{kind} got {name} {shown(value)}; give a positive integer or "auto"; ensemble=1 '
                "takes one number for each layer"
            )
    degree = estimator.degree
    if not is_count(degree) or degree > 5:
        raise ValueError(f"{kind} got degree {shown(degree)}; it must be 1, 2, 3, 4 or 5")
    widths = estimator.hidden
    if not (isinstance(widths, str) and widths == "auto") and len(estimator._hidden()) != 1:
        raise ValueError(
            f"{kind} got hidden {shown(widths)} and ensemble {ensemble}; the networks of an "
            'ensemble have one hidden layer: give its width, "auto", or ensemble=1'
        )


def trained_ensembles(
    estimator: Any,
    x: np.ndarray,
    y: np.ndarray,
    counts: np.ndarray,
    times: np.ndarray,
    budget: TrainingBudget | None,
) -> Trained:
    """Train an ensemble for each target, or one for all classes.

    Parameters
    ----------
    estimator : KANEstimator
        Estimator with the parameters.
    x : array of shape (rows, inputs)
        Distinct rows, scaled to [-1, 1].
    y : array of shape (rows, targets) or int of shape (rows,)
        Standardized targets, or labels.
    counts, times : array of shape (rows,)
        Results of `counted_rows`.
    budget : TrainingBudget, optional
        Budget whose time limit and callbacks are used.
    """
    if budget is not None:
        _check_budget(estimator, budget)
        budget.claim()
    seed = estimator._seed()
    values = different_values(x)
    ensembles, watch = [], _watch(estimator, budget)
    likelihoods: list[Likelihood] = (
        [Classes(y, counts, int(y.max()) + 1)]
        if y.ndim == 1
        else [Normal(column, counts) for column in y.T]
    )
    auto = {
        name: None if isinstance(getattr(estimator, name), str) else getattr(estimator, name)
        for name in ("hidden", "intervals", "levels")
    }
    units = None if auto["hidden"] is None else estimator._hidden()[0]
    for number, likelihood in enumerate(likelihoods):
        plan = plan_of(
            values,
            len(x),
            likelihood.outputs,
            int(estimator.ensemble),
            int(estimator.degree),
            units,
            auto["intervals"],
            auto["levels"],
            int(estimator.max_iter),
        )
        _check_size(estimator, plan, len(x), values, likelihood.outputs * len(likelihoods))
        strata = y if y.ndim == 1 else np.zeros(len(x), dtype=int)
        folds = folds_of(strata, counts, plan.folds, seed, times)
        watch.begin_part(number, len(likelihoods))
        with one_blas_thread():
            found = train(x, likelihood, folds, plan, seed, watch)
        if y.ndim > 1:
            some = torch.from_numpy(x[:: max(1, len(x) // SAMPLE)])
            found = replace(found, spread=float(found.differences(some).mean()))
        ensembles.append(found)
    if budget is not None:
        budget.interrupted, budget.seconds = watch.interrupted, watch.seconds
    networks = [own.network() for own in ensembles]
    two = y.ndim == 1 and networks[0].widths[-1] == 1
    return Trained(ensembles, joined(networks, first_is_zero=two), watch.interrupted)


def _check_size(estimator: Any, plan: Plan, rows: int, values: np.ndarray, outputs: int) -> None:
    """Check that the networks of the coarsest level and their systems fit into memory."""
    parameters, numbers = plan.parameters(values, outputs), plan.numbers(values, rows, outputs)
    if parameters > MOST_PARAMETERS or numbers > MOST_NUMBERS:
        raise ValueError(
            f"{type(estimator).__name__} got hidden {shown(estimator.hidden)}, intervals "
            f"{shown(estimator.intervals)} and ensemble {shown(estimator.ensemble)} for "
            f"{len(values)} inputs and {outputs} outputs: the network has {written(parameters)} "
            f"parameters and its equations {written(numbers)} numbers, and more than "
            f"{MOST_PARAMETERS} or {MOST_NUMBERS} are not trained here; leave out columns, or "
            "give ensemble=1"
        )


def _check_budget(estimator: Any, budget: TrainingBudget) -> None:
    """Refuse limits that make no sense for an ensemble."""
    sweeps, evaluations, _ = budget.limits
    if min(sweeps, evaluations) < math.inf:
        raise ValueError(
            f"{type(estimator).__name__} got a budget of {sweeps} sweeps and {evaluations} "
            f"evaluations and ensemble {shown(estimator.ensemble)}; these limit the training of a "
            "single network: limit the seconds alone, or give ensemble=1"
        )


def _watch(estimator: Any, budget: TrainingBudget | None) -> Watch:
    progress: Callable[[float, float, float, int], None] | None = None
    limit = math.inf if estimator.seconds is None else float(estimator.seconds)
    if budget is not None:
        limit, progress = budget.limits[2], budget.progress

    def tell(seconds: float, level: int, member: int, members: int) -> None:
        number, parts = watch.part
        if progress is not None:
            done = (number + (level + member / members) / (level + 2.0)) / parts
            progress(seconds, max(done, seconds / limit), math.nan, level)
        elif estimator.verbose:
            of = f"target {number + 1} of {parts}, " if parts > 1 else ""
            told = f"{of}level {level}, member {member + 1} of {members}: {seconds:.1f} s\n"
            sys.stderr.write(told)
            sys.stderr.flush()

    watch = Watch(limit, tell)
    return watch
