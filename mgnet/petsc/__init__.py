"""mgnet's hierarchies in PETSc's solvers, and PETSc's solvers in mgnet's cycles.

This package contains views shared by PETSc vectors and tensors, the DM that carries a hierarchy,
python types for SNES, KSP and PC, PETSc's solvers as smoothers, and layers or samples distributed
over MPI ranks. No other folder imports petsc4py. `init` and the functions named `..._from_options`
come from `mgnet.options`, which works without petsc4py.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mgnet.options import (
    init,
    layer_parallel_from_options,
    parse_smoother,
    solver_from_options,
    time_parallel_from_options,
)

if TYPE_CHECKING:
    from mgnet.petsc.distributed_least_squares import distribute_samples
    from mgnet.petsc.distribution import (
        distribute,
        distribute_layers,
        distribute_time,
        gather_state,
        load_state,
    )
    from mgnet.petsc.dm import dmshell
    from mgnet.petsc.interruption import resumable_steps
    from mgnet.petsc.knot_pcmg import KnotPCMG
    from mgnet.petsc.ksp_smoother import KSPSmoother
    from mgnet.petsc.python_types import Cycle, Sweeps, separate_smoothers
    from mgnet.petsc.ranked_steps import steps_over_ranks
    from mgnet.petsc.shared_steps import distribute_steps
    from mgnet.petsc.tao_smoother import TAOSmoother

__all__ = [
    "Cycle",
    "KSPSmoother",
    "KnotPCMG",
    "Sweeps",
    "TAOSmoother",
    "distribute",
    "distribute_layers",
    "distribute_samples",
    "distribute_steps",
    "distribute_time",
    "dmshell",
    "gather_state",
    "init",
    "layer_parallel_from_options",
    "load_state",
    "parse_smoother",
    "resumable_steps",
    "separate_smoothers",
    "solver_from_options",
    "steps_over_ranks",
    "time_parallel_from_options",
]

# Imported on first use: importing petsc4py.PETSc starts PETSc, which must happen after `init`.
_LATER = {
    "Cycle": "mgnet.petsc.python_types",
    "KSPSmoother": "mgnet.petsc.ksp_smoother",
    "KnotPCMG": "mgnet.petsc.knot_pcmg",
    "TAOSmoother": "mgnet.petsc.tao_smoother",
    "Sweeps": "mgnet.petsc.python_types",
    "distribute": "mgnet.petsc.distribution",
    "distribute_layers": "mgnet.petsc.distribution",
    "distribute_samples": "mgnet.petsc.distributed_least_squares",
    "distribute_steps": "mgnet.petsc.shared_steps",
    "distribute_time": "mgnet.petsc.distribution",
    "dmshell": "mgnet.petsc.dm",
    "gather_state": "mgnet.petsc.distribution",
    "load_state": "mgnet.petsc.distribution",
    "resumable_steps": "mgnet.petsc.interruption",
    "separate_smoothers": "mgnet.petsc.python_types",
    "steps_over_ranks": "mgnet.petsc.ranked_steps",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'mgnet.petsc' has no attribute '{name}'")
    return getattr(import_module(_LATER[name]), name)
