"""Our hierarchies under PETSc's solvers, and PETSc's solvers under our schedules.

Options from the command line, views shared by PETSc vectors and tensors, the DM that carries a
hierarchy, python types for SNES, KSP and PC, and PETSc's solvers as smoothers. The only folder that
imports petsc4py. What reads options works without it: a script that calls `init` runs anywhere.
"""

from importlib import import_module
from typing import Any

from mgnet.petsc.options import init
from mgnet.petsc.smoother_text import parse_smoother
from mgnet.petsc.solver_options import solver_from_options

__all__ = [
    "init",
    "parse_smoother",
    "solver_from_options",
]

# Found on first use: importing petsc4py.PETSc starts PETSc, which must come after `init`.
_LATER = {}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'mgnet.petsc' has no attribute '{name}'")
    return getattr(import_module(_LATER[name]), name)
