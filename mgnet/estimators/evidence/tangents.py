"""Derivatives of a model's outputs as products, without a matrix of all derivatives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mgnet.estimators.evidence.model import Additive, Hidden, Model

__all__ = ["Block", "Tangent", "tangent"]


@dataclass(frozen=True, eq=False)
class Block:
    """A group of parameters that affects the outputs through one number for each row.

    Attributes
    ----------
    places : array of int of shape (size,)
        Numbers of the parameters.
    columns : array of shape (rows, size)
        Derivatives of this number with respect to the parameters.
    slopes : array of shape (rows, outputs) or (outputs,)
        Derivatives of the outputs with respect to this number.
    """

    places: np.ndarray
    columns: np.ndarray
    slopes: np.ndarray


@dataclass(frozen=True, eq=False)
class Tangent:
    """Products with the derivatives of shape (outputs, rows, parameters), and their blocks.

    Attributes
    ----------
    forward : callable
        Map from (parameters,) to (rows, outputs).
    backward : callable
        Map from (rows, outputs) to (parameters,).
    blocks : list of Block
        One block for each hidden unit and each output; together they contain all parameters.
    """

    forward: Callable[[np.ndarray], np.ndarray]
    backward: Callable[[np.ndarray], np.ndarray]
    blocks: list[Block]


def tangent(model: Model, B: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, Tangent]:
    """Compute the outputs, of shape (rows, outputs), and their derivatives.

    Parameters
    ----------
    model : Model
        Model to differentiate.
    B : array of shape (rows, columns)
        Features of the rows.
    u : array of shape (parameters,)
        Parameters.

    Examples
    --------
    >>> from mgnet.estimators.evidence.features import features_of
    >>> from mgnet.estimators.evidence.modes import spline_modes
    >>> x = np.linspace(-1.0, 1.0, 5)[:, None]
    >>> line = Additive(features_of(x, spline_modes(2, 3), most=1), 1)
    >>> u = np.array([2.0, 1.0])
    >>> f, own = tangent(line, line.features.matrix(x), u)
    >>> bool(np.allclose(own.forward(u), f))  # it is linear
    True
    """
    if isinstance(model, Additive):
        return _of_sum(model, B, u)
    return _of_network(model, B, u)


def _of_sum(model: Additive, B: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, Tangent]:
    columns, outputs = np.column_stack([B, np.ones(len(B))]), model.count
    places = np.arange(len(u)).reshape(-1, outputs)
    blocks = [Block(places[:, o], columns, np.eye(outputs)[o]) for o in range(outputs)]
    own = Tangent(
        lambda v: columns @ v.reshape(-1, outputs), lambda r: (columns.T @ r).reshape(-1), blocks
    )
    return own.forward(u), own


def _of_network(model: Hidden, B: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, Tangent]:
    first, shifts, second, linear, constants = model.split(u)
    a = np.tanh(B @ first.T + shifts)
    values, slopes = model.modes.values_and_slopes(a)
    steep = np.einsum("nhm,hmo->nho", slopes, second) * (1.0 - a * a)[:, :, None]
    lines, rows, outputs = B[:, model.features.linear], len(B), model.count
    behind = np.column_stack([values.reshape(rows, -1), lines, np.ones(rows)])
    f = behind @ np.concatenate([second.reshape(-1, outputs), linear, constants[None]])

    def forward(v: np.ndarray) -> np.ndarray:
        first, shifts, second, linear, constants = model.split(v)
        moved = np.einsum("nho,nh->no", steep, B @ first.T + shifts)
        return moved + behind @ np.concatenate(
            [second.reshape(-1, outputs), linear, constants[None]]
        )

    def backward(r: np.ndarray) -> np.ndarray:
        moved = np.einsum("nho,no->nh", steep, r)
        parts = (moved.T @ B, moved.sum(0), behind.T @ r)
        return np.concatenate([part.reshape(-1) for part in parts])

    places = model.split(np.arange(len(u)))
    columns, blocks = np.column_stack([B, np.ones(rows)]), []
    for unit in range(model.units):
        own = np.append(places[0][unit], places[1][unit])
        blocks.append(Block(own, columns, steep[:, unit]))
    for output in range(outputs):
        own = np.concatenate([part[..., output].reshape(-1) for part in places[2:]])
        blocks.append(Block(own, behind, np.eye(outputs)[output]))
    return f, Tangent(forward, backward, blocks)
