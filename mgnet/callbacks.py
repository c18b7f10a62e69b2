"""Functions of the user, and what is refused of them: edits of what they are given, other kinds.

A state is shared: by levels, by what the user still holds, by the memory of an acceleration. One
that a function edits in place is wrong everywhere at once, so the first calls of every function
are compared with copies. Kinds and shapes are looked at in every call, since that costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any, NoReturn

import numpy as np

from mgnet import vector

__all__ = ["Watched", "ours", "real_number", "refuse_result", "unfit"]

State = Any

# A first start of zeros hides a function that scales in place; later calls do not.
WATCHED_CALLS = 4


def ours(part: Any) -> bool:
    """Whether a function, or the class of an object, is of mgnet, whose tests watch it.

    Examples
    --------
    >>> ours(ours), ours(np.sin), ours(np.ones(2))
    (True, False, False)
    """
    named = part if isinstance(part, FunctionType | MethodType) else type(part)
    return str(named.__module__).split(".")[0] == "mgnet"


class Watched:
    """A function of the user, whose first calls may not edit their arguments.

    Parameters
    ----------
    function : callable
    what : str
        What it is called in messages, as "an operator".

    Examples
    --------
    >>> def halve(u):
    ...     u *= 0.5
    ...     return u
    >>> u = np.ones(2)
    >>> Watched(halve, "an operator")("level 0", u)
    Traceback (most recent call last):
    ValueError: level 0 has an operator that edits its argument in place, ndarray (2,) of float64;
    let it work on a copy, as with u = u.copy(), and give a new state each time
    >>> u
    array([1., 1.])
    """

    __slots__ = ("function", "left", "what")

    def __init__(self, function: Callable[..., Any], what: str):
        self.function = function
        self.what = what
        self.left: int = WATCHED_CALLS

    def __call__(self, owner: Any, *given: Any) -> Any:
        if not self.left:
            return self.function(*given)
        self.left -= 1
        return watch(owner, self.what, self.function, *given)


def watch(owner: Any, what: str, function: Callable[..., Any], *given: Any) -> Any:
    """`function(*given)`; states that it edits get their entries back, and it is refused."""
    copies = [_copied(state) for state in given]
    try:
        result = function(*given)
    except Exception:
        _put_back(given, copies)
        raise
    edited = _put_back(given, copies)
    if edited is None:
        return result
    copy = "clone" if vector.is_tensor(edited) else "copy"
    raise ValueError(
        f"{owner} has {what} that edits its argument in place, {vector.describe(edited)}; let it "
        f"work on a copy, as with u = u.{copy}(), and give a new state each time"
    )


def _copied(state: Any) -> Any:
    if isinstance(state, np.ndarray) or vector.is_vec(state):
        return state.copy()
    return state.detach().clone() if vector.is_tensor(state) else None


def _put_back(given: tuple[Any, ...], copies: list[Any]) -> Any:
    """The first state that differs from its copy, None where none does; all are as before."""
    edited = None
    for state, copy in zip(given, copies, strict=True):
        if copy is None or _same(state, copy):
            continue
        edited = state if edited is None else edited
        if vector.is_vec(state):
            copy.copy(state)
        else:
            target = state.detach() if vector.is_tensor(state) else state
            target[...] = copy
    return edited


def _same(state: State, copy: State) -> bool:
    """Whether all entries are equal, or both no number."""
    if vector.is_vec(state):
        return bool(state.equal(copy))
    if state.shape != copy.shape:
        return False
    state = state.detach() if vector.is_tensor(state) else state
    equal = state == copy
    return bool(equal.all()) or bool((equal | ((state != state) & (copy != copy))).all())


def unfit(result: Any, expected: State, shape: bool = True) -> bool:
    """Whether a function gave what cannot stand for `expected`: another kind, shape or no numbers.

    Other precisions and complex numbers stand by NumPy's rules. Integers do not: they come of a
    forgotten `dtype`, and have lost the fractions.

    Examples
    --------
    >>> one = np.ones(2)
    >>> unfit(one, one), unfit([1.0, 1.0], one), unfit(np.ones(2, int), one), unfit(one[:1], one)
    (False, True, True, True)
    """
    if type(result) is not type(expected):
        if not vector.same_kind(result, expected):
            return True
        if isinstance(result, np.matrix | np.ma.MaskedArray):
            return True
    if vector.is_vec(result):
        return shape and result.getSize() != expected.getSize()
    return (shape and result.shape != expected.shape) or (
        result.dtype != expected.dtype and not vector.computes(result)
    )


def refuse_result(owner: Any, what: str, result: Any, wanted: str) -> NoReturn:
    """Raise the sentence about a result that is `unfit`.

    Examples
    --------
    >>> refuse_result("level 0", "an operator", None, "a state like its argument")
    Traceback (most recent call last):
    TypeError: level 0 has an operator that gave NoneType; it must give a state like its argument
    """
    raise TypeError(
        f"{owner} has {what} that gave {vector.describe(result)}; it must give {wanted}"
    )


def real_number(owner: Any, what: str, value: Any, least: float = -np.inf) -> float:
    """What a function of the user gave, as a float, where it must be one real number.

    Examples
    --------
    >>> real_number("Hierarchy", "a norm", np.float32(2.0))
    2.0
    >>> real_number("Hierarchy", "a norm", -1.0, least=0.0)
    Traceback (most recent call last):
    TypeError: Hierarchy has a norm that gave -1.0; it must give one real number of at least 0
    """
    shaped = isinstance(value, np.ndarray) or vector.is_tensor(value)
    count = len(value.reshape(-1)) if shaped else 1
    number = None
    if count == 1 and not isinstance(value, str | bytes):
        try:
            number = float(value)
        except (TypeError, ValueError, RuntimeError):  # RuntimeError: of complex tensors
            number = None
    if number is None or number < least or isinstance(value, np.complexfloating):
        limit = "" if least == -np.inf else f" of at least {least:g}"
        got = vector.describe(value) if shaped else repr(value)
        raise TypeError(f"{owner} has {what} that gave {got}; it must give one real number{limit}")
    return number
