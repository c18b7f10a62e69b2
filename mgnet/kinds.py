"""Which library a state or a matrix belongs to, asked without importing any: `sys.modules` has it.

Where a tensor or a Vec comes in, its library is loaded already.
"""

import sys
from typing import Any

__all__ = ["is_mat", "is_tensor", "is_vec"]


def _is(module: str, kind: str, u: Any) -> bool:
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(u, getattr(loaded, kind))


def is_tensor(u: Any) -> bool:
    """Whether `u` is a torch tensor.

    Examples
    --------
    >>> is_tensor([1.0])
    False
    """
    return _is("torch", "Tensor", u)


def is_vec(u: Any) -> bool:
    """Whether `u` is a PETSc Vec.

    Examples
    --------
    >>> is_vec([1.0])
    False
    """
    return _is("petsc4py.PETSc", "Vec", u)


def is_mat(matrix: Any) -> bool:
    """Whether `matrix` is a PETSc Mat.

    Examples
    --------
    >>> is_mat([[1.0]])
    False
    """
    return _is("petsc4py.PETSc", "Mat", matrix)
