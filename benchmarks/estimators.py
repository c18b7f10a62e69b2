"""`KANRegressor` and `KANClassifier` beside scikit-learn's own estimators, all as they come.

    python benchmarks/estimators.py [seeds, 5] [--save]

Nothing is tuned: every estimator has its defaults, but for the perceptron's number of iterations
and the scaling of inputs (and of the target) for it and the support vectors, which ours does
itself. The KAN's defaults were chosen on seeds 10 and 11 of these data. A seed draws the data (or
its split, a quarter for the test) and the initial weights. Seconds are those of the processor, on
one thread. --save writes results/estimators.txt and .json.
"""

from __future__ import annotations

import json
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import sklearn
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

import mgnet
from mgnet.estimators import KANClassifier, KANRegressor

RESULTS = Path(__file__).parent / "results"
Split = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
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
        return tuple(train_test_split(x, y, random_state=seed, stratify=y))

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


def measured(seeds: int) -> list[dict[str, Any]]:
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


def judged(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The target of every case: no estimator that comes with scikit-learn has a better median."""
    targets = []
    for case, measure, *_ in CASES:
        own, *others = [row["median"] for row in rows if row["case"] == case]
        targets.append(
            {
                "name": f"{case}: {measure} at least that of the best other",
                "target": max(others),
                "measured": own,
                "met": own >= max(others),
            }
        )
    return targets


def table(rows: list[dict[str, Any]], targets: list[dict[str, Any]], head: str) -> str:
    lines = [head]
    for case, measure, *_ in CASES:
        lines += ["", f"{case:<32} {measure + ', median':>16} {'least':>7} {'largest':>8} {'s':>6}"]
        for row in (row for row in rows if row["case"] == case):
            lines.append(
                f"  {row['estimator']:<30} {row['median']:>16.4f} {row['least']:>7.4f} "
                f"{row['largest']:>8.4f} {row['seconds']:>6.2f}"
            )
    lines.append("")
    for target in targets:
        verdict = "reached" if target["met"] else "not reached"
        lines.append(
            f"{target['name']}: {target['measured']:.4f} for {target['target']:.4f}, {verdict}"
        )
    return "\n".join(lines)


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", ConvergenceWarning)
    numbers = [argument for argument in sys.argv[1:] if argument.isdigit()]
    seeds = int(numbers[0]) if numbers else 5
    versions = {
        "mgnet": mgnet.__version__,
        "Python": platform.python_version(),
        "scikit-learn": sklearn.__version__,
        "PyTorch": torch.__version__,
        "NumPy": np.__version__,
        "SciPy": scipy.__version__,
    }
    machine = f"1 thread of {os.cpu_count()} cores, {platform.system()} {platform.machine()}"
    head = f"{seeds} seeds, {machine}, "
    head += ", ".join(f"{name} {version}" for name, version in versions.items())
    rows = measured(seeds)
    targets = judged(rows)
    text = table(rows, targets, head)
    print(f"\n{text}")
    if "--save" in sys.argv:
        told = {
            "command": f"python benchmarks/estimators.py {seeds} --save",
            "machine": machine,
            "versions": versions,
            "rows": rows,
            "targets": targets,
        }
        (RESULTS / "estimators.txt").write_text(text + "\n")
        (RESULTS / "estimators.json").write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
