"""Folds of rows, and the mixture of models that best predicts rows not used to train them.

Sources: Wolpert, "Stacked generalization" (1992); Breiman, "Stacked regressions" (1996).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import softmax

from mgnet.estimators.evidence.likelihood import Likelihood, Normal

__all__ = ["Folds", "folds_of", "mixture"]

DOUBT = 3.0  # pseudo-rows in favor of equal weights
SURE = 0.5  # prior standard deviation of the logarithm of a scale
MOST_SCALE = 4.0


@dataclass(frozen=True, eq=False)
class Folds:
    """The rows that each member leaves out, with their whole weight or an equal part for each fold.

    Attributes
    ----------
    count : int
        Number of folds.
    rows, members : array of int of shape (entries,)
        For each entry, the row that is left out and the member that leaves it out.
    weights : array of shape (entries,)
        Weight that is left out, for each entry.

    Examples
    --------
    >>> folds = folds_of(np.zeros(3, dtype=int), np.array([1.0, 1.0, 4.0]), 2, seed=0)
    >>> folds.rows.tolist(), folds.weights.tolist()
    ([0, 1, 2, 2], [1.0, 1.0, 2.0, 2.0])
    """

    count: int
    rows: np.ndarray
    members: np.ndarray
    weights: np.ndarray

    def kept(self, member: int, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows on which a member is trained, and the remaining part of their weights."""
        own = self.members == member
        left = weights.copy()
        left[self.rows[own]] -= self.weights[own]
        rows = np.flatnonzero(left > 1e-9 * weights)
        return rows, left[rows]

    def only(self, members: int) -> Folds:
        """The folds of only the first members."""
        own = self.members < members
        return Folds(members, self.rows[own], self.members[own], self.weights[own])


def folds_of(
    strata: np.ndarray,
    weights: np.ndarray,
    folds: int,
    seed: int,
    times: np.ndarray | None = None,
) -> Folds:
    """Draw folds at random, with about the same number of rows of each stratum in all folds.

    A row that counts for as many rows of a table as there are folds, or more, is in every fold with
    an equal part of its weight; so is a row with more than half of the total weight.

    Parameters
    ----------
    strata : array of shape (rows,)
        Stratum of each row.
    weights : array of shape (rows,)
        Weights of the rows.
    folds : int
        Number of folds.
    seed : int
        Seed of the random order.
    times : array of shape (rows,), optional
        Number of rows of a table that each row represents; its weight by default.
    """
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(strata))
    order = order[np.argsort(strata[order], kind="stable")]
    fold = np.empty(len(strata), dtype=int)
    fold[order] = np.arange(len(strata)) % folds
    shared = (weights if times is None else times) >= folds
    shared |= 2.0 * weights > weights.sum()
    parts = np.where(shared, folds, 1)
    rows = np.repeat(np.arange(len(strata)), parts)
    place = np.arange(len(rows)) - np.repeat(np.cumsum(parts) - parts, parts)
    members = np.where(shared[rows], place, fold[rows])
    return Folds(folds, rows, members, weights[rows] / parts[rows])


def mixture(likelihood: Likelihood, outputs: np.ndarray) -> np.ndarray:
    """The weights with which a sum of models fits best; none is negative, and their sum is 1.

    A few pseudo-rows in favor of equal weights keep chance from determining the weights of small
    tables. For classes, all weights are multiplied by a scale, since priors make members too
    cautious if classes are far apart (Guo et al., "On calibration of modern neural networks",
    2017).

    Parameters
    ----------
    likelihood : Likelihood
        Likelihood of rows that were left out.
    outputs : array of shape (models, rows, outputs)
        Outputs of the models for each row; each model was trained without that row.

    Examples
    --------
    >>> from mgnet.estimators.evidence.likelihood import Normal
    >>> y = np.sin(np.arange(50.0))
    >>> good, bad = y + 0.01, np.zeros(50)
    >>> shares = mixture(Normal(y, np.ones(50)), np.stack([good, bad])[:, :, None])
    >>> bool(shares[0] > 0.95), float(shares.sum().round(12))
    (True, 1.0)
    """
    models = len(outputs)
    best = min(likelihood.variance(f, 0.0) for f in outputs)
    most = 0.0 if isinstance(likelihood, Normal) else float(np.log(MOST_SCALE))

    def objective(v: np.ndarray) -> float:
        shares, log = softmax(v[:-1]), v[-1]
        loss = likelihood.loss(np.exp(log) * np.tensordot(shares, outputs, 1)) / best
        doubt = DOUBT / models * float(np.log(shares + 1e-300).sum())
        return loss - doubt + 0.5 * (log / SURE) ** 2

    bounds = [(-30.0, 30.0)] * models + [(-most, most)]
    found = minimize(objective, np.zeros(models + 1), method="L-BFGS-B", bounds=bounds)
    return np.exp(found.x[-1]) * softmax(found.x[:-1])
