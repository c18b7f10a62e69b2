"""mgnet: multigrid solvers whose grids live inside neural networks.

The grid of an ODE net is its layers, the grid of a Kolmogorov-Arnold network its knots. On both, the same parts
(levels, transfers, smoothers, schedules) build solvers. Reading order: `hierarchy`, `transfer`, `smoother`, `schedule`,
`solver`.
"""

import warnings
from importlib.metadata import PackageNotFoundError, version

from mgnet import gallery
from mgnet.hierarchy import Hierarchy, Level
from mgnet.linesearch import Backtracking
from mgnet.schedule import Schedule, Step, cascade, cycle, nested, parse
from mgnet.smoother import Chebyshev, Direct, GaussSeidel, Jacobi, Krylov, Smoother
from mgnet.solver import Reason, Solution, Solver, StepData, run
from mgnet.transfer import AxisTransfer, Injection, MatrixTransfer, PackedTransfer, Transfer, interpolation_matrix

__all__ = [
    "AxisTransfer",
    "Backtracking",
    "Chebyshev",
    "Direct",
    "GaussSeidel",
    "Hierarchy",
    "Injection",
    "Jacobi",
    "Krylov",
    "Level",
    "MatrixTransfer",
    "PackedTransfer",
    "Reason",
    "Schedule",
    "Smoother",
    "Solution",
    "Solver",
    "Step",
    "StepData",
    "Transfer",
    "cascade",
    "cycle",
    "gallery",
    "interpolation_matrix",
    "nested",
    "parse",
    "run",
]


def _version_of(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


__version__ = _version_of("mgnet-solvers") or "0+unknown"

if _version_of("mgnet") is not None:
    warnings.warn(
        "another project's distribution 'mgnet' is installed and writes to the same import name; "
        "uninstall 'mgnet' and reinstall 'mgnet-solvers', or Python may load its files in place of these",
        stacklevel=2,
    )
