"""PETSc's errors as the Python errors behind them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from petsc4py import PETSc

__all__ = ["original_errors"]


@contextmanager
def original_errors() -> Iterator[None]:
    """Raise what a callback raised: newer petsc4py hides it behind an error of its own.

    Examples
    --------
    >>> with original_errors():
    ...     raise PETSc.Error(101) from KeyError("of a callback")
    Traceback (most recent call last):
    KeyError: 'of a callback'
    """
    try:
        yield
    except PETSc.Error as error:
        if error.__cause__ is None:
            raise
        raise error.__cause__ from None
