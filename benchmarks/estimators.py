"""`KANRegressor` and `KANClassifier` beside scikit-learn's estimators, with default settings.

    python benchmarks/estimators.py [seeds, 5] [--save [FOLDER]]

Nothing is tuned: every estimator has its defaults, but for the perceptron's number of iterations
and the scaling of inputs (and of the target) for it and the support vectors, which mgnet does
itself. The defaults of the KANs were chosen on other tables, named in real_data.py. A seed draws
the data (or its split, a quarter for the test) and the initial weights. Seconds are those of the
processor, on one thread.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import statistics
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import saved
import torch
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_breast_cancer, load_digits, make_friedman1
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR

from mgnet.estimators import KANClassifier, KANRegressor

Split = tuple[Any, Any, Any, Any]
Estimators = dict[str, Callable[[int], Any]]


def friedman(rows: int, noise: float) -> Callable[[int], Split]:
    """Rows of Friedman's function of 5 of 10 inputs; the 2000 test rows have no noise."""

    def split(seed: int) -> Split:
        x, y = make_friedman1(rows, noise=noise, random_state=seed)
        x_test, y_test = make_friedman1(2000, random_state=seed + 1000)
        return x, x_test, y, y_test

    return split


def loaded(load: Callable[..., Any]) -> Callable[[int], Split]:
    """A data set of scikit-learn, a quarter of it for the test."""

    def split(seed: int) -> Split:
        x, y = load(return_X_y=True)
        x, x_test, y, y_test = train_test_split(x, y, random_state=seed, stratify=y)
        return x, x_test, y, y_test

    return split


def scaled(estimator: Any) -> Any:
    return make_pipeline(StandardScaler(), estimator)


def target_scaled(estimator: Any) -> Any:
    return TransformedTargetRegressor(scaled(estimator), transformer=StandardScaler())


REGRESSORS: Estimators = {
    "KANRegressor": lambda s: KANRegressor(random_state=s),
    "HistGradientBoosting": lambda s: HistGradientBoostingRegressor(random_state=s),
    "MLPRegressor": lambda s: target_scaled(MLPRegressor(max_iter=1000, random_state=s)),
    "SVR": lambda s: target_scaled(SVR()),
}
CLASSIFIERS: Estimators = {
    "KANClassifier": lambda s: KANClassifier(random_state=s),
    "HistGradientBoosting": lambda s: HistGradientBoostingClassifier(random_state=s),
    "MLPClassifier": lambda s: scaled(MLPClassifier(max_iter=1000, random_state=s)),
    "SVC": lambda s: scaled(SVC(random_state=s)),
}
CASES = [
    ("friedman1, 500 rows, noise 1", "R2", friedman(500, 1.0), REGRESSORS),
    ("friedman1, 500 rows, no noise", "R2", friedman(500, 0.0), REGRESSORS),
    ("breast cancer", "accuracy", loaded(load_breast_cancer), CLASSIFIERS),
    ("digits", "accuracy", loaded(load_digits), CLASSIFIERS),
]


def measured(seeds: int) -> list[saved.Row]:
    rows = []
    for case, measure, split, estimators in CASES:
        for name, make in estimators.items():
            scores, seconds = [], []
            for seed in range(seeds):
                x, x_test, y, y_test = split(seed)
                began = time.process_time()
                estimator = make(seed).fit(x, y)
                seconds.append(time.process_time() - began)
                scores.append(float(estimator.score(x_test, y_test)))
            rows.append(
                {
                    "case": case,
                    "estimator": name,
                    "measure": measure,
                    "median": statistics.median(scores),
                    "least": min(scores),
                    "largest": max(scores),
                    "seconds": statistics.median(seconds),
                    "seeds": seeds,
                }
            )
            print(".", end="", file=sys.stderr, flush=True)
    return rows


def judged(rows: list[saved.Row]) -> list[saved.Row]:
    """The target of every case: no estimator that comes with scikit-learn has a better median."""
    targets = []
    for case, measure, *_ in CASES:
        own, *others = [row["median"] for row in rows if row["case"] == case]
        name = f"{case}: {measure} not below the best other"
        goal = f"at least {max(others):.4f}"
        targets.append(saved.target(name, goal, f"{own:.4f}", own >= max(others)))
    return targets


def table(rows: list[saved.Row], targets: list[saved.Row]) -> str:
    lines = [saved.heading()]
    for case, measure, *_ in CASES:
        lines += ["", f"{case:<32} {measure + ', median':>16} {'least':>7} {'largest':>8} {'s':>6}"]
        for row in (row for row in rows if row["case"] == case):
            lines.append(
                f"  {row['estimator']:<30} {row['median']:>16.4f} {row['least']:>7.4f} "
                f"{row['largest']:>8.4f} {row['seconds']:>6.2f}"
            )
    return "\n".join([*lines, "", *saved.verdicts(targets)])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("seeds", type=int, nargs="?", default=5)
    saved.add_option(parser)
    told = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", ConvergenceWarning)
    rows = measured(told.seeds)
    targets = judged(rows)
    text = table(rows, targets)
    print(f"\n{text}")
    if told.save:
        saved.save(told.save, "estimators", f"{told.seeds} seeds", rows, targets, text)


if __name__ == "__main__":
    main()
