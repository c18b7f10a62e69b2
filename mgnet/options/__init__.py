"""PETSc's options for our solvers, read with petsc4py or without it.

A script that calls `init` runs anywhere; PETSc is started only where an option is given. Reading
order: `option_table`, `reader`, `solver_options`, `layer_options`, `time_options`,
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
