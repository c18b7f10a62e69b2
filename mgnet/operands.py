"""Convert a user's right-hand side and initial state to states that the levels can compute with.

The precision is that of NumPy's promotion, `np.result_type(A, f, u)`, and at least float64 for
integers. Arguments that already fit are passed on unchanged.
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from mgnet import mats, vector
from mgnet.norms import unknown

if TYPE_CHECKING:
    from mgnet.hierarchy import Hierarchy

__all__ = ["operands"]

State = Any


def operands(
    caller: str, hierarchy: Hierarchy, f: Any, u: Any
) -> tuple[State | None, State | None, tuple[int, ...]]:
    """Convert f and u to the shape and precision of the levels.

    Parameters
    ----------
    caller : str
        Name of the caller in messages.
    hierarchy : Hierarchy
        Hierarchy of the solve.
    f, u : array-like, tensor, Vec or None
        Right-hand side and initial state. If level 0 has a matrix of size n, shapes (n,) and (n, 1)
        are allowed.

    Returns
    -------
    f, u : state or None
        Converted arguments.
    shape : tuple of int
        The given shape, which is also that of the solution.

    Raises
    ------
    TypeError, ValueError
        If they do not fit level 0 or each other.

    Examples
    --------
    >>> from mgnet import gallery
    >>> f, u, shape = operands("solve", gallery.poisson(3), np.ones((3, 1), np.float32), None)
    >>> f, u, shape
    (array([1., 1., 1.]), None, (3, 1))
    """
    given = {"f": _as_state(f, f"{caller} got f"), "u": _as_state(u, f"{caller} got u")}
    given = {name: state for name, state in given.items() if state is not None}
    if not given:
        raise ValueError(
            f"{caller} got neither f nor u; give at least one, for the shape of a state"
        )
    if len(given) == 2 and not vector.same_kind(*given.values()):
        raise TypeError(
            f"{caller} got f of type {type(f).__name__} and u of type {type(u).__name__}; "
            "give both of one kind"
        )
    given = _promoted(hierarchy, given)
    for name, state in given.items():
        _check(f"{caller} got {name}", name, hierarchy, state)
    shapes = [vector.state_shape(state) for state in given.values()]
    if shapes[0] != shapes[-1]:
        raise ValueError(
            f"{caller} got f of shape {shapes[0]} and u of shape {shapes[-1]}; they must be equal"
        )
    if hierarchy[0].matrix is not None and len(shapes[0]) > 1:
        given = {name: state.reshape(-1) for name, state in given.items()}
    return given.get("f"), given.get("u"), shapes[0]


def _as_state(given: Any, got: str) -> State | None:
    """A contiguous array in native byte order, a tensor, a Vec, or None."""
    if given is None or vector.is_tensor(given) or vector.is_vec(given):
        return given
    if sp.issparse(given):
        raise TypeError(
            f"{got} as a sparse {type(given).__name__} of shape {given.shape}; give a dense array, "
            "with .toarray().ravel()"
        )
    if np.ma.is_masked(given):
        raise ValueError(
            f"{got} with masked entries, but each row of the matrix needs its entry; fill them, "
            "with .filled(...), or remove their rows from the matrix"
        )
    if type(given) is not np.ndarray:
        if not isinstance(given, np.ndarray | list | tuple) and not hasattr(given, "__array__"):
            raise unknown(given)
        try:
            given = np.asarray(given)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"{got} of type {type(given).__name__}, which is not an array of numbers: {error}; "
                "give a NumPy array"
            ) from None
    if given.ndim == 0:
        raise ValueError(f"{got} as a single number; give one for every unknown, in an array")
    if given.dtype.kind in "iub":
        return given.astype(float)
    if given.dtype.isnative and given.flags.c_contiguous and given.flags.aligned:
        return given
    # BLAS may require alignment.
    return np.require(given, given.dtype.newbyteorder("="), ["C", "A"])


def _promoted(hierarchy: Hierarchy, given: dict[str, State]) -> dict[str, State]:
    """The arguments in the precision that NumPy or torch gives for matrix, f and u."""
    states = list(given.values())
    if vector.is_vec(states[0]):
        return given
    if vector.is_tensor(states[0]):
        kind = sys.modules["torch"].promote_types(states[0].dtype, states[-1].dtype)
        return {name: state.to(kind) for name, state in given.items()}
    kinds = [state.dtype for state in states]
    if any(kind.kind not in "fc" for kind in kinds):
        return given  # refused later
    own = getattr(hierarchy[0].matrix, "dtype", None)
    dtype = np.result_type(*kinds, *([own] if isinstance(own, np.dtype) else []))
    if dtype.kind != "c" and any(map(_is_complex, hierarchy)):
        dtype = np.result_type(dtype, np.complex64)
    return {name: state.astype(dtype, copy=False) for name, state in given.items()}


def _is_complex(level: Any) -> bool:
    parts = [level.matrix, *(getattr(level.transfer, name, None) for name in ("P", "R"))]
    return any(getattr(getattr(part, "dtype", None), "kind", "") == "c" for part in parts)


def _check(got: str, name: str, hierarchy: Hierarchy, state: State) -> None:
    level, shape = hierarchy[0], vector.state_shape(state)
    if not vector.computes(state):
        raise TypeError(
            f"{got} of {state.dtype}; give float64 or float32 (or complex), "
            f"such as {name}.{'double()' if vector.is_tensor(state) else 'astype(float)'}"
        )
    if not vector.multiplies(level.matrix, state):
        raise TypeError(
            f"{got} as {vector.describe(state)}, but the matrix of level 0 is "
            f"{vector.describe(level.matrix)}; give both of one kind and precision, on one device"
        )
    if level.unknowns and math.prod(shape) != level.unknowns:
        several = len(shape) == 2 and shape[0] == level.unknowns and level.matrix is not None
        one = f"; give one right-hand side at a time, such as {name}[:, 0]" * several
        raise ValueError(
            f"{got} with {math.prod(shape)} entries; level 0 has {level.unknowns} unknowns{one}"
        )
    if vector.is_mat(level.matrix) and not vector.is_vec(state):
        raise TypeError(
            f"{got} as {vector.describe(state)}, but the matrix of level 0 is a PETSc Mat; give a "
            "Vec, from createVecRight() of the matrix"
        )
    mats.refuse_layout(level.matrix, state, got)
    if level.matrix is not None and shape not in ((level.unknowns,), (level.unknowns, 1)):
        raise ValueError(
            f"{got} of shape {shape}, but level 0 has a matrix for {level.unknowns} unknowns; give "
            f"the shape ({level.unknowns},), with {name}.ravel()"
        )
