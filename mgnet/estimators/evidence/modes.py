"""Smooth and rough parts of a spline: a basis in which both penalties are diagonal.

Source: Demmler and Reinsch, "Oscillation matrices with spline smoothing", Numer. Math. 24 (1975).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from scipy.interpolate import BSpline
from scipy.linalg import eigh

from mgnet.knots.refinement import refinement_matrix
from mgnet.knots.spline import derivative_pieces, roughness_rows

__all__ = ["Modes", "refined_modes", "spline_modes"]

DOMAIN = (-1.0, 1.0)


@dataclass(frozen=True, eq=False)
class Modes:
    """Functions on [-1, 1] that span the splines of mean zero, from smooth to rough.

    The mean products of their slopes form the identity matrix, and those of their second
    derivatives a diagonal matrix.

    Attributes
    ----------
    intervals, degree : int
        Number of intervals and degree of the splines.
    coefficients : array of shape (splines, modes)
        Spline coefficients of each mode. The first mode is x itself.
    roughness : array of shape (modes,)
        Mean squared second derivative of each mode, whose mean squared slope is 1.

    Examples
    --------
    >>> modes = spline_modes(4, 3)
    >>> modes.roughness.round(1).tolist()[:3]
    [0.0, 2.5, 10.0]
    >>> modes.values(np.array([-1.0, 0.5]))[:, 0].round(12).tolist()
    [-1.0, 0.5]
    """

    intervals: int
    degree: int
    coefficients: np.ndarray
    roughness: np.ndarray

    @cached_property
    def _pieces(self) -> tuple[np.ndarray, np.ndarray]:
        """Polynomials of the position in each interval, and slopes: (intervals, powers, modes)."""
        number = np.arange(self.intervals)[:, None] + np.arange(self.degree + 1)
        pieces = []
        for order in (0, 1):
            powers, _ = derivative_pieces(self.intervals, self.degree, DOMAIN, order)
            pieces.append(np.einsum("jp,ijm->ipm", powers, self.coefficients[number]))
        return pieces[0], pieces[1]

    def values(self, x: np.ndarray) -> np.ndarray:
        """Values at x within [-1, 1], of shape x.shape + (modes,)."""
        interval, powers = self._places(x)
        return np.einsum("...p,...pm->...m", powers, self._pieces[0][interval])

    def values_and_slopes(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values and slopes, both of shape x.shape + (modes,)."""
        interval, powers = self._places(x)
        values, slopes = (
            np.einsum("...p,...pm->...m", powers, pieces[interval]) for pieces in self._pieces
        )
        return values, slopes

    def _places(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The interval of each x, and the powers of its position in it, of shape (..., powers)."""
        places = (x + 1.0) * (0.5 * self.intervals)
        interval = np.clip(places.astype(int), 0, self.intervals - 1)
        powers = np.ones((*x.shape, self.degree + 1))
        powers[..., 1:] = (places - interval)[..., None]
        return interval, np.cumprod(powers, -1, out=powers)


@cache
def spline_modes(intervals: int, degree: int) -> Modes:
    """Compute the modes of a space of splines.

    Parameters
    ----------
    intervals : int
        Number of intervals.
    degree : int
        Degree, 1 to 5. With degree 1, jumps of the slope replace the second derivative.

    Examples
    --------
    >>> spline_modes(4, 3).coefficients.shape
    (7, 6)
    """
    count = intervals + degree
    h = 2.0 / intervals
    knots = -1.0 + h * np.arange(-degree, intervals + degree + 1)
    nodes, weights = np.polynomial.legendre.leggauss(degree + 1)
    places = (-1.0 + h * (np.arange(intervals)[:, None] + 0.5 * (nodes + 1.0))).ravel()
    mean = np.tile(0.5 * weights / intervals, intervals)
    spline = BSpline(knots, np.eye(count), degree)
    slopes = spline.derivative()(places)
    steep = slopes.T @ (mean[:, None] * slopes)
    rough = _jumps(intervals) if degree == 1 else roughness_rows(intervals, degree).toarray()
    means: np.ndarray = mean @ spline(places)
    whole = np.linalg.qr(np.column_stack([means, np.eye(count)]))[0][:, 1:count]
    sizes, vectors = eigh(whole.T @ (0.5 * rough.T @ rough) @ whole, whole.T @ steep @ whole)
    modes = whole @ vectors
    modes[:, 0] *= np.sign(modes[-1, 0])
    sizes[0] = 0.0  # except for rounding
    return Modes(intervals, degree, modes, np.maximum(sizes, 0.0))


@cache
def refined_modes(coarse: Modes, fine: Modes) -> np.ndarray:
    """The matrix that maps weights of coarse modes to weights of modes on twice as many intervals.

    Parameters
    ----------
    coarse, fine : Modes
        Modes on n and on 2 n intervals.

    Examples
    --------
    >>> coarse, fine = spline_modes(2, 3), spline_modes(4, 3)
    >>> x = np.linspace(-1.0, 1.0, 9)
    >>> there = fine.values(x) @ refined_modes(coarse, fine)
    >>> bool(abs(there - coarse.values(x)).max() < 1e-12)
    True
    """
    P = refinement_matrix(coarse.intervals, coarse.degree)
    return np.linalg.lstsq(fine.coefficients, P @ coarse.coefficients, rcond=None)[0]


def _jumps(intervals: int) -> np.ndarray:
    h = 2.0 / intervals
    return np.diff(np.eye(intervals + 1), 2, axis=0) / h**1.5
