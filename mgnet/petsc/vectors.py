"""Conversion between states and PETSc's vectors, without copies if the precision allows.

PETSc caches the norm of a vector and does not detect writes through an array or a tensor that
shares its memory, so `norm` would then be wrong. All writes therefore go through `assign` or
`editing`, which notify PETSc. PETSc works in double precision, so float32 states are copied; only
this file makes copies.
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
    """A zero vector for a state, or for this rank's block of it if several ranks share the state.

    Parameters
    ----------
    state : array, tensor or Vec
        The state that determines the number of entries.
    comm : communicator
        The communicator of the ranks that hold blocks; a Vec keeps its own.

    Examples
    --------
    >>> vec_like(np.ones((2, 3))).getSize()
    6
    """
    if vector.is_vec(state):
        return vector.zeros_like(state)
    return PETSc.Vec().createMPI((math.prod(vector.state_shape(state)), None), comm=comm)


def free_dropped(comm: Any) -> None:
    """Free PETSc objects that Python has dropped; all ranks of the communicator must call this.

    Until then, petsc4py keeps them, so that no rank destroys an object that others still use.
    Without this call, a loop would keep every vector of every sweep.

    Parameters
    ----------
    comm : communicator
        The communicator of the objects.

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
        A float64 state, contiguous and in host memory.
    comm : communicator
        The communicator of the ranks that hold blocks.

    Raises
    ------
    TypeError
        If the memory cannot be shared; `assign(vec_like(state), state)` makes a copy.

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
        # The memory of a conjugate, or of its imaginary part, does not contain its values.
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
    """The entries as a state, which must not be edited and changes when PETSc changes the vector.

    Parameters
    ----------
    vec : Vec
        The vector.
    like : state
        A state with the kind, shape, precision and device of the result. A float64 state in host
        memory shares the memory of the vector; any other state is a copy.

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
    """Copy a Vec to a state, for callers that keep it, such as the memory of a smoother.

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
    """A state that shares the vector's memory and may be written to.

    Parameters
    ----------
    vec : Vec
        The vector, for example one from `as_vec(like)`; then `like` itself may be edited.
    like : array or tensor
        A float64 state in host memory.

    Raises
    ------
    TypeError
        If the precision of `like` is not that of PETSc.

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
        vec.stateIncrease()  # otherwise norm() returns the cached value
