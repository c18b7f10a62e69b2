"""Van der Pol's oscillator, a stiff model problem for adaptive time grids."""

from __future__ import annotations

import math

import numpy as np

from mgnet.depth.mgrit.one_step import OneStep
from mgnet.depth.time_grids.implicit_step import ImplicitStep
from mgnet.limits import is_number, is_whole, shown

__all__ = ["van_der_pol"]


def van_der_pol(
    mu: float = 1000.0, steps: int = 64, final_time: float = 2000.0, method: str = "ros2"
) -> OneStep:
    """Van der Pol's equation `x'' = mu (1 - x^2) x' - x`, `x(0) = 2`, `x'(0) = 0`.

    It is stiff for large mu: it changes slowly for a time of about 0.8 mu, then jumps within 1 /
    mu. Source: Hairer, Wanner, "Solving Ordinary Differential Equations II" (1996), section IV.1.

    Parameters
    ----------
    mu : float
        Parameter of the equation, dimensionless.
    steps : int
        Number of equal time steps.
    final_time : float
        Final time.
    method : str
        A method of `ImplicitStep`. With methods other than the default, Newton's method for large
        steps fails at the jumps.

    Returns
    -------
    OneStep
        The problem.

    Raises
    ------
    ValueError
        If an argument is invalid.

    Examples
    --------
    >>> problem = van_der_pol(mu=1.0, steps=200, final_time=2.0)
    >>> problem.serial()[-1].round(2)
    array([ 0.32, -1.83])
    """
    for name, number in (("mu", mu), ("final_time", final_time)):
        if not is_number(number, 0.0):
            raise ValueError(
                f"van_der_pol got {name} = {shown(number)}; give a number that is not negative"
            )
    if not is_whole(steps, 1, math.inf):
        raise ValueError(f"van_der_pol got {shown(steps)} steps; give an integer of at least 1")

    def slope(t: np.ndarray, u: np.ndarray) -> np.ndarray:
        x, v = u[:, 0], u[:, 1]
        return np.stack([v, mu * (1.0 - x * x) * v - x], axis=1)

    def jacobian(t: np.ndarray, u: np.ndarray) -> np.ndarray:
        x, v = u[:, 0], u[:, 1]
        rows = [[0.0 * x, 1.0 + 0.0 * x], [-2.0 * mu * x * v - 1.0, mu * (1.0 - x * x)]]
        return np.stack([np.stack(row, axis=1) for row in rows], axis=1)

    step = ImplicitStep(slope, jacobian, method)
    return OneStep(step, np.array([2.0, 0.0]), np.full(steps, final_time / steps))
