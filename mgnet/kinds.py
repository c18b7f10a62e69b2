"""Find out which library a state or a matrix belongs to, without importing any library.

If a tensor or a Vec is passed in, its library is already loaded and in `sys.modules`.
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
