"""PETSc's errors as the Python errors behind them, and what they leave."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from petsc4py import PETSc

__all__ = ["original_errors"]


@contextmanager
def original_errors(*solvers: Any) -> Iterator[None]:
    """Raise what a callback raised: newer petsc4py hides it behind an error of its own.

    Parameters
    ----------
    solvers : KSP, TAO, ...
        Those at work. PETSc 3.18 cannot destroy what an error interrupted: it would end the process
        with a segmentation fault, so these are kept alive.

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
