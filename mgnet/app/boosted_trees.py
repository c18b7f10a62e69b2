"""Gradient boosting, tuned within a time limit.

Its settings are chosen on part of the training rows; the model is then fitted to all of them. The
held-out rows are used only to measure the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

from mgnet.app.data import Data, Trained

__all__ = ["boosting"]

SEARCH = 0.75  # fraction of the seconds for choosing the settings
SPLIT_SEED = 12345
MANY_ROWS = 50_000
CHUNK = 25  # boosting iterations before the first test on the validation rows


def _split(data: Data) -> tuple[np.ndarray, np.ndarray]:
    """Divide the training rows: four fifths to fit trees, one fifth to choose their settings."""
    rows = len(data.y)
    order = np.random.default_rng(SPLIT_SEED).permutation(rows)
    part = max(rows // 5, 1)
    fitted, kept = order[part:], order[:part]
    if data.targets.classes:  # a class that is in one part only is in the part for fitting
        lonely = ~np.isin(data.y[kept], data.y[fitted])
        fitted, kept = np.concatenate([fitted, kept[lonely]]), kept[~lonely]
    return fitted, kept


@dataclass
class _Trial:
    """Boosted trees that are grown in batches, so that a time limit can stop them."""

    rate: float
    leaves: int
    rows: int
    seed: int
    classes: bool
    iterations: int = 0
    error: float = np.inf

    def __post_init__(self) -> None:
        kind = HistGradientBoostingClassifier if self.classes else HistGradientBoostingRegressor
        self.model = kind(
            learning_rate=self.rate,
            max_leaf_nodes=self.leaves,
            min_samples_leaf=self.rows,
            max_iter=1,
            early_stopping=False,  # pyright: ignore[reportArgumentType]
            warm_start=True,
            random_state=self.seed,
        )

    def __call__(self, x: np.ndarray) -> np.ndarray:
        if isinstance(self.model, HistGradientBoostingClassifier):
            return self.model.predict_proba(x)
        return self.model.predict(x)

    @property
    def numbers(self) -> int:
        """Number of leaf values and split thresholds."""
        trees = (tree for stage in self.model._predictors for tree in stage)
        return sum(len(tree.nodes) for tree in trees)

    def grow(self, data: Data, rows: np.ndarray | slice, iterations: int) -> None:
        """Add trees until there have been this many iterations."""
        self.model.set_params(max_iter=iterations)
        weights = None if data.weights is None else data.weights[rows]
        self.model.fit(data.x[rows], data.y[rows], weights)
        self.iterations = iterations


def _trials(seed: int, classes: bool) -> Iterator[_Trial]:
    """Yield settings: first those that usually do best on smooth data, then random ones."""
    for rate, leaves, rows in ((0.1, 31, 10), (0.1, 15, 5), (0.05, 63, 5), (0.2, 15, 3)):
        yield _Trial(rate, leaves, rows, seed, classes)
    rng = np.random.default_rng(seed)
    while True:
        rate = round(float(10.0 ** rng.uniform(-1.7, -0.5)), 3)
        leaves, rows = int(2.0 ** rng.uniform(2.5, 7.0)), int(rng.integers(2, 25))
        yield _Trial(rate, leaves, rows, seed, classes)


def _stop_early(trial: _Trial, data: Data, stop: float) -> None:
    """Add a quarter more trees at a time until the validation error stagnates or time runs out."""
    fitted, kept = _split(data)
    weights = None if data.weights is None else data.weights[kept]
    iterations, best, worse = CHUNK, 0, 0
    while worse < 2:
        begun = perf_counter()
        trial.grow(data, fitted, iterations)
        error = data.loss(trial(data.x[kept]), data.y[kept], weights)
        worse = 0 if error < 0.999 * trial.error else worse + 1
        if error < trial.error:
            trial.error, best = error, iterations
        if perf_counter() + 1.3 * (perf_counter() - begun) > stop:
            break
        iterations = int(1.25 * iterations) + 1
    trial.iterations = best or iterations


def _boost(
    data: Data, begun: float, seconds: float, seed: int, record: Callable[[_Trial], None]
) -> tuple[_Trial, int]:
    """Return the best trial, fitted to all training rows, and the number of settings tried."""
    classes = bool(data.targets.classes)
    trials, tried = _trials(seed, classes), 1
    best = next(trials)
    _stop_early(best, data, begun + SEARCH * seconds / 3.0)
    record(best)
    while perf_counter() - begun < 0.9 * SEARCH * seconds:
        trial = next(trials)
        left = begun + SEARCH * seconds - perf_counter()
        _stop_early(trial, data, perf_counter() + min(left, SEARCH * seconds / 4.0))
        tried += 1
        if trial.error < best.error:
            best = trial
            record(best)
    final = _Trial(best.rate, best.leaves, best.rows, seed, classes)
    pieces = np.unique(np.geomspace(1, best.iterations, 12).astype(int))
    for piece in pieces:
        final.grow(data, slice(None), int(piece))
        if perf_counter() - begun > seconds:
            break
    record(final)
    return final, tried


def boosting(data: Data, seconds: float, seed: int) -> Trained:
    """Fit gradient-boosted trees: scikit-learn's HistGradientBoosting estimators.

    The learning rate and the numbers of leaves, rows per leaf and iterations are chosen on a fifth
    of the training rows, which also determines when each trial stops; the best trial is then fitted
    to all training rows.

    Parameters
    ----------
    data : Data
        Data with one target.
    seconds : float
        Time limit.
    seed : int
        Seed of the random choices.

    Returns
    -------
    Trained
        Trained trees; their parameters are the values of all leaves and the thresholds of all
        splits.

    Examples
    --------
    >>> from mgnet.app.columns.targets import Targets
    >>> x = np.linspace(0.0, 1.0, 200)[:, None]
    >>> data = Data(("x",), Targets(("y",)), x, x[:, 0], x, x[:, 0])
    >>> boosting(data, seconds=0.5, seed=0).train_loss < 0.1
    True
    """
    begun = perf_counter()
    history: list[tuple[float, float, float, int]] = []

    def record(trial: _Trial) -> None:
        loss = data.loss(trial(data.x), data.y, data.weights)
        history.append((perf_counter() - begun, np.nan, loss, 0))

    # On a short table threads mostly wait for each other, on a busy machine extremely long.
    with threadpool_limits(limits=1 if len(data.y) < MANY_ROWS else None):
        final, tried = _boost(data, begun, seconds, seed, record)
    note = (
        f"{tried} settings tried; {final.iterations} trees, learning rate {final.rate:g}, "
        f"at most {final.leaves} leaves of at least {final.rows} rows"
    )
    name, losses, seconds = "gradient boosting", data.losses(final), history[-1][0]
    return Trained(name, final, final.numbers, seconds, np.nan, *losses, tuple(history), note)
