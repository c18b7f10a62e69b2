"""Turns PETSc's errors into the Python errors that caused them, and handles what is left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from petsc4py import PETSc

__all__ = ["original_errors"]


@contextmanager
def original_errors(*solvers: Any) -> Iterator[None]:
    """Raise the error of a callback, which newer versions of petsc4py hide behind another error.

    Parameters
    ----------
    solvers : KSP, TAO, ...
        The solvers that were running. PETSc 3.18 cannot destroy a solver that an error has
        interrupted (the process would end with a segmentation fault), so references to them are
        kept.

    Examples
    --------
    >>> with original_errors():
    ...     raise PETSc.Error(101) from KeyError("of a callback")
    Traceback (most recent call last):
    KeyError: 'of a callback'
    """
    try:
        yield
    except BaseException as error:
        for solver in solvers:
            solver.incRef()
        if not isinstance(error, PETSc.Error) or error.__cause__ is None:
            raise
        raise error.__cause__ from None
