"""Options for PETSc on a command line: one dash, beside our own with two."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import import_module

__all__ = ["split_options", "take"]

OPTION = re.compile(r"-[A-Za-z_]")


def split_options(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Part a command line into our own arguments and PETSc's.

    PETSc's options have a single dash. The argument after one is its value, unless that is an
    option itself (a negative number is a value), so give them last. Nothing after `--` is touched.

    Parameters
    ----------
    arguments : sequence of str

    Returns
    -------
    tuple of list of str
        Ours, PETSc's.

    Examples
    --------
    >>> split_options(["fit", "--seed", "-3", "-ksp_type", "cg", "-mgnet_view", "--levels", "2"])
    (['fit', '--seed', '-3', '--levels', '2'], ['-ksp_type', 'cg', '-mgnet_view'])
    """
    ours: list[str] = []
    theirs: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument == "--":
            return [*ours, argument, *rest], theirs
        if OPTION.match(argument):
            theirs.append(argument)
            if rest and not rest[0].startswith("--") and not OPTION.match(rest[0]):
                theirs.append(rest.pop(0))
        else:
            ours.append(argument)
    return ours, theirs


def take(arguments: Sequence[str]) -> None:
    """Start PETSc with these options.

    Parameters
    ----------
    arguments : sequence of str
        Options with their values, as on a command line.

    Raises
    ------
    ModuleNotFoundError
        If petsc4py is not installed.
    """
    try:
        petsc4py = import_module("petsc4py")
    except ImportError:
        raise ModuleNotFoundError(
            f"{arguments[0]} has one dash, so it is meant for PETSc, but petsc4py is not "
            "installed; install it, or write two dashes for an option of mgnet"
        ) from None
    petsc4py.init(["mgnet", *arguments])
