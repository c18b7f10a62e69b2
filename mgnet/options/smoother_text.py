"""Smoothers and accelerations as text, as printing shows them: `Jacobi(omega=0.8)`."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Callable
from importlib import import_module
from typing import Any

import mgnet
from mgnet import Anderson, Smoother

__all__ = ["parse_acceleration", "parse_smoother"]

CORE = ("Chebyshev", "Direct", "GaussSeidel", "Jacobi", "Krylov")
PETSC = {"KSPSmoother": "mgnet.petsc.ksp_smoother", "TAOSmoother": "mgnet.petsc.tao_smoother"}


def parse_smoother(text: str, option: str = "parse_smoother") -> Smoother:
    """The smoother that a text describes.

    Parameters
    ----------
    text : str
        A class of the core, `KSPSmoother` or `TAOSmoother`, or a dotted name that can be imported,
        as `mgnet.training.LBFGS`; then, where it needs them, arguments that are plain values:
        `GaussSeidel('backward')`.
    option : str
        For messages.

    Raises
    ------
    ValueError
        With the nearest name, or what the class said of the arguments.

    Examples
    --------
    >>> parse_smoother("Jacobi(0.8)")
    Jacobi(omega=0.8)
    >>> parse_smoother("jacobi")
    Traceback (most recent call last):
    ValueError: parse_smoother got 'jacobi', which is no smoother; the nearest is Jacobi
    """
    return _made(text, option, "a smoother and plain values, such as Jacobi(0.8)", _find)


def parse_acceleration(text: str, option: str = "parse_acceleration") -> Anderson | None:
    """The acceleration that a text describes.

    Parameters
    ----------
    text : str
        `Anderson`, with plain values as arguments where they are needed, or `none`.
    option : str
        For messages.

    Raises
    ------
    ValueError

    Examples
    --------
    >>> parse_acceleration("Anderson(8, damping=0.5)").memory
    8
    """
    expected = "Anderson and plain values, such as Anderson(5), or none"

    def find(name: str, option: str) -> Any:
        if name != "Anderson":
            raise ValueError(f"{option} got {text!r}; expected {expected}")
        return Anderson

    return None if text.strip() == "none" else _made(text, option, expected, find)


def _made(text: str, option: str, expected: str, find: Callable[[str, str], Any]) -> Any:
    """The object of a text, whose class `find` gives."""
    try:
        node: Any = ast.parse(text.strip(), mode="eval").body
        call = node if isinstance(node, ast.Call) else ast.Call(node, [], [])
        arguments = [ast.literal_eval(argument) for argument in call.args]
        named = {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
        name = ast.unparse(call.func)
    except (SyntaxError, ValueError):
        raise ValueError(f"{option} got {text!r}; expected {expected}") from None
    kind = find(name, option)
    try:
        return kind(*arguments, **named)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{option} got {text!r}: {error}") from None


def _find(name: str, option: str) -> Any:
    if name in CORE:
        return getattr(mgnet, name)
    module, _, last = name.rpartition(".")
    module, last = (module, last) if module else (PETSC.get(name, ""), name)
    try:
        kind = getattr(import_module(module), last) if module else None
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{option} got {name!r}, which cannot be imported: {error}") from None
    if not isinstance(kind, type) or not issubclass(kind, Smoother):
        known = [*CORE, *PETSC]
        lower = {word.lower(): word for word in known}
        near = difflib.get_close_matches(last.lower(), lower, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"{option} got {name!r}, which is no smoother; the nearest is {lower[near]}"
        )
    return kind
