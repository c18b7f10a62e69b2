"""Additive models and additive models with a link, for benchmarks/rough_compositions.py.

With a link they have the very form of targets of one sum, y = h(sum of g_p(x_p)): for such targets
they are the classical method, not a general one. Splines are cubic, uniform on [-1, 1], and are
penalized by second differences of their coefficients (Eilers and Marx, Statist. Sci. 11 (1996)).
"""

import time
from collections.abc import Callable

import numpy as np
import scipy.linalg as la
import scipy.sparse as sp
import torch
from rough_targets import Array, Rows
from scipy.interpolate import BSpline

Predict = Callable[[torch.Tensor], torch.Tensor]
REACH = 1.5  # links are splines on 1.5 times the range of the sums seen first


def splines(x: Array, intervals: int, reach: float = 1.0) -> sp.csr_array:
    """Values of all splines at x in [-reach, reach]; beyond it those of the end."""
    width = 2.0 * reach / intervals
    knots = -reach + width * np.arange(-3, intervals + 4)
    inside = np.clip(x, -reach, np.nextafter(reach, 0.0))
    return sp.csr_array(BSpline.design_matrix(inside, knots, 3))


def slopes(x: Array, coefficients: Array, reach: float) -> Array:
    """Of the spline with these coefficients, at x."""
    intervals = len(coefficients) - 3
    knots = -reach + 2.0 * reach / intervals * np.arange(-3, intervals + 4)
    inside = np.clip(x, -reach, np.nextafter(reach, 0.0))
    return np.asarray(BSpline(knots, coefficients, 3).derivative()(inside), dtype=float)


def basis(x: Array, intervals: int) -> sp.csr_array:
    """Of all inputs, side by side."""
    return sp.csr_array(sp.hstack([splines(column, intervals) for column in x.T], format="csr"))


def roughness(inputs: int, intervals: int) -> Array:
    """The penalty on coefficients: second differences, as second derivatives over [-1, 1]."""
    D = np.diff(np.eye(intervals + 3), 2, axis=0) * (intervals / 2.0) ** 1.5
    return la.block_diag(*[D.T @ D] * inputs)


def refined(c: Array, inputs: int, coarse: int, fine: int) -> Array:
    """The same functions on more intervals."""
    grid = np.asarray(np.linspace(-1.0, 1.0, 4 * fine + 1), dtype=float)
    up = np.linalg.pinv(splines(grid, fine).toarray()) @ splines(grid, coarse).toarray()
    return (c.reshape(inputs, -1) @ up.T).ravel()


def columns(data: Rows) -> tuple[Array, Array]:
    return data.x.numpy(), data.y.numpy().ravel()


def predictor(
    c: Array, intervals: int, link: Callable[[Array], Array] | None, at: float = 0.0
) -> Predict:
    def predict(x: torch.Tensor) -> torch.Tensor:
        sums = basis(x.numpy(), intervals) @ c + at
        return torch.from_numpy(sums if link is None else link(sums))[:, None]

    return predict


def additive(data: Rows, seconds: float, seed: int, *, intervals: int, penalty: float) -> Predict:
    """Penalised least squares: one system."""
    x, y = columns(data)
    B = basis(x, intervals)
    A = (B.T @ B).toarray() / len(y) + penalty * roughness(x.shape[1], intervals)
    A[np.diag_indices_from(A)] += 1e-10
    return predictor(la.solve(A, B.T @ y / len(y), assume_a="pos"), intervals, None)


def ace(
    data: Rows, seconds: float, seed: int, *, intervals: int, penalty: float, link: int = 32
) -> Predict:
    """Alternating conditional expectations, and the mean of y for a sum of the transformed inputs.

    Breiman and Friedman, J. Amer. Statist. Assoc. 80 (1985) 580-598, with all functions of the
    inputs in one solve.
    """
    began = time.process_time()
    x, y = columns(data)
    B = basis(x, intervals)
    A = (B.T @ B).toarray() / len(y) + penalty * roughness(x.shape[1], intervals)
    A[np.diag_indices_from(A)] += 1e-10
    factor = la.cho_factor(A)
    reach = float(abs(y).max())
    Y = splines(y, link, reach)
    outer = la.cho_factor((Y.T @ Y).toarray() + 1e-8 * len(y) * np.eye(link + 3))
    theta, c = (y - y.mean()) / y.std(), np.zeros(len(A))
    while time.process_time() - began < 0.9 * seconds:
        before, c = c, la.cho_solve(factor, B.T @ theta / len(y))
        sums = B @ c
        theta = Y @ la.cho_solve(outer, Y.T @ sums)
        theta = (theta - theta.mean()) / theta.std()
        if np.linalg.norm(c - before) < 1e-6 * np.linalg.norm(c):
            break
    sums = B @ c
    span = REACH * float(abs(sums).max())
    S = splines(sums, link, span)
    h = la.solve((S.T @ S).toarray() + 1e-8 * len(y) * np.eye(link + 3), S.T @ y, assume_a="pos")
    return predictor(c, intervals, lambda sums: splines(sums, link, span) @ h)


def linked(
    data: Rows,
    seconds: float,
    seed: int,
    *,
    intervals: int,
    penalty: float,
    link: int = 32,
    coarsest: int = 16,
) -> Predict:
    """Y = h(sum of g_p(x_p)), all functions by Gauss-Newton, on more and more intervals.

    It begins at the additive model on the coarsest ones.
    """
    began = time.process_time()
    x, y = columns(data)
    inputs, n, rows = x.shape[1], coarsest, len(y)
    B = basis(x, n)
    A = (B.T @ B).toarray() / rows + 1e-6 * np.eye(inputs * (n + 3))
    c = la.solve(A, B.T @ y / rows, assume_a="pos")
    c /= (B @ c).std()
    span = REACH * float(abs(B @ c).max())
    levels = [n]
    while 2 * levels[-1] <= intervals:
        levels.append(2 * levels[-1])
    h = np.zeros(0)
    for position, level in enumerate(levels):
        if level != n:
            c, n, B = refined(c, inputs, n, level), level, basis(x, level)
        until = began + 0.95 * seconds * 0.5 ** (len(levels) - 1 - position)
        c, h = gauss_newton(B, y, c, h, span, (n, penalty, link), until)
    return predictor(c, n, lambda sums: splines(sums, link, span) @ h)


def gauss_newton(
    B: sp.csr_array,
    y: Array,
    c: Array,
    h: Array,
    span: float,
    sizes: tuple[int, float, int],
    until: float,
) -> tuple[Array, Array]:
    """Damped steps in the inner functions c; the link h is the best one for them each time."""
    (n, penalty, link), rows, damping = sizes, len(y), 1e-3
    R = penalty * roughness(len(c) // (n + 3), n)
    bent = np.diff(np.eye(link + 3), 2, axis=0)

    def best_link(c: Array) -> tuple[float, Array, Array, sp.csr_array]:
        S = splines(B @ c, link, span)
        h = la.solve((S.T @ S).toarray() / rows + 1e-9 * bent.T @ bent + 1e-12 * np.eye(link + 3),
                     S.T @ y / rows, assume_a="pos")  # fmt: skip
        r = y - S @ h
        return float(r @ r) / rows + float(c @ R @ c), h, r, S

    value, h, r, S = best_link(c)
    stalled = 0
    while time.process_time() < until and stalled < 3:
        J = sp.csr_array(sp.hstack([sp.diags_array(slopes(B @ c, h, span)) @ B, S], format="csr"))
        A = (J.T @ J).toarray() / rows
        size = len(c)
        A[:size, :size] += R
        A[size:, size:] += 1e-9 * bent.T @ bent
        g = J.T @ r / rows
        g[:size] -= R @ c
        mean = float(np.trace(A[:size, :size])) / size
        for _ in range(8):
            damped = A + (damping * mean + 1e-13) * np.eye(len(A))
            step = la.solve(damped, g, assume_a="pos")[:size]
            found = best_link(c + step)
            if found[0] < value:
                break
            damping *= 8.0
        else:
            break
        stalled = stalled + 1 if found[0] > (1.0 - 1e-3) * value else 0
        c, damping = c + step, max(damping / 5.0, 1e-12)
        value, h, r, S = found
    return c, h
