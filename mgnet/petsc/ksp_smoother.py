"""Any KSP with any PC as a smoother or as the coarse solver."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from petsc4py import PETSc

from mgnet import Smoother
from mgnet.norms import binary_exponent, norm, times_power_of_two
from mgnet.options.petsc_names import is_used, nearest, note_prefix
from mgnet.petsc.matrices import as_mat, fill
from mgnet.petsc.petsc_errors import original_errors
from mgnet.petsc.vectors import assign, copy_of, free_dropped, vec_like

if TYPE_CHECKING:
    from mgnet.level import Level

__all__ = ["KSPSmoother", "with_options"]

State = Any


# An option for PCMG's smoothers on all levels or on one level, but not for those that are used only
# after the coarse correction.
DOWN = re.compile(r"(mg_levels_(?:\d+_)?)(?!up_)(\w+)")

# On coarser levels these keep eigenvalues and aggregates of an earlier matrix (seen with 3.18), so
# they are created again for each Jacobian.
LEVELS = ("gamg", "mg", "ml", "hypre")


@contextmanager
def with_options(prefix: str, options: Mapping[str, Any]) -> Iterator[None]:
    """Set options in PETSc's database unless the command line sets them; remove them afterwards.

    The body must set up a solver completely, because the options of its parts (blocks, levels) are
    read late. A warning lists option names that PETSc has not read by then and that do not exist in
    PETSc.

    Examples
    --------
    >>> with with_options("x_", {"ksp_type": "cg"}):
    ...     PETSc.Options("x_").getString("ksp_type")
    'cg'
    >>> PETSc.Options("x_").hasName("ksp_type")
    False
    """
    database = PETSc.Options(prefix)
    note_prefix(prefix)
    options = dict(options) | _up_as_down(database, options)
    ours = {name: value for name, value in options.items() if not database.hasName(name)}
    for name, value in ours.items():
        database.setValue(name, "" if value is None else value)
    try:
        yield
        _warn_of_unread(prefix, ours)
    finally:
        for name in ours:
            database.delValue(name)


def _up_as_down(database: PETSc.Options, options: Mapping[str, Any]) -> dict[str, Any]:
    """With `-pc_mg_distinct_smoothup`, copy the down-smoothers to the up-smoothers by default.

    PETSc uses Chebyshev with SOR for every setting that `-mg_levels_up_` does not give, regardless
    of `-mg_levels_` (seen with 3.18).
    """
    given = dict(options) | database.getAll()
    if "pc_mg_distinct_smoothup" not in given:
        return {}
    found = ((DOWN.fullmatch(name), value) for name, value in given.items())
    up = {f"{match[1]}up_{match[2]}": value for match, value in found if match}
    return {name: value for name, value in up.items() if name not in given}


def _warn_of_unread(prefix: str, names: Iterable[str]) -> None:
    for name in names:
        meant = nearest(name)
        if meant != name and not is_used(PETSc, f"{prefix}{name}"):
            hint = "" if meant is None else f"; the nearest is '{meant}'"
            told = f"options of '{prefix}' have '{name}', which PETSc does not read here{hint}"
            warnings.warn(told, stacklevel=4)


@contextmanager
def _in_range(ksp: PETSc.KSP, b: PETSc.Vec, d: PETSc.Vec) -> Iterator[None]:
    """Scale a right-hand side whose squared norm would overflow or underflow, and scale back.

    The factor is a power of two, so scaling is exact. PETSc's absolute tolerance of 1e-50 is meant
    for numbers of magnitude one; any other absolute tolerance is scaled, too.
    """
    size = norm(b)
    if size == 0.0 or 1e-30 <= size <= 1e140 or not math.isfinite(size):
        yield
        return
    exponent, (_, atol, _, _) = binary_exponent(size), ksp.getTolerances()
    times_power_of_two(b, -exponent).copy(b)
    ksp.setTolerances(atol=atol if atol == 1e-50 else atol / size)
    try:
        yield
    finally:
        ksp.setTolerances(atol=atol)
    times_power_of_two(d, exponent).copy(d)


@dataclass(frozen=True, eq=False)
class KSPSmoother(Smoother):
    """Sweeps of PETSc's KSP: each solves `J d = f - A(u)` and adds d to u.

    On a nonlinear level, J is the Jacobian at the current u.

    Parameters
    ----------
    prefix : str
        Prefix of the options for the KSP: `-smoother_ksp_type cg -smoother_pc_type icc`.
    options : mapping, optional
        Options set by the script, without the prefix: `{"ksp_type": "cg"}`; the command line takes
        precedence. PETSc's defaults are gmres with ilu and a relative residual of 1e-5.

    Examples
    --------
    >>> from mgnet import Solver, gallery
    >>> lu = KSPSmoother("coarse_", {"ksp_type": "preonly", "pc_type": "lu"})
    >>> relax = KSPSmoother("relax_", {"ksp_type": "richardson", "pc_type": "sor",
    ...                                "ksp_max_it": 1})
    >>> hierarchy = gallery.poisson((31, 31), smoother=relax, coarse_solver=lu)
    >>> Solver(hierarchy).solve(gallery.sine((31, 31))[1]).reason.name
    'RTOL'
    """

    prefix: str = "smoother_"
    options: Mapping[str, Any] = field(default_factory=dict)
    fixed_work: ClassVar[bool] = False

    def start(self, level: Level, u: State) -> Any:
        b = vec_like(u)
        return *self._solver(level.jacobian(u), u, b.getComm()), b, b.duplicate()

    def _solver(self, jacobian: Any, u: State, comm: Any) -> tuple[PETSc.KSP, PETSc.Mat]:
        ksp, mat = PETSc.KSP().create(comm), as_mat(jacobian, u, comm)
        ksp.setOperators(mat)
        ksp.setOptionsPrefix(self.prefix)
        with with_options(self.prefix, self.options), original_errors(ksp):
            ksp.setFromOptions()
            ksp.setUp()  # this reads the options of inner solvers, such as sub_pc_type
        return ksp, mat

    def smooth(
        self, level: Level, u: State, f: State | None, sweeps: int, memory: Any
    ) -> tuple[State, Any]:
        ksp, mat, b, d = memory
        free_dropped(b.getComm())
        for _ in range(sweeps):
            assign(b, level.residual_at(u, f))
            if level.linearize is not None and ksp.getPC().getType() in LEVELS:
                ksp, mat = self._solver(level.linearize(u), u, b.getComm())
            elif level.linearize is not None:
                fill(mat, level.linearize(u))
                ksp.setOperators(mat)
            with original_errors(ksp), _in_range(ksp, b, d):
                ksp.solve(b, d)
                if ksp.getConvergedReason() == PETSc.KSP.ConvergedReason.DIVERGED_NANORINF:
                    raise FloatingPointError(
                        f"{self} on {level}: PETSc met a norm that is not finite (NaN or Inf)"
                    )
            level.charge(float(ksp.getIterationNumber()))
            u = u + copy_of(d, u)
        return u, (ksp, mat, b, d)

    def __str__(self) -> str:
        return f"KSPSmoother({self.prefix!r})"
