"""mgnet: multigrid solvers whose grids live inside neural networks.

The grid of an ODE net is its layers, and the grid of a Kolmogorov-Arnold network is its knots. The
same parts (levels, transfers, smoothers, schedules) build solvers on both. Reading order: `level`,
`hierarchy`, `transfer`, `smoother`, `schedule`, `interpreter`, `solver`.
"""

import warnings
from importlib.metadata import PackageNotFoundError, version

from mgnet import gallery
from mgnet.algebraic import solve
from mgnet.anderson import Anderson
from mgnet.block_smoothers import BlockGaussSeidel, BlockJacobi
from mgnet.coarse_solver import Direct, Krylov
from mgnet.cycles import cascade, cycle, nested
from mgnet.gauss_seidel import GaussSeidel
from mgnet.hierarchy import Hierarchy
from mgnet.history import CycleRecord, StepRecord
from mgnet.incomplete_lu import ILU
from mgnet.interpolation import interpolation_matrix
from mgnet.interpreter import Progress, StepData, run
from mgnet.krylov import CG, FGMRES, GMRES
from mgnet.level import Level
from mgnet.line_relaxation import LineRelaxation
from mgnet.linesearch import Backtracking
from mgnet.notation import parse
from mgnet.nullspace import NullSpace
from mgnet.progress_lines import ProgressLines
from mgnet.schedule import Schedule, Step, Work
from mgnet.schwarz import AdditiveSchwarz, MultiplicativeSchwarz
from mgnet.smoother import Chebyshev, Jacobi, Smoother
from mgnet.solution import Corrections, Reason, Solution
from mgnet.solver import Solver
from mgnet.transfer import (
    AxisTransfer,
    Injection,
    MatrixTransfer,
    PackedTransfer,
    Transfer,
)

__all__ = [
    "AdditiveSchwarz",
    "Anderson",
    "AxisTransfer",
    "Backtracking",
    "BlockGaussSeidel",
    "BlockJacobi",
    "CG",
    "Chebyshev",
    "Corrections",
    "CycleRecord",
    "Direct",
    "FGMRES",
    "GMRES",
    "GaussSeidel",
    "Hierarchy",
    "ILU",
    "Injection",
    "Jacobi",
    "Krylov",
    "Level",
    "LineRelaxation",
    "MatrixTransfer",
    "MultiplicativeSchwarz",
    "NullSpace",
    "PackedTransfer",
    "Progress",
    "ProgressLines",
    "Reason",
    "Schedule",
    "Smoother",
    "Solution",
    "Solver",
    "Step",
    "StepData",
    "StepRecord",
    "Transfer",
    "Work",
    "cascade",
    "cycle",
    "gallery",
    "interpolation_matrix",
    "nested",
    "parse",
    "run",
    "solve",
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
        "uninstall 'mgnet' and reinstall 'mgnet-solvers', or Python may load its files in place "
        "of these",
        stacklevel=2,
    )
