"""Laws: Jacobians of steps, by differences or of the user, have the derivative's entries."""

import numpy as np
import pytest

from mgnet.depth.mgrit.one_step import OneStep
from mgnet.depth.mgrit.step_jacobian import MOST_DIFFERENCES, step_jacobian

A = np.random.default_rng(0).standard_normal((6, 6))


def step(t, dt, u):
    flat = u.reshape(len(u), 6)
    return (flat + dt[:, None] * np.sin(t[:, None] + flat @ A.T)).reshape(u.shape)


def exact(t, dt, u):
    slope = np.cos(t[:, None] + u.reshape(len(u), 6) @ A.T)[..., None] * A
    return np.eye(6) + dt[:, None, None] * slope


@pytest.mark.parametrize("shape", [(6,), (2, 3)])
@pytest.mark.parametrize("size", [1.0, 1e-8, 1e8])
def test_differences_are_the_derivative(shape, size):
    generator = np.random.default_rng(1)
    t, dt = generator.random((2, 4))
    states = size * generator.standard_normal((4, *shape))
    if size > 1.0:  # a sine of large numbers has no differences: a linear step
        found = step_jacobian(lambda t, dt, u: 3.0 * u, None, t, dt, states, "dense")
        np.testing.assert_allclose(found, np.broadcast_to(3.0 * np.eye(6), (4, 6, 6)), atol=1e-8)
        return
    found = step_jacobian(step, None, t, dt, states, "dense")
    atol = 1e-6 if size == 1.0 else 0.03  # of a function of numbers of size 1: rounding
    np.testing.assert_allclose(found, exact(t, dt, states), rtol=1e-6, atol=atol)
    diagonal = step_jacobian(step, None, t, dt, states, "diagonal")
    assert diagonal.shape == states.shape
    np.testing.assert_allclose(diagonal.reshape(4, 6), np.einsum("kii->ki", found))
    given = step_jacobian(step, exact, t, dt, states, "diagonal")
    np.testing.assert_allclose(given, diagonal, rtol=1e-6, atol=atol)


def test_states_of_zeros_and_complex_ones():
    zeros = np.zeros((2, 1))
    found = step_jacobian(
        lambda t, dt, u: np.sin(u), None, zeros[:, 0], zeros[:, 0], zeros, "dense"
    )
    np.testing.assert_allclose(found, np.ones((2, 1, 1)), rtol=1e-9)
    states = np.array([[1.0 + 2.0j]])
    found = step_jacobian(lambda t, dt, u: u**2, None, np.zeros(1), np.ones(1), states, "dense")
    np.testing.assert_allclose(found, [[[2.0 + 4.0j]]], rtol=1e-8)


def test_refusals():
    many = np.ones((2, MOST_DIFFERENCES + 1))
    with pytest.raises(ValueError, match="has no jacobian and states of 65 entries"):
        step_jacobian(lambda t, dt, u: u, None, many[:, 0], many[:, 0], many, "dense")
    few = np.ones((2, 3))
    with pytest.raises(ValueError, match=r"ndarray \(3, 3\).* an array of shape \(2, 3, 3\)"):
        step_jacobian(step, lambda t, dt, u: np.eye(3), few[:, 0], few[:, 0], few, "dense")
    with pytest.raises(TypeError, match="OneStep got a jacobian of type int"):
        OneStep(step, np.ones(6), np.ones(3), jacobian=3)
