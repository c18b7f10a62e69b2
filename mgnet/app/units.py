"""Rescale columns of tiny and huge numbers, so that they can be drawn and squared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from mgnet.app.columns.targets import Targets
from mgnet.app.data import Data

__all__ = ["Units", "labelled"]

# The range of single precision, in which boosted trees sum, is slightly larger.
LEAST, MOST = 1e-30, 1e30
Predict = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Units:
    """Powers of ten by which columns are divided to give values of ordinary size; mostly 1.

    Attributes
    ----------
    inputs : array of shape (inputs,)
        Powers of ten for the inputs.
    targets : float or array of shape (targets,)
        Powers of ten for the targets.

    Examples
    --------
    >>> x, y = np.array([[1e300], [5e300]]), np.array([2.0, 3.0])
    >>> units = Units.of(data := Data(("x",), Targets(("y",)), x, y, x[:0], y[:0]))
    >>> units.data(data).names, units.data(data).x.ravel().tolist(), units.data(data).targets.names
    (('x / 1e+300',), [1.0, 5.0], ('y',))
    """

    inputs: np.ndarray
    targets: float | np.ndarray

    @classmethod
    def of(cls, data: Data) -> Units:
        """The units for the columns of a table."""
        x, y = np.concatenate([data.x, data.x_held]), np.concatenate([data.y, data.y_held])
        units = np.array([_unit(column) for column in x.T])
        if data.targets.classes:
            return cls(units, 1.0)
        return cls(units, _unit(y) if y.ndim == 1 else np.array([_unit(one) for one in y.T]))

    def data(self, data: Data) -> Data:
        """The table in these units, which are added to the names of its columns."""
        if np.all(self.targets == 1.0) and np.all(self.inputs == 1.0):
            return data
        targets, classes = np.ravel(self.targets).tolist(), data.targets.classes
        names = data.targets.names
        return replace(
            data,
            names=tuple(map(_named, data.names, self.inputs.tolist())),
            targets=Targets(tuple(map(_named, names, targets)), classes),
            x=data.x / self.inputs,
            y=data.y if classes else data.y / self.targets,
            x_held=data.x_held / self.inputs,
            y_held=data.y_held if classes else data.y_held / self.targets,
        )

    def of_units(self, predict: Predict) -> Predict:
        """Convert a prediction function in the units of the table to these units."""
        return lambda x: predict(x * self.inputs) / self.targets

    def of_table(self, predict: Predict) -> Predict:
        """Convert a prediction function in these units to the units of the table."""
        return lambda x: predict(x / self.inputs) * self.targets


def _unit(column: np.ndarray) -> float:
    size = float(np.abs(column).max())
    if size == 0.0 or LEAST < size < MOST:
        return 1.0
    return 10.0 ** max(np.floor(np.log10(size)), -307.0)


def _named(name: str, unit: float) -> str:
    return name if unit == 1.0 else f"{name} / {unit:.0e}"


def labelled(data: Data) -> Data:
    """The table with the units from its file added to the names of its columns, for pictures.

    Examples
    --------
    >>> x = np.zeros((2, 1))
    >>> data = Data(("T",), Targets(("rho",)), x, x[:, 0], x, x[:, 0], units={"T": "K"})
    >>> labelled(data).names, labelled(data).targets.names
    (('T [K]',), ('rho',))
    """
    if not data.units:
        return data

    def told(name: str) -> str:
        own = next((n for n in data.units if name == n or name.startswith(f"{n} / 1e")), None)
        return name if own is None else f"{name} [{data.units[own]}]"

    targets = replace(data.targets, names=tuple(map(told, data.targets.names)))
    return replace(data, names=tuple(map(told, data.names)), targets=targets)
