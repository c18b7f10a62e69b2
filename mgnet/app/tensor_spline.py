"""Tensor-product cubic splines by penalized least squares, for tables of up to three inputs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import numpy as np
from scipy.interpolate import BSpline
from scipy.linalg import cho_solve_banded, cholesky_banded
from scipy.sparse import csr_array, eye_array, kron, tril

__all__ = ["Axis", "Fit", "Splines", "equal_error_grid", "jumps", "least_squares"]

ORDER = 4  # order of the splines: cubic


@dataclass(frozen=True)
class Axis:
    """Knots of one input: a change of variable to [0, 1], and a map that spaces the knots in it.

    `scale` is "linear" or "log"; `grid` contains the points in [0, 1] that divide the interval into
    pieces of equal weight, and the knots interpolate them.
    """

    low: float
    high: float
    scale: str
    grid: tuple[float, ...]
    intervals: int
    places: str = "uniform"

    def coordinate(self, x: np.ndarray) -> np.ndarray:
        """Map the input to [0, 1], and extend the map linearly beyond the range of the input."""
        low, high = self.low, self.high
        if self.scale == "linear":
            return (x - low) / (high - low)
        width = np.log(high / low)
        inside = np.log(np.clip(x, low, high) / low) / width
        return inside + np.minimum(x - low, 0.0) / (low * width) + _above(x, high) / (high * width)

    def knots(self) -> np.ndarray:
        """Return the knot vector in [0, 1], with its ends repeated."""
        weights = np.linspace(0.0, 1.0, len(self.grid))
        inner = np.interp(np.linspace(0.0, 1.0, self.intervals + 1), weights, self.grid)
        return np.concatenate([np.zeros(ORDER - 1), inner, np.ones(ORDER - 1)])


def _above(x: np.ndarray, high: float) -> np.ndarray:
    return np.maximum(x - high, 0.0)


def _basis(t: np.ndarray, knots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first index and the four values of the splines at t, linear beyond [0, 1]."""
    clipped = np.clip(t, 0.0, 1.0)
    design = BSpline.design_matrix(clipped, knots, ORDER - 1)
    first = design.indices.reshape(-1, ORDER)[:, 0]
    values: np.ndarray = np.array(design.data, dtype=float).reshape(-1, ORDER)
    beyond = t - clipped
    out = np.flatnonzero(beyond)
    if len(out):
        slopes = BSpline(knots, np.eye(len(knots) - ORDER), ORDER - 1).derivative()(clipped[out])
        picked = first[out, None] + np.arange(ORDER)
        values[out] += beyond[out, None] * np.take_along_axis(slopes, picked, axis=1)
    return first, values


def jumps(knots: np.ndarray) -> np.ndarray:
    """Return the matrix from coefficients to the jumps of the third derivative, times h^3.

    The jumps vanish exactly for a single cubic (Dierckx, Curve and Surface Fitting with Splines,
    1993); the factor makes the penalty independent of the spacing of the knots.
    """
    matrix, t = np.eye(len(knots) - ORDER), knots
    for degree in range(ORDER - 1, 0, -1):
        matrix = (
            degree * np.diff(matrix, axis=0) / (t[degree + 1 : -1] - t[1 : -degree - 1])[:, None]
        )
        t = t[1:-1]
    steps = np.diff(np.unique(knots))
    return np.diff(matrix, axis=0) * (0.5 * (steps[1:] + steps[:-1]))[:, None] ** (ORDER - 1)


# Splines: all axes


@dataclass(frozen=True)
class Splines:
    """The settings of a spline fit: the axes, their penalties (as log10), and the scale of y."""

    axes: tuple[Axis, ...]
    penalties: tuple[float, ...]
    scale: str = "linear"

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of splines per axis."""
        return tuple(axis.intervals + ORDER - 1 for axis in self.axes)

    @property
    def storage(self) -> float:
        """Number of floats in the banded matrix."""
        return float(np.prod(self.shape)) * (_bandwidth(self.shape) + 1)

    def design(self, x: np.ndarray) -> csr_array:
        """Return the sparse matrix of the products of the splines, with one row per row of x."""
        rows = len(x)
        columns, values = np.zeros((rows, 1), dtype=np.int64), np.ones((rows, 1))
        for axis, number, column in zip(self.axes, self.shape, x.T, strict=True):
            first, factors = _basis(axis.coordinate(column), axis.knots())
            index = first[:, None] + np.arange(ORDER)
            columns = (columns[:, :, None] * number + index[:, None, :]).reshape(rows, -1)
            values = (values[:, :, None] * factors[:, None, :]).reshape(rows, -1)
        starts = np.arange(rows + 1) * columns.shape[1]
        size = int(np.prod(self.shape))
        return csr_array((values.ravel(), columns.ravel(), starts), shape=(rows, size))

    def penalty(self) -> csr_array:
        """Return the sum over the axes of the squared jumps, each with its weight."""
        total = csr_array((int(np.prod(self.shape)),) * 2)
        for number, (axis, power) in enumerate(zip(self.axes, self.penalties, strict=True)):
            rows = csr_array(jumps(axis.knots()))
            factors = [eye_array(n, format="csr") for n in self.shape]
            factors[number] = csr_array(rows.T @ rows)
            total = total + 10.0**power * reduce(lambda a, b: kron(a, b, format="csr"), factors)
        return csr_array(total)


@dataclass(frozen=True)
class Fit:
    """A fitted spline."""

    choice: Splines
    coefficients: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        if not len(x):
            return np.zeros(0)
        values = self.choice.design(np.asarray(x, dtype=float)) @ self.coefficients
        return values if self.choice.scale == "linear" else np.exp(np.minimum(values, 700.0))


def _bandwidth(shape: tuple[int, ...]) -> int:
    """Return the bandwidth of the normal equations."""
    strides = np.cumprod([1, *shape[:0:-1]])
    return int(max((ORDER - 1) * strides.sum(), ORDER * strides[-1]))


def least_squares(choice: Splines, x: np.ndarray, y: np.ndarray) -> Fit:
    """Minimize the squared error plus penalty.

    If the logarithm of y is fitted, the rows are weighted by y, so that to first order the error of
    y itself is minimized.
    """
    design, target = choice.design(x), y
    if choice.scale == "log":
        design, target = csr_array(design * y[:, None]), y * np.log(y)
    size = int(np.prod(choice.shape))
    scale = float(np.sum(design.data**2)) / size  # a mean diagonal entry
    matrix = csr_array(design.T @ design) + scale * choice.penalty()
    bands = np.zeros((_bandwidth(choice.shape) + 1, size))
    lower = tril(matrix, format="coo")
    np.add.at(bands, (lower.row - lower.col, lower.col), lower.data)
    bands[0] += 1e-13 * scale
    factor = cholesky_banded(bands, overwrite_ab=True, lower=True, check_finite=False)
    right = design.T @ target
    coefficients = np.zeros(len(right))
    for _ in range(3):  # refinement recovers the digits lost by the squared condition number
        coefficients += cho_solve_banded((factor, True), right - matrix @ coefficients)
    return Fit(choice, coefficients)


def equal_error_grid(fit: Fit, number: int) -> tuple[float, ...]:
    """Return a grid of one axis whose intervals have equal shares of |fourth derivative|^(1/4).

    This is de Boor's rule for knots (A Practical Guide to Splines, chapter XII), applied to the
    largest part of the fit across the other axes.
    """
    knots = fit.choice.axes[number].knots()
    places = np.unique(knots)
    values = np.moveaxis(fit.coefficients.reshape(fit.choice.shape), number, 0)
    steps = np.diff(places)
    mid = 0.5 * (steps[1:] + steps[:-1])
    fourth = jumps(knots) @ values.reshape(len(values), -1) / mid[:, None] ** ORDER
    rate = np.mean(fourth**2, axis=1) ** (0.5 / ORDER)
    rate = np.convolve(np.pad(rate, 2, mode="edge"), [0.1, 0.2, 0.4, 0.2, 0.1], mode="valid")
    fine = np.linspace(0.0, 1.0, 401)
    weight = np.interp(fine, places[1:-1], rate)
    weight = weight + 0.1 * weight.mean() + 1e-300
    total = np.concatenate([[0.0], np.cumsum(0.5 * (weight[1:] + weight[:-1]))])
    grid = np.interp(np.linspace(0.0, 1.0, 101), total / total[-1], fine)
    return (0.0, *map(float, grid[1:-1]), 1.0)
