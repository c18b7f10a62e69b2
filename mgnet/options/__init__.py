"""PETSc's options for mgnet's solvers, read with or without petsc4py.

A script that calls `init` runs anywhere; PETSc is started only if an option is given. Reading
`smoother_names`, `smoother_text`, `log`.
"""

from mgnet.options.layer_options import layer_parallel_from_options
from mgnet.options.reader import init
from mgnet.options.smoother_names import allow_imports, register_smoother
from mgnet.options.smoother_text import parse_smoother
from mgnet.options.solver_options import solver_from_options
from mgnet.options.time_options import time_parallel_from_options

__all__ = [
    "allow_imports",
    "init",
    "layer_parallel_from_options",
    "parse_smoother",
    "register_smoother",
    "solver_from_options",
    "time_parallel_from_options",
]
