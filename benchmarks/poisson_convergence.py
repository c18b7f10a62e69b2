"""Textbook factors: independent of the mesh, and one nested cycle at the discretisation error.

    python benchmarks/poisson_convergence.py [largest exponent in 2-D, 10]

The factor is the residual reduction per cycle for f = 0 from a random start (seed 0), the geometric
mean of the last 8 of 24 cycles. `tests/test_solver.py` holds the two-grid factors against local
Fourier analysis.
"""

import math
import sys

import numpy as np

from mgnet import Chebyshev, GaussSeidel, Jacobi, gallery, parse, run


def factor(shape: tuple[int, ...], text: str) -> float:
    hierarchy = gallery.poisson(shape)
    schedule, memory, norms = parse(text, len(hierarchy)), None, []
    u = np.random.default_rng(0).standard_normal(math.prod(shape))
    f = np.zeros_like(u)
    for _ in range(24):
        u, memory = run(schedule, hierarchy, u, f, memory)
        norms.append(np.linalg.norm(hierarchy[0].residual_at(u, f)))
        u = u / norms[-1]
    return math.exp(np.mean(np.log(norms[-8:])))


def table_of_factors(dimension: int, first: int, last: int) -> None:
    exponents = range(first, last + 1)
    what = "unknowns" if dimension == 1 else "unknowns per direction"
    print(f"\n{dimension}-D, Jacobi 2/3, 2^k - 1 {what}")
    print(f"{'':<7}", *(f"{f'k={k}':>6}" for k in exponents), "  largest / smallest")
    for text in ("V(1,1)", "F(1,1)", "W(1,1)"):
        factors = [factor((2**k - 1,) * dimension, text) for k in exponents]
        judged = factors[2:] if text[0] == "V" else factors  # from 2^6 for V, 2^4 for F and W
        row = " ".join(f"{value:>6.4f}" for value in factors)
        print(f"{text:<7} {row}   {max(judged) / min(judged):.3f}", flush=True)


def table_of_nested(last: int) -> None:
    print("\nnested F(1,1), 2-D, u = sin sin: algebraic error / discretisation error (work units)")
    smoothers = {
        "Gauss-Seidel": GaussSeidel(),
        "Jacobi 4/5": Jacobi(0.8),
        "Jacobi 2/3": Jacobi(),
        "Chebyshev, degree 2": Chebyshev(2),
    }
    print(f"{'':<20}", *(f"{f'k={k}':>15}" for k in range(5, last + 1)))
    for name, smoother in smoothers.items():
        cells = []
        for k in range(5, last + 1):
            n = 2**k - 1
            u, f = gallery.sine((n, n))
            discrete = f / (4 - 4 * np.cos(np.pi / (n + 1)))  # sin sin is an eigenvector
            hierarchy = gallery.poisson((n, n), smoother=smoother)
            schedule = parse("nested F(1,1)", len(hierarchy))
            value, _ = run(schedule, hierarchy, None, f)
            error = np.linalg.norm(value - discrete) / np.linalg.norm(discrete - u)
            cells.append(f"{error:.1e} ({schedule.work(hierarchy).units:.2f})")
        print(f"{name:<20}", *(f"{cell:>15}" for cell in cells), flush=True)


if __name__ == "__main__":
    largest = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    table_of_factors(1, 4, 12)
    table_of_factors(2, 4, largest)
    table_of_nested(min(largest, 10))
