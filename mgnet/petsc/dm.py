"""A hierarchy as a PETSc DM, on which `-pc_type mg`, `-snes_type fas` and their options work.

PETSc requests vectors, matrices and coarser DMs from a DM, and it calls back for functions,
Jacobians and transfers. Callbacks find their level through the DM of the calling solver, not
through a closure, because PETSc copies them from the finest DM to the others. PETSc numbers levels
from the coarsest, mgnet from the finest; only `petsc_level` converts.

Levels whose transfer can `replace` (those of MGRIT) recognize their states, which saves work and
avoids rounding. PETSc passes numbers, not objects, so the DMs store the latest state of each level;
code that reads a Vec with the same numbers gets that object (`Place.found`).
"""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import scipy.sparse as sp
from petsc4py import PETSc

from mgnet import Hierarchy, Level, MatrixTransfer, mats, vector
from mgnet.petsc.matrices import Operator, aij, as_mat, fill, python_mat
from mgnet.petsc.vectors import assign, vec_like, view

__all__ = ["Place", "dmshell", "petsc_level", "place_of"]

State = Any
ATTRIBUTE = "mgnet"  # not the application context, which DMCoarsen overwrites


def _end() -> None:
    """At exit, destroy solvers to which a script, a module or a callback still holds references.

    PETSc would destroy them after Python has ended, and the Python objects inside would then cause
    a segmentation fault (seen with 3.18 and 3.26). Solvers interrupted by an error cannot be
    destroyed at all; one more reference prevents PETSc from trying.
    """
    failed = getattr(sys, "last_traceback", None)
    kinds = (PETSc.KSP, PETSc.SNES, PETSc.PC, PETSc.DM)
    for value in [each for each in gc.get_objects() if issubclass(type(each), kinds)]:
        value.incRef() if failed else value.destroy()
    PETSc.garbage_cleanup()


atexit.register(_end)


@dataclass(frozen=True, eq=False)
class Place:
    """One level of a hierarchy, as stored in its DM.

    Parameters
    ----------
    hierarchy : Hierarchy
        The levels.
    number : int
        Number of the level; 0 is the finest.
    samples : tuple of state
        One state per level, which defines the kind, shape and precision of its states.
    comm : communicator
        The communicator of the ranks that hold blocks of a state.
    last : list of state
        The latest state of each level, where it is needed; shared by all DMs of the hierarchy.

    Examples
    --------
    >>> from mgnet import gallery
    >>> place_of(dmshell(gallery.poisson(7))).level.unknowns
    7
    """

    hierarchy: Hierarchy
    number: int
    samples: tuple[State, ...]
    comm: Any
    last: list[State]

    @property
    def level(self) -> Level:
        """The mgnet level that belongs to this DM."""
        return self.hierarchy[self.number]

    @property
    def sample(self) -> State:
        """A zero state of this level."""
        return self.samples[self.number]

    def matrix(self, u: State | None = None) -> Any:
        """The matrix of a linear level, or the Jacobian at u."""
        return self.level.jacobian(self.sample if u is None else u)

    def leave(self, u: State) -> None:
        """Store a state whose numbers are copied to a Vec of this level; it must not be edited."""
        if any(_replaces(level) for level in self.hierarchy):
            self.last[self.number] = u

    def found(self, u: State) -> State:
        """Return the stored state if it has the same numbers as `u`, else `u`."""
        last = self.last[self.number]
        return last if last is not None and _equal(last, u) else u


def petsc_level(number: int, levels: int) -> int:
    """Convert a level number of mgnet to PETSc's numbering, or the other way around.

    Examples
    --------
    >>> petsc_level(0, 4), petsc_level(3, 4)
    (3, 0)
    """
    return levels - 1 - number


def dmshell(hierarchy: Hierarchy, u: State | None = None, comm: Any = None) -> PETSc.DM:
    """Create a DM for `ksp.setDM` or `snes.setDM`, with which PETSc's multigrid solves `A(u) = f`.

    With KSP and `-pc_type mg`, the levels must be linear. SNES gets the function A, so `f` is the
    right-hand side in `snes.solve(f, u)`, and the Jacobian `level.jacobian` if one is needed.
    PETSc's multigrid supports neither line searches nor recentered levels; use
    `mgnet.petsc.Cycle` for them.

    Parameters
    ----------
    hierarchy : Hierarchy
        The levels, whose states are arrays, tensors (of any precision and shape) or Vecs.
    u : state of level 0, optional
        A state that defines kind and shape; by default a flat float64 array, or a Vec if level 0
        has a Mat.
    comm : communicator, optional
        The communicator of the ranks that hold blocks of a state; by default that of the Vecs, or
        else one that contains only this rank.

    Returns
    -------
    PETSc.DM
        A shell DM of the finest level; the coarser ones are created on demand.

    Raises
    ------
    ValueError
        If `u` is not given and level 0 does not determine the number of unknowns.

    Examples
    --------
    >>> from mgnet import gallery
    >>> ksp = PETSc.KSP().create(PETSc.COMM_SELF)
    >>> ksp.setDM(dmshell(gallery.poisson(127)))
    >>> ksp.setType("cg")
    >>> ksp.getPC().setType("mg")
    >>> ksp.getPC().setMGLevels(4)
    >>> ksp.setFromOptions()
    >>> x, f = ksp.getDM().createGlobalVec(), ksp.getDM().createGlobalVec()
    >>> f.set(1.0 / 128)
    >>> ksp.solve(f, x)
    >>> ksp.getConvergedReason() > 0
    True
    """
    finest = hierarchy[0]
    if u is None and vector.is_mat(finest.matrix):
        u = vector.zeros_like(finest.matrix.createVecRight())
    elif u is None:
        if not finest.unknowns:
            raise ValueError("dmshell needs a state u: level 0 does not say how many unknowns")
        u = np.zeros(finest.unknowns)
    samples = [vector.zeros_like(u)]
    for level in hierarchy[:-1]:
        transfer: Any = level.transfer
        down = transfer.restrict if transfer.inject is None else transfer.inject
        samples.append(vector.zeros_like(down(samples[-1])))
    if comm is None:
        comm = samples[0].getComm() if vector.is_vec(samples[0]) else PETSc.COMM_SELF
    return _shell(Place(hierarchy, 0, tuple(samples), comm, [None] * len(samples)))


def place_of(dm: PETSc.DM) -> Place:
    """Return the level that belongs to a DM.

    Raises
    ------
    ValueError
        If the DM was not made by `dmshell`.
    """
    place = dm.getAttr(ATTRIBUTE) if dm else None
    if place is None:
        raise ValueError(
            "mgnet's python types need a hierarchy, but this solver's DM has none; call "
            "setDM(mgnet.petsc.dmshell(hierarchy)) first"
        )
    return place


def _shell(place: Place) -> PETSc.DM:
    dm = PETSc.DMShell().create(comm=place.comm)
    dm.setAttr(ATTRIBUTE, place)
    dm.setCreateGlobalVector(_create_vector)
    dm.setCreateMatrix(_create_matrix)
    dm.setCoarsen(_coarsen)
    dm.setRefine(_refine)
    dm.setCreateInterpolation(_interpolation)
    dm.setCreateRestriction(_restriction)
    dm.setCreateInjection(_injection)
    if place.level.matrix is not None:
        dm.setKSPComputeOperators(_operators)
    dm.setSNESFunction(_function)
    dm.setSNESJacobian(_jacobian)
    return dm


def _create_vector(dm: PETSc.DM) -> PETSc.Vec:
    place = place_of(dm)
    vec = vec_like(place.sample, place.comm)
    vec.setDM(dm)
    return vec


def _create_matrix(dm: PETSc.DM) -> PETSc.Mat:
    place = place_of(dm)
    return as_mat(place.matrix(), place.sample, place.comm)


def _coarsen(dm: PETSc.DM, comm: Any) -> PETSc.DM:
    place = place_of(dm)
    levels, number = place.hierarchy, place.number + 1
    if number == len(levels):
        raise ValueError(
            f"PETSc asks for a level below the {len(levels)} of this hierarchy; "
            f"give -pc_mg_levels or -snes_fas_levels of at most {len(levels)}"
        )
    if place.level.recenter is not None or place.level.line_search is not None:
        raise ValueError(
            f"{place.level} has a line search or recenters its coarse level, which PETSc's "
            "multigrid does not support; run mgnet's cycle under PETSc: mgnet.petsc.Cycle"
        )
    return _shell(replace(place, number=number))


def _refine(dm: PETSc.DM, comm: Any) -> PETSc.DM:
    place = place_of(dm)
    if place.number == 0:
        raise ValueError("PETSc asks for a level above the finest of this hierarchy")
    return _shell(replace(place, number=place.number - 1))


def _pair(first: PETSc.DM, second: PETSc.DM) -> tuple[Place, Place]:
    """The fine and the coarse level; versions of PETSc differ in the order of the arguments."""
    a, b = place_of(first), place_of(second)
    return (a, b) if a.number < b.number else (b, a)


def _mat(fine: Place, matrix: Any, function: Callable, transpose: Callable, up: bool) -> PETSc.Mat:
    if sp.issparse(matrix) and fine.comm.getSize() == 1:
        return aij(matrix)
    if vector.is_mat(matrix):
        return matrix
    u, v = fine.sample, fine.samples[fine.number + 1]
    pair = (v, u) if up else (u, v)
    return python_mat(Operator(function, *pair, transpose), fine.comm)


def _interpolation(first: PETSc.DM, second: PETSc.DM) -> tuple[PETSc.Mat, PETSc.Vec]:
    fine, coarse = _pair(first, second)
    transfer: Any = fine.level.transfer
    matrix = transfer.P if isinstance(transfer, MatrixTransfer) else None
    if _replaces(fine.level):
        mat = python_mat(_Replacement(fine, coarse), fine.comm)
    else:
        mat = _mat(fine, matrix, transfer.prolong, transfer.restrict, up=True)
    # Without a scaling, PETSc 3.18 gives coarse vectors the fine size.
    scale = vec_like(coarse.sample, coarse.comm)
    scale.set(1.0)
    return mat, scale


def _restriction(first: PETSc.DM, second: PETSc.DM) -> PETSc.Mat:
    fine, _ = _pair(first, second)
    transfer: Any = fine.level.transfer
    matrix = None
    if isinstance(transfer, MatrixTransfer):
        matrix = transfer.R
        if matrix is None and sp.issparse(transfer.P):
            matrix = transfer.P.T
        elif matrix is None and vector.is_mat(transfer.P):
            matrix = mats.transposed(transfer.P)
    return _mat(fine, matrix, transfer.restrict, transfer.prolong, up=False)


def _injection(first: PETSc.DM, second: PETSc.DM) -> PETSc.Mat:
    fine, coarse = _pair(first, second)
    transfer: Any = fine.level.transfer
    inject, matrix = transfer.inject, None
    if isinstance(transfer, MatrixTransfer):
        matrix = transfer.injection
    if _replaces(fine.level):
        inject = partial(_carry_down, fine, coarse)
    elif inject is None:  # no state is restricted: the coarse level solves for the correction
        zero = vector.zeros_like(coarse.sample)
        inject = partial(_zero, zero)
    return _mat(fine, matrix, inject, _no_transpose, up=False)


def _carry_down(fine: Place, coarse: Place, u: State) -> State:
    transfer: Any = fine.level.transfer
    known = fine.found(u)
    v = transfer.inject(known)
    if known is not u:  # otherwise v may share memory with a Vec, which PETSc changes
        coarse.leave(v)
    return v


class _Replacement:
    """Interpolation for levels on which a correction replaces the corrected points.

    PETSc computes w - v and adds P (w - v) to u, and both operations round. If w is the state that
    mgnet's smoother left on the coarse level, its points are copied without rounding, as in `run`.
    """

    def __init__(self, fine: Place, coarse: Place):
        self.fine = fine
        self.coarse = coarse
        transfer: Any = fine.level.transfer
        pair = coarse.sample, fine.sample
        self.argument, self.result = pair
        self.plain = Operator(transfer.prolong, *pair, transfer.restrict)

    def mult(self, mat: PETSc.Mat, x: PETSc.Vec, y: PETSc.Vec) -> None:
        self.plain.mult(mat, x, y)

    def multTranspose(  # noqa: N802, PETSc's name
        self, mat: PETSc.Mat, x: PETSc.Vec, y: PETSc.Vec
    ) -> None:
        self.plain.multTranspose(mat, x, y)

    def multAdd(  # noqa: N802, PETSc's name
        self, mat: PETSc.Mat, x: PETSc.Vec, v: PETSc.Vec, y: PETSc.Vec
    ) -> None:
        transfer: Any = self.fine.level.transfer
        u = self.fine.found(view(v, self.result))
        solved = self.coarse.last[self.coarse.number]
        correction = view(x, self.argument)
        if solved is None or not _equal(solved - transfer.inject(u), correction):
            self.plain.multAdd(mat, x, v, y)
            return
        new = transfer.replace(u, solved)
        self.fine.leave(new)
        assign(y, new)


def _replaces(level: Level) -> bool:
    return level.transfer is not None and level.transfer.replace is not None


def _equal(u: State, v: State) -> bool:
    return np.array_equal(vector.as_numpy(u), vector.as_numpy(v))


def _zero(zero: State, u: State) -> State:
    return zero


def _no_transpose(u: State) -> State:
    raise TypeError("PETSc asked for the transpose of an injection, which mgnet does not define")


def _operators(ksp: PETSc.KSP, A: PETSc.Mat, P: PETSc.Mat) -> None:
    matrix = place_of(ksp.getDM()).matrix()
    for mat in (A,) if A == P else (A, P):
        fill(mat, matrix)


def _function(snes: PETSc.SNES, x: PETSc.Vec, F: PETSc.Vec) -> None:
    place = place_of(snes.getDM())
    assign(F, place.level.apply(place.found(view(x, place.sample))))


def _jacobian(snes: PETSc.SNES, x: PETSc.Vec, J: PETSc.Mat, P: PETSc.Mat) -> None:
    place = place_of(snes.getDM())
    matrix = place.matrix(view(x, place.sample))
    for mat in (J,) if J == P else (J, P):
        fill(mat, matrix)
