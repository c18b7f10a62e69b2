"""Textbook factors: independent of the mesh, and one nested cycle at the discretization error.

    python benchmarks/poisson_convergence.py [largest exponent in 2-D, 10] [--save]

The factor is the residual reduction per cycle for f = 0 from a random start (seed 0), the geometric
mean of the last 8 of 24 cycles. `tests/test_solver.py` holds the two-grid factors against local
Fourier analysis.
"""

import argparse
import math

import numpy as np
import saved

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


def factors(dimension: int, first: int, last: int) -> list[saved.Row]:
    return [
        {"dimension": dimension, "cycle": text, "k": k, "factor": factor(shape, text)}
        for text in ("V(1,1)", "F(1,1)", "W(1,1)")
        for k in range(first, last + 1)
        for shape in [(2**k - 1,) * dimension]
    ]


def nested(last: int) -> list[saved.Row]:
    smoothers = {
        "Gauss-Seidel": GaussSeidel(),
        "Jacobi 4/5": Jacobi(0.8),
        "Jacobi 2/3": Jacobi(),
        "Chebyshev, degree 2": Chebyshev(2),
    }
    rows = []
    for name, smoother in smoothers.items():
        for k in range(5, last + 1):
            n = 2**k - 1
            u, f = gallery.sine((n, n))
            discrete = f / (4 - 4 * np.cos(np.pi / (n + 1)))  # sin sin is an eigenvector
            hierarchy = gallery.poisson((n, n), smoother=smoother)
            schedule = parse("nested F(1,1)", len(hierarchy))
            value, _ = run(schedule, hierarchy, None, f)
            error = float(np.linalg.norm(value - discrete) / np.linalg.norm(discrete - u))
            work = schedule.work(hierarchy).units
            rows.append({"smoother": name, "k": k, "error": error, "work": work})
    return rows


def growth(rows: list[saved.Row]) -> float:
    """Largest over smallest factor of one kind of cycle: from 2^6 for V, from 2^4 for F and W."""
    judged = [row["factor"] for row in rows if row["cycle"][0] != "V" or row["k"] >= 6]
    return max(judged) / min(judged)


def text_of_factors(rows: list[saved.Row]) -> str:
    dimension = rows[0]["dimension"]
    what = "unknowns" if dimension == 1 else "unknowns per direction"
    exponents = dict.fromkeys(row["k"] for row in rows)
    lines = [
        f"\n{dimension}-D, Jacobi 2/3, 2^k - 1 {what}",
        " ".join([f"{'':<7}", *(f"{f'k={k}':>6}" for k in exponents), "  largest / smallest"]),
    ]
    for cycle in dict.fromkeys(row["cycle"] for row in rows):
        own = [row for row in rows if row["cycle"] == cycle]
        cells = " ".join(f"{row['factor']:>6.4f}" for row in own)
        lines.append(f"{cycle:<7} {cells}   {growth(own):.3f}")
    return "\n".join(lines)


def text_of_nested(rows: list[saved.Row]) -> str:
    exponents = dict.fromkeys(row["k"] for row in rows)
    lines = [
        "\nnested F(1,1), 2-D, u = sin sin: algebraic error / discretization error (work units)",
        " ".join([f"{'':<20}", *(f"{f'k={k}':>15}" for k in exponents)]),
    ]
    for name in dict.fromkeys(row["smoother"] for row in rows):
        own = (row for row in rows if row["smoother"] == name)
        cells = (f"{row['error']:.1e} ({row['work']:.2f})" for row in own)
        lines.append(" ".join([f"{name:<20}", *(f"{cell:>15}" for cell in cells)]))
    return "\n".join(lines)


def targets(rows: list[saved.Row]) -> list[saved.Row]:
    found = []
    for dimension in (1, 2):
        of_cycles = [
            growth([row for row in rows if (row["dimension"], row["cycle"]) == (dimension, cycle)])
            for cycle in ("V(1,1)", "F(1,1)", "W(1,1)")
        ]
        name = f"largest over smallest factor on all meshes, V, F and W, {dimension}-D"
        measured = ", ".join(f"{value:.3f}" for value in of_cycles)
        found.append(saved.target(name, "at most 1.10", measured, max(of_cycles) <= 1.1))
    return found


def targets_of_nested(rows: list[saved.Row]) -> list[saved.Row]:
    own = [row for row in rows if row["smoother"] == "Gauss-Seidel"]
    error, work = max(row["error"] for row in own), max(row["work"] for row in own)
    name = "algebraic over discretization error of one nested F(1,1), Gauss-Seidel, all meshes"
    measured = f"at most {error:.1e} with at most {work:.1f} work units"
    met = error <= 0.5 and work <= 10.0
    return [saved.target(name, "at most 0.5 with 10 work units", measured, met)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("largest", type=int, nargs="?", default=10, help="exponent in 2-D")
    saved.add_option(parser)
    given = parser.parse_args()
    last = given.largest
    lines, rows = [], []
    for table in (factors(1, 4, last + 2), factors(2, 4, last)):
        rows += table
        lines.append(text_of_factors(table))
        print(lines[-1], flush=True)
    of_nested = nested(min(last, 10))
    lines.append(text_of_nested(of_nested))
    print(lines[-1])
    if given.save:
        found = targets(rows) + targets_of_nested(of_nested)
        setting = f"to 2^{last + 2} - 1 unknowns in 1-D, to 2^{last} - 1 per direction in 2-D"
        text = "\n".join(lines)
        saved.save(given.save, "poisson_convergence", setting, rows + of_nested, found, text)


if __name__ == "__main__":
    main()
