"""Anisotropy and lines: factors per V(1,1)-cycle over the anisotropy and the mesh.

    python benchmarks/line_smoothers.py [largest exponent, 10] [--save]

The equation is `-u_xx - eps u_yy = f` by second differences on 2^k - 1 points per direction, with
standard coarsening and the same stencil on all levels, so x is the strong axis. The factor is the
residual reduction per cycle for f = 0 from a random start (seed 0), the geometric mean of the last
5 of 12 cycles.
"""

import argparse
import math

import numpy as np
import saved
import scipy.sparse as sp

from mgnet import (
    GaussSeidel,
    Hierarchy,
    LineRelaxation,
    Smoother,
    interpolation_matrix,
    parse,
    run,
)

SMOOTHERS: dict[str, Smoother] = {
    "Gauss-Seidel": GaussSeidel(),
    "lines along x": LineRelaxation(0),
    "lines along x and y": LineRelaxation("alternating"),
}
ANISOTROPIES = 1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6
POINTS_UP_TO = 8  # exponent; Gauss-Seidel stalls on all meshes alike
LIMIT = 0.15


def matrix(n: int, eps: float) -> sp.csr_matrix:
    second, one = sp.diags([-1.0, 2.0, -1.0], [-1, 0, 1], shape=(n, n)), sp.identity(n)  # type: ignore
    return sp.csr_matrix(sp.kron(second, one) + eps * sp.kron(one, second))


def hierarchy(k: int, eps: float, smoother: Smoother) -> Hierarchy:
    sizes = [2**j - 1 for j in range(k, 0, -1)]
    one_axis = [interpolation_matrix(n, degree=1) for n in sizes[1:]]
    return Hierarchy.from_matrices(
        [matrix(n, eps) for n in sizes],
        [sp.csr_matrix(sp.kron(P, P)) for P in one_axis],
        smoother=smoother,
        shapes=[(n, n) for n in sizes],
    )


def factor(k: int, eps: float, smoother: Smoother) -> float:
    levels = hierarchy(k, eps, smoother)
    schedule, memory, norms = parse("V(1,1)", len(levels)), None, []
    u = np.random.default_rng(0).standard_normal(levels[0].unknowns)
    f = np.zeros_like(u)
    for _ in range(12):
        u = u / np.linalg.norm(levels[0].residual_at(u, f))
        u, memory = run(schedule, levels, u, f, memory)
        norms.append(np.linalg.norm(levels[0].residual_at(u, f)))
    return math.exp(np.mean(np.log(norms[-5:])))


def measured(last: int) -> list[saved.Row]:
    rows = []
    for name, smoother in SMOOTHERS.items():
        for eps in ANISOTROPIES:
            for k in range(5, min(last, POINTS_UP_TO if smoother == GaussSeidel() else last) + 1):
                row = {"smoother": name, "eps": eps, "k": k, "factor": factor(k, eps, smoother)}
                rows.append(row)
    return rows


def text_of(rows: list[saved.Row]) -> str:
    exponents = list(dict.fromkeys(row["k"] for row in rows))
    lines = ["factor per V(1,1)-cycle, 2^k - 1 unknowns per direction"]
    lines.append(" ".join([f"{'':<20} {'eps':>6}", *(f"{f'k={k}':>8}" for k in exponents)]))
    for name in dict.fromkeys(row["smoother"] for row in rows):
        for eps in ANISOTROPIES:
            own = [row for row in rows if (row["smoother"], row["eps"]) == (name, eps)]
            cells = " ".join(f"{row['factor']:>8.2g}" for row in own)
            lines.append(f"{name:<20} {eps:>6.0e} {cells}")
    return "\n".join(lines)


def targets(rows: list[saved.Row]) -> list[saved.Row]:
    found = []
    for name in list(SMOOTHERS)[1:]:
        worst = max(row["factor"] for row in rows if row["smoother"] == name)
        what = f"largest factor per V(1,1)-cycle, {name}, eps from 1 to 1e-6, all meshes"
        found.append(saved.target(what, f"below {LIMIT}", f"{worst:.3f}", worst < LIMIT))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("largest", type=int, nargs="?", default=10, help="exponent")
    saved.add_option(parser)
    given = parser.parse_args()
    rows = measured(given.largest)
    text = text_of(rows)
    print(text)
    if given.save:
        setting = f"to 2^{given.largest} - 1 unknowns per direction"
        saved.save(given.save, "line_smoothers", setting, rows, targets(rows), text)


if __name__ == "__main__":
    main()
