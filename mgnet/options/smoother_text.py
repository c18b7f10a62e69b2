"""Smoothers and accelerations as text, as printing shows them: `Jacobi(omega=0.8)`."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable
from typing import Any

from mgnet import CG, FGMRES, GMRES, Anderson, Smoother
from mgnet.limits import shown
from mgnet.options.smoother_names import find_smoother

__all__ = ["parse_acceleration", "parse_smoother"]

LONGEST = 1000  # characters of a text: Python's parser and its values nest no deeper than they go
TEXT = re.compile(r"\s*([A-Za-z_][\w.]*)\s*(\(.*\))?\s*", re.ASCII | re.DOTALL)


def parse_smoother(text: str, option: str = "parse_smoother") -> Smoother:
    """The smoother that a text describes.

    Parameters
    ----------
    text : str
        A smoother of mgnet, alone as `Jacobi` or with its package as `mgnet.training.LBFGS`, or one
        that the script has allowed by `register_smoother` or `allow_imports`; nothing else is
        imported. Then, where it needs them, arguments that are plain values:
        `GaussSeidel('backward')`. At most 1000 characters.
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
    ValueError: parse_smoother got 'jacobi', which is no smoother; the nearest is Jacobi; if it is
    one of your own, allow it in the script by mgnet.options.register_smoother
    """
    return _made(text, option, "a smoother and plain values, such as Jacobi(0.8)", find_smoother)


ACCELERATIONS: dict[str, type] = {
    "Anderson": Anderson,
    "CG": CG,
    "FGMRES": FGMRES,
    "GMRES": GMRES,
}


def parse_acceleration(
    text: str, option: str = "parse_acceleration"
) -> Anderson | CG | GMRES | FGMRES | None:
    """The acceleration that a text describes.

    Parameters
    ----------
    text : str
        `CG`, `GMRES`, `FGMRES` or `Anderson`, with plain values as arguments where they are needed,
        or `none`.
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
    expected = "CG, GMRES, FGMRES or Anderson and plain values, such as GMRES(20), or none"

    def find(name: str, option: str) -> Any:
        if name not in ACCELERATIONS:
            raise ValueError(f"{option} got {shown(text)}; expected {expected}")
        return ACCELERATIONS[name]

    return (
        None
        if isinstance(text, str) and text.strip() == "none"
        else _made(text, option, expected, find)
    )


def _made(text: str, option: str, expected: str, find: Callable[[str, str], Any]) -> Any:
    """The object of a text, whose class `find` gives."""
    if not isinstance(text, str):
        raise TypeError(f"{option} got {shown(text)}; give a text: {expected}")
    if len(text) > LONGEST:
        raise ValueError(
            f"{option} got {shown(text)} of {len(text)} characters, more than {LONGEST}; expected "
            f"{expected}"
        )
    found = TEXT.fullmatch(text)
    try:
        if found is None:
            raise ValueError
        call: Any = ast.parse(f"f{found[2] or '()'}", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise ValueError  # as in Jacobi(1)(2)
        arguments = [ast.literal_eval(argument) for argument in call.args]
        named = {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
        if len(named) < len(call.keywords):
            raise ValueError  # Python sees that only where it compiles
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        # As `literal_eval` documents: a key that has no hash is a TypeError, say.
        raise ValueError(f"{option} got {shown(text, 200)}; expected {expected}") from None
    kind = find(found[1], option)
    signature = inspect.signature(kind)
    try:
        signature.bind(*arguments, **named)
    except TypeError as error:
        raise ValueError(
            f"{option} got {shown(text, 200)}: {error}; expected {_call(kind, signature)}"
        ) from None
    try:
        return kind(*arguments, **named)
    except (TypeError, ValueError) as error:
        why = " ".join(str(error).split())
        why = why if len(why) <= 300 else f"{why[:297]}..."
        raise ValueError(f"{option} got {shown(text, 200)}: {why}") from None


def _call(kind: type, signature: inspect.Signature) -> str:
    """How the class is called, with those defaults that a text can say."""
    words = []
    for name, parameter in signature.parameters.items():
        stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}
        default, word = parameter.default, f"{stars.get(parameter.kind, '')}{name}"
        if default is not parameter.empty:
            plain = isinstance(default, bool | int | float | str | None)
            word += f"={shown(default, 40) if plain else '...'}"
        words.append(word)
    return f"{kind.__name__}({', '.join(words)})"
