"""Between states and PETSc's vectors, without copies where the precision allows.

PETSc remembers the norm of a vector and does not see writes through an array or a tensor that
shares its memory: `norm` is then wrong. So all writes go through `assign` or `editing`, which tell
it. PETSc's numbers are double: float32 states are copied, and only where this file says so.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from petsc4py import PETSc

from mgnet import vector

__all__ = ["as_vec", "assign", "copy_of", "editing", "free_dropped", "vec_like", "view"]

State = Any


def vec_like(state: State, comm: Any = PETSc.COMM_SELF) -> PETSc.Vec:
    """A vector of zeros with room for a state: this rank's block, where ranks share the state.

    Parameters
    ----------
    state : array, tensor or Vec
    comm : communicator
        Of the ranks that hold blocks; a Vec keeps its own.

    Examples
    --------
    >>> vec_like(np.ones((2, 3))).getSize()
    6
    """
    if vector.is_vec(state):
        return vector.zeros_like(state)
    return PETSc.Vec().createMPI((math.prod(vector.state_shape(state)), None), comm=comm)


def free_dropped(comm: Any) -> None:
    """Free PETSc's objects that Python has dropped; all ranks of the communicator call it.

    petsc4py puts them aside until then, so that no rank destroys what others still use: a loop
    that never asks keeps every vector of every sweep.

    Parameters
    ----------
    comm : communicator

    Examples
    --------
    >>> free_dropped(PETSc.COMM_SELF)
    """
    PETSc.garbage_cleanup(comm)


def as_vec(state: State, comm: Any = PETSc.COMM_SELF) -> PETSc.Vec:
    """A vector that shares the memory of a state.

    Parameters
    ----------
    state : array or tensor
        float64, contiguous, on the host.
    comm : communicator

    Raises
    ------
    TypeError
        If the memory cannot be shared: `assign(vec_like(state), state)` copies.

    Examples
    --------
    >>> u = np.zeros(3)
    >>> as_vec(u).set(2.0)
    >>> u
    array([2., 2., 2.])
    """
    if vector.is_vec(state):
        return state
    host = not vector.is_tensor(state) or (
        # A conjugate, or the imaginary part of one, has other numbers than its memory.
        state.device.type == "cpu" and not (state.is_conj() or state.is_neg())
    )
    values = vector.as_numpy(state) if host else np.empty(0)
    if values.dtype != PETSc.ScalarType or not values.flags.c_contiguous or not host:
        raise TypeError(
            f"as_vec got a state of {state.dtype}; PETSc shares contiguous {PETSc.ScalarType}"
            " in host memory: copy with assign(vec_like(state), state)"
        )
    return PETSc.Vec().createWithArray(values, size=(values.size, None), comm=comm)


def view(vec: PETSc.Vec, like: State) -> State:
    """The entries as a state, which must not be edited and changes when PETSc changes them.

    Parameters
    ----------
    vec : Vec
    like : state
        Its kind, shape, precision and device are those of the result. float64 on the host shares
        memory, all else is a copy.

    Examples
    --------
    >>> u = np.zeros((1, 2))
    >>> view(as_vec(np.array([3.0, 4.0])), u)
    array([[3., 4.]])
    """
    if vector.is_vec(like):
        return vec
    if vector.is_tensor(like):
        tensor = sys.modules["torch"].from_dlpack(vec.toDLPack("r"))
        return tensor.to(like).reshape(like.shape)
    values = vec.getArray(readonly=True).reshape(like.shape)
    return values.astype(like.dtype, copy=False)


def copy_of(vec: PETSc.Vec, like: State) -> State:
    """The same as a copy: for whoever keeps it, as the memory of a smoother may.

    Examples
    --------
    >>> copy_of(as_vec(np.array([3.0, 4.0])), np.zeros(2, np.float32))
    array([3., 4.], dtype=float32)
    """
    if vector.is_vec(like):
        return vec.copy()
    state = view(vec, like)
    return state.clone() if vector.is_tensor(like) else state.copy()


def assign(vec: PETSc.Vec, state: State) -> None:
    """Copy a state of any precision into a vector.

    Examples
    --------
    >>> v = vec_like(np.zeros(2))
    >>> assign(v, np.array([3.0, 4.0], np.float32))
    >>> v.norm()
    5.0
    """
    if vector.is_vec(state):
        state.copy(vec)
    else:
        vec.setArray(vector.as_numpy(state).ravel())


@contextmanager
def editing(vec: PETSc.Vec, like: State) -> Iterator[State]:
    """A state that shares the vector's memory, to be written to.

    Parameters
    ----------
    vec : Vec
        Also one from `as_vec(like)`: then it is `like` itself that may be edited.
    like : array or tensor
        float64, on the host.

    Examples
    --------
    >>> v = vec_like(np.zeros(2))
    >>> with editing(v, np.zeros(2)) as u:
    ...     u[:] = 3.0, 4.0
    >>> v.norm()
    5.0
    """
    if vector.is_vec(like):
        yield vec
        return
    values = vec.getArray()
    if vector.is_tensor(like):
        values = sys.modules["torch"].from_numpy(values)
    if values.dtype != like.dtype:
        raise TypeError(f"editing got a state of {like.dtype}; a Vec's memory is {values.dtype}")
    try:
        yield values.reshape(like.shape)
    finally:
        vec.stateIncrease()  # else norm() answers with what it was before
