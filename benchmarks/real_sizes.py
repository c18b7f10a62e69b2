"""What a fit takes with a million rows, and with more inputs than rows: parts of real_tables.py."""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
import saved
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import RidgeCV
from sklearn.metrics import root_mean_squared_error
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mgnet.estimators import KANRegressor

ALPHAS = np.logspace(-4.0, 4.0, 17)  # penalties that ridge regression chooses from
ESTIMATOR, BOOSTING = "KAN estimator", "HistGradientBoosting"
WAVELENGTHS = 500


def timed(part: str, name: str, estimator: Any, rows: list[np.ndarray]) -> saved.Row:
    x, y, x_test, y_test = rows
    wall, began = time.perf_counter(), time.process_time()
    estimator.fit(x, y)
    seconds, wall = time.process_time() - began, time.perf_counter() - wall
    error = float(root_mean_squared_error(y_test, estimator.predict(x_test)))
    return {"part": part, "method": name, "error": error, "seconds": seconds, "wall": wall}


def large(count: int) -> list[saved.Row]:
    """A million rows, once."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1.0, 1.0, (1_100_000, 5))
    y = np.sin(3 * x[:, 0] * x[:, 1]) + x[:, 2] ** 2 * x[:, 3] + np.exp(x[:, 4])
    rows = [x[:1_000_000], y[:1_000_000], x[1_000_000:], y[1_000_000:]]
    return [
        timed("large", ESTIMATOR, KANRegressor(random_state=0), rows),
        timed("large", BOOSTING, HistGradientBoostingRegressor(random_state=0), rows),
    ]


def wide(count: int) -> list[saved.Row]:
    """Spectra whose height is the concentration, with noise; medians over the seeds."""
    found: dict[str, list[saved.Row]] = {}
    for seed in range(count):
        rng = np.random.default_rng(seed)
        c = rng.uniform(0.0, 1.0, 120)
        noise = 0.01 * rng.random((120, WAVELENGTHS))
        x = c[:, None] * (np.arange(WAVELENGTHS) % 7) / 7 + noise
        rows = [x[:60], c[:60], x[60:], c[60:]]
        for name, estimator in (
            (ESTIMATOR, KANRegressor(random_state=seed)),
            ("RidgeCV", make_pipeline(StandardScaler(), RidgeCV(ALPHAS))),
        ):
            found.setdefault(name, []).append(timed("wide", name, estimator, rows))
    keys = ("error", "seconds", "wall")
    return [
        own[0] | {key: statistics.median(row[key] for row in own) for key in keys}
        for own in found.values()
    ]
