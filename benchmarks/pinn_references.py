"""Solutions for benchmarks/pinn.py that owe nothing to networks; classical solvers beside them."""

import math
from collections.abc import Callable

import numpy as np


def burgers(x: np.ndarray, t: np.ndarray, nu: float, nodes: int = 200) -> np.ndarray:
    """u_t + u u_x = nu u_xx, u(x, 0) = -sin(pi x), by Cole-Hopf and Gauss-Hermite quadrature.

    100 and 300 nodes differ by less than 2e-15 for nu >= 0.01 / pi.
    """
    z, weights = np.polynomial.hermite.hermgauss(nodes)
    at = x[..., None] - np.sqrt(4.0 * nu * t)[..., None] * z
    exponent = -np.cos(np.pi * at) / (2.0 * np.pi * nu)
    kernel = weights * np.exp(exponent - exponent.max(-1, keepdims=True))
    return -(np.sin(np.pi * at) * kernel).sum(-1) / kernel.sum(-1)


def periodic(
    start: Callable[[np.ndarray], np.ndarray],
    linear: Callable[[np.ndarray], np.ndarray],
    nonlinear: Callable[[np.ndarray, np.ndarray], np.ndarray],
    points: int,
    steps: int,
    kept: int,
) -> np.ndarray:
    """u_t = L u + N(u) on [-1, 1), t in [0, 1]: Fourier in space, ETDRK4 in time.

    Source: Kassam and Trefethen, SIAM J. Sci. Comput. 26 (2005) 1214-1233.

    Parameters
    ----------
    start : callable
        x -> u(x, 0).
    linear : callable
        Wave numbers -> L in Fourier space.
    nonlinear : callable
        (u, wave numbers) -> N(u) in Fourier space.
    points, steps, kept : int
        `kept` divides `steps`.

    Returns
    -------
    array of shape (kept + 1, points)
        At `kept + 1` equidistant times.
    """
    x = -1.0 + 2.0 * np.arange(points) / points
    k = np.pi * np.arange(points // 2 + 1)
    v, L, h = np.fft.rfft(start(x)), linear(k), 1.0 / steps
    circle = np.exp(1j * np.pi * (np.arange(1, 33) - 0.5) / 32)
    around = h * L[:, None] + circle
    e = np.exp(around)
    whole, half = np.exp(h * L), np.exp(0.5 * h * L)
    Q = h * ((np.exp(0.5 * around) - 1.0) / around).mean(1).real
    f1 = h * ((-4.0 - around + e * (4.0 - 3.0 * around + around**2)) / around**3).mean(1).real
    f2 = h * ((2.0 + around + e * (around - 2.0)) / around**3).mean(1).real
    f3 = h * ((-4.0 - 3.0 * around - around**2 + e * (4.0 - around)) / around**3).mean(1).real

    def N(v: np.ndarray) -> np.ndarray:
        return nonlinear(np.fft.irfft(v, points), k)

    times = [np.fft.irfft(v, points)]
    for step in range(1, steps + 1):
        at_v = N(v)
        a = half * v + Q * at_v
        at_a = N(a)
        b = half * v + Q * at_a
        at_b = N(b)
        c = half * a + Q * (2.0 * at_b - at_v)
        v = whole * v + f1 * at_v + 2.0 * f2 * (at_a + at_b) + f3 * N(c)
        if step % (steps // kept) == 0:
            times.append(np.fft.irfft(v, points))
    return np.array(times)


def allen_cahn(points: int, steps: int, kept: int) -> np.ndarray:
    """u_t = 1e-4 u_xx + 5 u - 5 u^3, periodic, u(x, 0) = x^2 cos(pi x)."""
    return periodic(
        lambda x: x**2 * np.cos(np.pi * x),
        lambda k: 5.0 - 1e-4 * k**2,
        lambda u, k: np.fft.rfft(-5.0 * u**3),
        points,
        steps,
        kept,
    )


def burgers_by_fourier(nu: float, points: int, steps: int, kept: int) -> np.ndarray:
    """The same as `burgers`: with these initial values it is periodic, too."""
    return periodic(
        lambda x: -np.sin(np.pi * x),
        lambda k: -nu * k**2,
        lambda u, k: -0.5j * k * np.fft.rfft(u**2),
        points,
        steps,
        kept,
    )


def chebyshev(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Points on [-1, 1], descending, and the matrix of differentiation; Trefethen's `cheb`."""
    x = np.cos(np.pi * np.arange(count + 1) / count)
    c = np.r_[2.0, np.ones(count - 1), 2.0] * (-1.0) ** np.arange(count + 1)
    difference = x[:, None] - x[None] + np.eye(count + 1)
    D = np.outer(c, 1.0 / c) / difference
    return x, D - np.diag(D.sum(1))


def poisson_by_chebyshev(count: int) -> float:
    """Relative error of Laplace u = f on [-1, 1]^2, u = sin(pi x) sin(2 pi y)."""
    x, D = chebyshev(count)
    inner, L = x[1:-1], (D @ D)[1:-1, 1:-1]
    exact = np.outer(np.sin(math.pi * inner), np.sin(2.0 * math.pi * inner))
    size, V = np.linalg.eig(L)
    W = np.linalg.inv(V)
    right = W @ (-5.0 * math.pi**2 * exact) @ W.T
    u = V @ (right / (size[:, None] + size)) @ V.T
    return float(np.linalg.norm(u.real - exact) / np.linalg.norm(exact))


def interface_by_chebyshev(count: int) -> float:
    """Relative error of the Poisson interface problem: two subdomains, one equation per point."""
    s, D = chebyshev(count)
    y, across, one = s[1:-1], 2.0 * D, np.eye(count + 1)  # each half of x has length 1
    left, right = 0.5 * (s - 1.0), 0.5 * (s + 1.0)
    along, width = (D @ D)[1:-1, 1:-1], count - 1
    size, V = np.linalg.eig(along)
    W = np.linalg.inv(V)
    exact = [
        np.outer(np.sin(k * math.pi * x), np.sin(3.0 * math.pi * y))
        for k, x in ((1, left), (2, right))
    ]
    source = [-10.0 * math.pi**2 * exact[0], -6.5 * math.pi**2 * exact[1]]
    modes = [part @ W.T for part in source]
    columns = np.zeros((2 * count + 2, width), dtype=complex)
    for mode in range(width):
        A = np.zeros((2 * count + 2,) * 2, dtype=complex)
        b = np.zeros(2 * count + 2, dtype=complex)
        for number, (eps, part) in enumerate(zip((1.0, 0.5), modes, strict=True)):
            rows = slice(number * (count + 1), (number + 1) * (count + 1))
            A[rows, rows] = eps * (across @ across + size[mode] * one)
            b[rows] = part[:, mode]
        A[[0, count, count + 1, 2 * count + 1]] = 0.0
        b[[0, count, count + 1, 2 * count + 1]] = 0.0
        A[count, count] = A[count + 1, count + 1] = 1.0  # u = 0 at x = -1 and x = 1
        A[0, 0], A[0, 2 * count + 1] = 1.0, -1.0
        A[2 * count + 1, : count + 1], A[2 * count + 1, count + 1 :] = across[0], -0.5 * across[-1]
        columns[:, mode] = np.linalg.solve(A, b)
    u = np.real(columns @ V.T)
    both = np.concatenate(exact)
    return float(np.linalg.norm(u - both) / np.linalg.norm(both))
