"""Smoothers and accelerations as text, in the form in which they print: `Jacobi(omega=0.8)`."""

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

LONGEST = 1000  # characters of a text, which bounds the nesting for Python's parser
TEXT = re.compile(r"\s*([A-Za-z_][\w.]*)\s*(\(.*\))?\s*", re.ASCII | re.DOTALL)


def parse_smoother(text: str, option: str = "parse_smoother") -> Smoother:
    """Create the smoother that a text specifies.

    Parameters
    ----------
    text : str
        A smoother of mgnet, either its name alone, such as `Jacobi`, or with its package, such as
        `mgnet.training.LBFGS`, or a smoother that the script has allowed with `register_smoother`
        or `allow_imports`; no other module is imported. Arguments may follow if they are plain
        values: `GaussSeidel('backward')`. The text has at most 1000 characters.
    option : str
        Name of the option, for error messages.

    Returns
    -------
    Smoother
        A new instance.

    Raises
    ------
    ValueError
        If the text is malformed, if the smoother is unknown (the message contains the nearest
        name), or if the class refuses the arguments.
    TypeError
        If `text` is not a string.

    Examples
    --------
    >>> parse_smoother("Jacobi(0.8)")
    Jacobi(omega=0.8)
    >>> parse_smoother("jacobi")
    Traceback (most recent call last):
    ValueError: parse_smoother got 'jacobi', which is not a smoother; the nearest is Jacobi; if it
    is one of your own, allow it in the script by mgnet.options.register_smoother
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
    """Create the acceleration that a text specifies.

    Parameters
    ----------
    text : str
        `CG`, `GMRES`, `FGMRES` or `Anderson`, followed by plain values as arguments if needed, or
        `none`.
    option : str
        Name of the option, for error messages.

    Returns
    -------
    Anderson, CG, GMRES, FGMRES or None
        The acceleration; None for `none`.

    Raises
    ------
    ValueError
        If the text is malformed, unknown, or has arguments that the class refuses.

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
    """Create the object that a text specifies; `find` returns its class."""
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
            raise ValueError  # such as Jacobi(1)(2)
        arguments = [ast.literal_eval(argument) for argument in call.args]
        named = {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
        if len(named) < len(call.keywords):
            raise ValueError  # Python detects this only when it compiles
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        # `literal_eval` documents further errors, such as a TypeError for an
        # unhashable key.
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
    """The call of the class, with those defaults that can be written in a text."""
    words = []
    for name, parameter in signature.parameters.items():
        stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}
        default, word = parameter.default, f"{stars.get(parameter.kind, '')}{name}"
        if default is not parameter.empty:
            plain = isinstance(default, bool | int | float | str | None)
            word += f"={shown(default, 40) if plain else '...'}"
        words.append(word)
    return f"{kind.__name__}({', '.join(words)})"
