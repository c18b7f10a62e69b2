"""Weights that are splines in depth: theta(t) = sum_j B_j(t) c_j."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from scipy.interpolate import BSpline

from mgnet.limits import check_memory, is_count, shown, written

__all__ = ["DepthSpline"]

DEGREE = 20  # for higher degrees, the recursion for splines loses too many digits


@dataclass(frozen=True)
class DepthSpline:
    """Weights as splines in depth, with a few control points each, for `ODENet(weights=...)`.

    The basis consists of uniform B-splines on [0, T], as in `mgnet.knots`; layer n of N uses the
    value at its left end, `t = n T / N`. Source: Guenther, Pazner and Qi, arXiv 2103.14892
    (SpliNet).

    Parameters
    ----------
    control_points : int
        Number of control points per weight, at least degree + 1; the spline has
        control_points - degree intervals.
    degree : int
        Degree of the splines, from 0 (piecewise constant) to 20.

    Raises
    ------
    ValueError
        If the numbers are not integers in these ranges.

    Examples
    --------
    >>> DepthSpline(3, degree=1).matrix(4)
    array([[1. , 0. , 0. ],
           [0.5, 0.5, 0. ],
           [0. , 1. , 0. ],
           [0. , 0.5, 0.5]])
    """

    control_points: int
    degree: int = 3

    def __post_init__(self) -> None:
        known = is_count(self.degree, 0) and is_count(self.control_points)
        if not known or self.degree > DEGREE or self.control_points < self.degree + 1:
            raise ValueError(
                f"DepthSpline got {shown(self.control_points)} control points of degree "
                f"{shown(self.degree)}; it needs integers: at least degree + 1, and a degree of 0 "
                f"to {DEGREE}"
            )

    def matrix(self, layers: int) -> np.ndarray:
        """The values of the splines at the left ends of the layers: (layers, control points)."""
        self.check_layers(layers)
        return _values(self.control_points, self.degree, layers)

    def check_layers(self, layers: int, size: int = 1) -> None:
        """Raise a ValueError if `matrix(layers)` or control points would not fit into memory."""
        entries = (layers + size) * self.control_points
        check_memory(
            8 * entries,
            f"DepthSpline got {written(self.control_points)} control points for {written(layers)} "
            f"layers, {written(entries)} numbers",
            "use fewer control points",
        )

    def at_layers(self, c: torch.Tensor, layers: int, kept: range | None = None) -> torch.Tensor:
        """Evaluate the weights of all layers, or of those `kept`, from control points on axis 0.

        The bits of a layer's weights do not depend on which other layers are kept.
        """
        kept = range(layers) if kept is None else kept
        B = self.matrix(layers)[kept.start : kept.stop]
        intervals = self.control_points - self.degree
        first = np.minimum(np.array(kept, dtype=int) * intervals // layers, intervals - 1)
        total = torch.zeros((), dtype=c.dtype, device=c.device)
        for j in range(self.degree + 1):  # the number of splines that are nonzero in a layer
            values = torch.tensor(B[np.arange(len(kept)), first + j]).to(c)
            points = c[torch.tensor(first + j, device=c.device)]
            total = total + values.reshape(-1, *(1,) * (c.dim() - 1)) * points
        return total

    def refine(self, factor: int = 2) -> DepthSpline:
        """The spline with each interval divided into `factor` equal ones."""
        intervals = self.control_points - self.degree
        return DepthSpline(factor * intervals + self.degree, self.degree)

    def insertion(self, factor: int = 2) -> np.ndarray:
        """The knot-insertion matrix from these control points to those of `refine(factor)`.

        It is exact: theta(t) does not change for any t.

        Examples
        --------
        >>> DepthSpline(2, degree=1).insertion()
        array([[1. , 0. ],
               [0.5, 0.5],
               [0. , 1. ]])
        """
        fine = self.refine(factor)
        # Points at which the fine splines are linearly independent: more per interval than needed.
        points = 4 * (self.degree + 1) * fine.control_points
        values = _values(fine.control_points, self.degree, points)
        P = np.linalg.lstsq(values, self.matrix(points), rcond=None)[0]
        # By the two-scale relation, entries are integers divided by factor^degree.
        scale = float(factor) ** self.degree
        return (np.round(P * scale) + 0.0) / scale


@cache
def _values(count: int, degree: int, layers: int) -> np.ndarray:
    intervals = count - degree
    knots = np.arange(-degree, intervals + degree + 1) / intervals
    values = BSpline.design_matrix(np.arange(layers) / layers, knots, degree).toarray()
    values.setflags(write=False)
    return values
