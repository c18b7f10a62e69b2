"""Implicit and linearly implicit steps for stiff problems, computed for many states at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mgnet.limits import is_one_of, shown

__all__ = ["ImplicitStep"]

Slope = Callable[[np.ndarray, np.ndarray], np.ndarray]

_G2 = 1.0 - 0.5**0.5
_G3 = 0.4358665215084590
_B3 = -1.5 * _G3**2 + 4.0 * _G3 - 0.25, 1.5 * _G3**2 - 5.0 * _G3 + 1.25
# Name: order, and rows of the tableau; the last row is the step, so all are stiffly accurate.
_METHODS: dict[str, tuple[int, tuple[tuple[float, ...], ...]]] = {
    "euler": (1, ((1.0,),)),
    "sdirk2": (2, ((_G2,), (1.0 - _G2, _G2))),
    "sdirk3": (3, ((_G3,), (0.5 * (1.0 - _G3), _G3), (*_B3, _G3))),
}
# Newton converges quadratically: after a relative correction this small, the next is rounding.
_SMALL, _MOST = 1e-8, 15


@dataclass(frozen=True, eq=False)
class ImplicitStep:
    """An L-stable step for `u' = F(t, u)`, for `OneStep`.

    The methods are diagonally implicit Runge-Kutta methods with Newton's method in each stage, and
    the Rosenbrock method ROS2, which solves only linear systems. If the Newton iteration of a row
    does not converge, its result is NaN, which means that the step failed. Rows are independent of
    each other. Sources: Alexander, "Diagonally implicit Runge-Kutta methods for stiff ODEs", SIAM
    J. Numer. Anal. 14 (1977); Verwer, Spee, Blom, Hundsdorfer, "A second-order Rosenbrock method
    applied to photochemical dispersion problems", SIAM J. Sci. Comput. 20 (1999).

    Parameters
    ----------
    slope : callable
        The function `(t, u) -> F`: times of shape (k,), states and slopes of shape (k, d).
    jacobian : callable
        The function `(t, u) -> dF / du`, of shape (k, d, d).
    method : str
        The method: "euler" (order 1), "sdirk2", "sdirk3", or "ros2".

    Raises
    ------
    ValueError
        If `method` is unknown.
    TypeError
        If `slope` or `jacobian` is not callable.

    Examples
    --------
    >>> step = ImplicitStep(lambda t, u: -u, lambda t, u: np.full((len(u), 1, 1), -1.0), "euler")
    >>> step(np.zeros(2), np.array([1.0, 3.0]), np.ones((2, 1))).ravel()
    array([0.5 , 0.25])
    """

    slope: Slope
    jacobian: Slope
    method: str = "sdirk2"

    def __post_init__(self) -> None:
        if not is_one_of(self.method, (*_METHODS, "ros2")):
            raise ValueError(
                f"ImplicitStep got the method {shown(self.method)}; it must be one of "
                f"{', '.join(_METHODS)}, ros2"
            )
        for name in ("slope", "jacobian"):
            if not callable(getattr(self, name)):
                raise TypeError(
                    f"ImplicitStep got a {name} of type {type(getattr(self, name)).__name__}; give "
                    "a function (t, u) of many times and states"
                )

    @property
    def order(self) -> int:
        """Order p of the method: the error of one step is of order dt^(p + 1)."""
        return 2 if self.method == "ros2" else _METHODS[self.method][0]

    def __call__(self, t: np.ndarray, dt: np.ndarray, states: np.ndarray) -> np.ndarray:
        if self.method == "ros2":
            return self._rosenbrock(t, dt, states)
        stages: list[np.ndarray] = []  # dt times the slopes
        value = states
        for row in _METHODS[self.method][1]:
            known = states + sum(a * k for a, k in zip(row, stages, strict=False))
            value = self.solve(t + sum(row) * dt, row[-1] * dt, known, value)
            stages.append((value - known) / row[-1])
        return value

    def _rosenbrock(self, t: np.ndarray, dt: np.ndarray, states: np.ndarray) -> np.ndarray:
        h = dt[:, None]
        matrices = np.eye(states.shape[1]) - _G2 * h[:, :, None] * self.jacobian(t, states)
        first = _quotients(matrices, self.slope(t, states))
        second = _quotients(matrices, self.slope(t + dt, states + h * first) - 2.0 * first)
        return states + h * (1.5 * first + 0.5 * second)

    def solve(
        self, t: np.ndarray, weight: np.ndarray, known: np.ndarray, start: np.ndarray
    ) -> np.ndarray:
        """Solve `u - weight F(t, u) = known` for u; NaN if Newton's method does not converge.

        Parameters
        ----------
        t, weight : arrays of shape (k,)
            Times and weights of the equations.
        known, start : arrays of shape (k, d)
            Right-hand sides, and initial guesses for Newton's method.

        Returns
        -------
        array of shape (k, d)
            The solutions.
        """
        u, open_rows = start.copy(), np.arange(len(start))
        unit = np.eye(start.shape[1])
        with np.errstate(all="ignore"):
            for _ in range(_MOST):
                at, v, w = t[open_rows], u[open_rows], weight[open_rows, None]
                residual = v - w * self.slope(at, v) - known[open_rows]
                change = _quotients(unit - w[:, :, None] * self.jacobian(at, v), residual)
                u[open_rows] = v - change
                size = abs(change).max(axis=1)
                going = size > _SMALL * abs(v).max(axis=1)
                open_rows = open_rows[going | ~np.isfinite(size)]
                if not len(open_rows):
                    return u
        u[open_rows] = np.nan
        return u


def _quotients(matrices: np.ndarray, right: np.ndarray) -> np.ndarray:
    try:
        return np.linalg.solve(matrices, right[:, :, None])[:, :, 0]
    except np.linalg.LinAlgError:  # a matrix is singular: only its row fails
        singular = np.linalg.det(matrices) == 0.0
        safe = np.where(singular[:, None, None], np.eye(right.shape[1]), matrices)
        found = np.linalg.solve(safe, right[:, :, None])[:, :, 0]
        return np.where(singular[:, None], np.nan, found)
