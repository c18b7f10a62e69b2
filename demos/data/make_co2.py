"""Generate `co2_density.csv`: the density of carbon dioxide over temperature and pressure.

Half of the rows are spread evenly over the box, half are drawn with a density proportional to
the square root of the curvature of rho, which concentrates them around the critical point and
along the ridge of steep density that leaves it. Needs NumPy, SciPy and CoolProp:

    pip install CoolProp scipy
    python demos/data/make_co2.py
"""

from pathlib import Path

import numpy as np
from CoolProp.CoolProp import PropsSI, get_global_param_string  # pyright: ignore[reportMissingImports]
from scipy.stats import qmc

ROWS = 20_000
SEEDS = 2024, 2025  # of the even and of the concentrated half
TEMPERATURE = 305.0, 500.0  # K
PRESSURE = 0.1, 20.0  # MPa
CELLS = 800  # per direction, of the grid that the concentrated half is drawn from
POWER = 0.5  # of the curvature
FILE = Path(__file__).parent / "co2_density.csv"


def density(points: np.ndarray) -> np.ndarray:
    """Return kg/m3 at points of the unit square, scaled to the box."""
    temperature, pressure = to_box(points).T
    return PropsSI("D", "T", temperature, "P", 1e6 * pressure, "CO2")


def to_box(points: np.ndarray) -> np.ndarray:
    """Return K and MPa, rounded to the digits that the file shows."""
    low, high = np.array([TEMPERATURE, PRESSURE]).T
    return np.array([float(f"{v:.7g}") for v in (low + points * (high - low)).flat]).reshape(-1, 2)


def curvature() -> np.ndarray:
    """Return the Frobenius norm of the Hessian at the centers of CELLS x CELLS cells."""
    centres = (np.arange(CELLS) + 0.5) / CELLS
    grid = np.stack(np.meshgrid(centres, centres, indexing="ij"), axis=-1).reshape(-1, 2)
    rho = density(grid).reshape(CELLS, CELLS)
    first = np.gradient(rho, 1.0 / CELLS)
    (a, b), (_, c) = (np.gradient(slope, 1.0 / CELLS) for slope in first)
    return np.sqrt(a**2 + 2.0 * b**2 + c**2)


def concentrated(uniform: np.ndarray) -> np.ndarray:
    """Map points spread evenly to points of density curvature**POWER, row by row of the grid."""
    weight = curvature() ** POWER
    weight /= weight.sum()
    across = np.concatenate([[0.0], np.cumsum(weight.sum(axis=1))])
    edges = np.linspace(0.0, 1.0, CELLS + 1)
    first = np.interp(uniform[:, 0], across / across[-1], edges)
    second = np.empty_like(first)
    row = np.minimum((first * CELLS).astype(int), CELLS - 1)
    for k in range(CELLS):
        along = np.concatenate([[0.0], np.cumsum(weight[k])])
        here = row == k
        second[here] = np.interp(uniform[here, 1], along / along[-1], edges)
    return np.column_stack([first, second])


def main() -> None:
    even, other = (qmc.Sobol(2, rng=np.random.default_rng(s)).random(ROWS // 2) for s in SEEDS)
    points = np.concatenate([even, concentrated(other)])
    points = points[np.random.default_rng(SEEDS[0]).permutation(ROWS)]
    table = np.column_stack([to_box(points), density(points)])
    np.savetxt(FILE, table, "%.7g", ",", header="T_K,p_MPa,rho_kg_m3", comments="")
    size = FILE.stat().st_size / 1e6
    print(f"{FILE}: {ROWS} rows, {size:.2f} MB, CoolProp {get_global_param_string('version')}")


if __name__ == "__main__":
    main()
