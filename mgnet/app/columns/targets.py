"""The target of a prediction: one number, several numbers, or one of several classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mgnet.app.files.columns import Column, listed, shown

__all__ = ["TASKS", "Targets", "coded"]

# Integers that may be classes: this number of distinct values, each this often on average.
FEW, REPEATED = 10, 5
MOST_CLASSES = 1000
TASKS = "regression", "classification"


@dataclass(frozen=True)
class Targets:
    """Names of the targets, and the classes if the target is a label.

    Parameters
    ----------
    names : tuple of str
        Names of the target columns.
    classes : tuple of str
        Classes of the only target; empty for numbers.

    Examples
    --------
    >>> Targets(("a", "b")).predicted, Targets(("kind",), ("x", "y")).predicted
    (('a_predicted', 'b_predicted'), ('kind_predicted', 'kind_p(x)', 'kind_p(y)'))
    """

    names: tuple[str, ...]
    classes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """All names."""
        return ", ".join(self.names)

    @property
    def outputs(self) -> tuple[str, ...]:
        """What the outputs of the network stand for: the classes, or the targets."""
        return self.classes or self.names

    @property
    def predicted(self) -> tuple[str, ...]:
        """Names of the columns that a prediction adds."""
        if not self.classes:
            return tuple(f"{name}_predicted" for name in self.names)
        (name,) = self.names
        return (f"{name}_predicted", *(f"{name}_p({shown(kind)})" for kind in self.classes))


def coded(columns: Sequence[Column], task: str = "") -> tuple[np.ndarray, tuple[str, ...]]:
    """Convert targets to numbers: numeric ones stay unchanged, and each class becomes its number.

    Parameters
    ----------
    columns : sequence of Column
        Columns of the file, without missing values.
    task : str
        "regression", "classification", or empty. If it is empty, text and booleans are classes, and
        numbers are not; integers with few distinct values might be either, so they require a task.

    Returns
    -------
    y : array of shape (rows,) or (rows, targets)
        Numbers.
    classes : tuple of str
        Names of the classes; empty for numbers.

    Raises
    ------
    ValueError
        If the target is not suitable; the message does not name the file.

    Examples
    --------
    >>> coded([Column("kind", "text", np.array(["b", "a", "b"] * 5, dtype=object))])
    (array([1, 0, 1, 1, 0, 1, 1, 0, 1, 1, 0, 1, 1, 0, 1]), ('a', 'b'))
    """
    wrong = _wrong(columns, task)
    if wrong:
        raise ValueError("; ".join(wrong))
    values = [column.values for column in columns]
    first = columns[0]
    if task == "regression" or (first.kind == "number" and task != "classification"):
        return (values[0] if len(values) == 1 else np.column_stack(values)), ()
    labels, places = np.unique(first.values, return_inverse=True)
    classes = tuple(_label(first.kind, label) for label in labels.tolist())
    if not 2 <= len(classes) <= MOST_CLASSES or 2 * len(classes) > len(places):
        number = {1: "the same value", 0: "no value"}.get(len(classes), f"{len(classes)} values")
        raise ValueError(
            f"target '{shown(first.name)}' has {number} in {len(places)} rows; expected 2 to "
            f"{MOST_CLASSES} classes that repeat, choose another target"
            + (" or --task regression" if first.kind == "number" else "")
        )
    return places, classes


def _wrong(columns: Sequence[Column], task: str) -> list[str]:
    """Messages about all targets that are not suitable."""
    names = {
        kind: listed([f"'{shown(c.name)}'" for c in columns if c.kind == kind])
        for kind in ("date", "text", "boolean")
    }
    wrong = []
    if names["date"]:
        wrong.append(f"target {names['date']} holds dates; write numbers instead")
    if names["text"] and (task == "regression" or len(columns) > 1):
        why = "--task regression takes" if len(columns) == 1 else "several targets must be"
        wrong.append(f"target {names['text']} holds text, and {why} numbers; choose another target")
    if task == "classification" and len(columns) > 1:
        wrong.append(f"{len(columns)} targets cannot be classes at once; fit each alone")
    column = columns[0]
    if not task and len(columns) == 1 and column.kind == "number" and _asks(column.values):
        few = len(np.unique(column.values))
        wrong.append(
            f"target '{shown(column.name)}' has {few} different whole numbers, which may be "
            "classes or amounts; give --task classification or --task regression"
        )
    return wrong


def _asks(values: np.ndarray) -> bool:
    """Whether numbers could also be classes."""
    if not np.array_equal(values, np.round(values)):
        return False
    few = len(np.unique(values))
    return 2 <= few <= FEW and len(values) >= REPEATED * few


def _label(kind: str, label: object) -> str:
    if kind == "boolean":
        return str(bool(label))
    return f"{label:.17g}" if kind == "number" else str(label)
