"""Options of PETSc that nothing has read, usually misspelled, and the names that were meant.

PETSc (3.18) ignores them silently unless `-options_left` is given, and then solves with methods
other than those the user expects.
"""

from __future__ import annotations

import ctypes
import difflib
import re
import sys
from typing import Any

__all__ = ["is_used", "nearest", "note_prefix", "unused"]

# PETSc reads these when it ends, after mgnet's check.
LAST = {"citations", "get_total_flops", "mpidump", "nox", "options_left", "options_view"}
# Frequently used names, without the prefixes of multigrid levels and preconditioner blocks.
NAMES = """
ksp_type ksp_rtol ksp_atol ksp_divtol ksp_max_it ksp_monitor ksp_monitor_true_residual ksp_view
ksp_converged_reason ksp_norm_type ksp_pc_side ksp_initial_guess_nonzero ksp_gmres_restart
ksp_richardson_scale ksp_error_if_not_converged ksp_converged_use_initial_residual_norm
ksp_chebyshev_esteig ksp_chebyshev_eigenvalues ksp_chebyshev_esteig_steps ksp_chebyshev_kind
ksp_reuse_preconditioner ksp_lag_norm pc_type pc_sor_omega pc_sor_its pc_sor_lits pc_sor_symmetric
pc_sor_forward pc_sor_backward pc_jacobi_type pc_bjacobi_blocks pc_asm_overlap pc_asm_type
pc_asm_blocks pc_factor_levels pc_factor_mat_solver_type pc_factor_mat_ordering_type
pc_factor_shift_type pc_factor_shift_amount pc_factor_fill pc_mg_levels pc_mg_type
pc_mg_cycle_type pc_mg_galerkin pc_mg_distinct_smoothup pc_mg_multiplicative_cycles
pc_mg_log pc_gamg_type pc_gamg_threshold pc_gamg_agg_nsmooths pc_gamg_coarse_eq_limit
pc_hypre_type pc_hypre_boomeramg_strong_threshold pc_fieldsplit_type pc_fieldsplit_block_size
pc_fieldsplit_schur_fact_type pc_fieldsplit_schur_precondition pc_python_type pc_use_amat
pc_redundant_number pc_telescope_reduction_factor snes_type snes_rtol snes_atol snes_stol
snes_max_it snes_max_funcs snes_monitor snes_view snes_converged_reason snes_linesearch_type
snes_linesearch_damping snes_lag_jacobian snes_lag_preconditioner snes_mf snes_mf_operator snes_fd
snes_fas_levels snes_fas_type snes_fas_cycles snes_fas_smoothup snes_fas_smoothdown
snes_fas_galerkin snes_ngmres_m snes_anderson_m snes_npc_side snes_python_type snes_test_jacobian
snes_error_if_not_converged tao_type tao_gatol tao_grtol tao_gttol tao_max_it tao_max_funcs
tao_monitor tao_view tao_converged_reason tao_ls_type tao_lmvm_mat_lmvm_hist_size mat_type vec_type
dm_view dm_mat_type da_refine da_grid_x da_grid_y da_grid_z log_view options_left options_view
options_file options_file_yaml malloc_debug malloc_dump info memory_view fp_trap citations
""".split()
INNER = re.compile(
    r"(mg_(?:levels|coarse)_(?:up_)?|(?:fas_)?(?:up_)?levels_\d+_|sub_|npc_|esteig_)"
)
_prefixes: set[str] = set()


def note_prefix(prefix: str) -> None:
    """Remember the prefix of a solver, to tell a misspelled prefix from a misspelled name."""
    _prefixes.add(prefix)


def unused() -> list[str]:
    """Names, without the dash, of PETSc's options that nothing has read so far.

    The list is empty if PETSc is not running.
    """
    petsc: Any = sys.modules.get("petsc4py.PETSc")
    names = [] if petsc is None else petsc.Options().getAll()
    return [each for each in names if each not in LAST and "mgnet_" not in each.lower()
            and not is_used(petsc, each)]  # fmt: skip


def is_used(petsc: Any, name: str) -> bool:
    """Whether some object has read this option of PETSc.

    petsc4py 3.18 has no function for this, but the PETSc library that it contains has one.
    """
    database = petsc.Options()
    if hasattr(database, "used"):
        return bool(database.used(name))
    found = ctypes.c_int(1)
    try:
        ask = ctypes.CDLL(petsc.__file__).PetscOptionsUsed
    except (AttributeError, OSError):  # a build that hides the symbol: nothing is reported
        return True
    ask(None, name.encode(), ctypes.byref(found))
    return bool(found.value)


def nearest(name: str) -> str | None:
    """Return the name that was probably meant, possibly `name` itself, or None if none is similar.

    Examples
    --------
    >>> nearest("ksp_typ"), nearest("mg_levels_2_pc_tipe"), nearest("my_own_number")
    ('ksp_type', 'mg_levels_2_pc_type', None)
    """
    ends = [0, *(place + 1 for place, letter in enumerate(name) if letter == "_")]
    for start in ends:
        if name[start:] in NAMES:  # then the prefix may be wrong
            return _with_prefix(name[:start], name[start:]) or name
    for start in ends:
        if close := difflib.get_close_matches(name[start:], NAMES, n=1, cutoff=0.84):
            return name[:start] + close[0]
    return None


def _with_prefix(prefix: str, end: str) -> str | None:
    """Return the option under the most similar prefix in use, or None if there is none."""
    outer = INNER.split(prefix)[0]
    if not outer or outer in _prefixes:
        return None
    close = difflib.get_close_matches(outer, sorted(_prefixes), n=1, cutoff=0.6)
    return close[0] + prefix[len(outer) :] + end if close else None
