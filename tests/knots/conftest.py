"""What SciPy says of the splines: the oracle of every test of a spline layer."""

import numpy as np
import pytest
from scipy.interpolate import BSpline


def scipy_basis(x, intervals, degree, domain, order=0):
    """All splines at x, or their derivatives, with linear continuation: shape of x + (splines,)."""
    a, b = domain
    knots = a + (b - a) / intervals * np.arange(-degree, intervals + degree + 1)
    spline = BSpline(knots, np.eye(intervals + degree), degree)
    inside = np.clip(x, a, b - 1e-13 * (b - a))  # from the left at b: slopes of degree 1 jump
    beyond = (x - np.clip(x, a, b))[..., None]
    if order > degree:
        return np.zeros((*x.shape, intervals + degree))
    values = spline(inside) if order == 0 else spline.derivative(order)(inside)
    if order == 0:
        return values + beyond * spline.derivative(1)(inside)
    return np.where(beyond == 0.0, values, 0.0) if order > 1 else values


@pytest.fixture(name="scipy_basis")
def the_oracle():
    return scipy_basis
