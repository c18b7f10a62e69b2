"""Checks of the user's functions: whether they edit their arguments or return unfit results.

A state is shared by levels, by the user's code, and by the memory of an acceleration. If a function
edits it in place, the state is wrong in all of these places, so the arguments of the first calls of
every function are compared with copies. Kinds and shapes are checked on every call, since that is
cheap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import FunctionType, MethodType
from typing import Any, NamedTuple, NoReturn

import numpy as np

from mgnet import vector

__all__ = [
    "Watched",
    "bind_changed",
    "duplicate",
    "ends",
    "network_below",
    "no_network",
    "ours",
    "real_function",
    "real_number",
    "refuse_result",
    "unfit",
    "watch",
    "watched_record",
]

State = Any

# A first state of zeros hides a function that scales in place; later states do not.
WATCHED_CALLS = 4


def ours(part: Any) -> bool:
    """Whether a function, or the class of an object, belongs to mgnet, whose tests check it.

    An object of mgnet that wraps a user's object, its `inner`, counts as the user's.

    Examples
    --------
    >>> ours(ours), ours(np.sin), ours(np.ones(2))
    (True, False, False)
    """
    named = part if isinstance(part, FunctionType | MethodType) else type(part)
    inner = getattr(part, "inner", None)
    return str(named.__module__).split(".")[0] == "mgnet" and (inner is None or ours(inner))


class Watched:
    """A user's function or object whose first calls are checked for edits of their arguments.

    Parameters
    ----------
    part : callable, or object with methods
        The function or object that is called.
    what : str
        Its name in messages, such as "an operator".

    Examples
    --------
    >>> def halve(u):
    ...     u *= 0.5
    ...     return u
    >>> u = np.ones(2)
    >>> Watched(halve, "an operator")("level 0", u)
    Traceback (most recent call last):
    ValueError: level 0 has an operator that edits its argument in place, ndarray (2,) of float64;
    make it work on a copy, such as u = u.copy(), and return a new state each time
    >>> u
    array([1., 1.])
    """

    __slots__ = ("calls", "part", "what")

    def __init__(self, part: Any, what: str):
        self.part = part
        self.what = what
        self.calls: dict[str, int] = {}

    def __call__(self, owner: Any, *given: Any) -> Any:
        """`part(*given)`."""
        return self._called("", self.part, owner, given)

    def method(self, name: str, owner: Any, *given: Any) -> Any:
        """`part.name(*given)`."""
        return self._called(name, getattr(self.part, name), owner, given)

    def _called(self, name: str, function: Any, owner: Any, given: tuple[Any, ...]) -> Any:
        calls = self.calls.get(name, 0)
        if calls == WATCHED_CALLS:
            return function(*given)
        self.calls[name] = calls + 1
        return watch(owner, self.named(name), function, *given)

    def named(self, method: str = "") -> str:
        """The name of the part, or of one of its methods, in messages."""
        part = type(self.part).__name__
        return f"{self.what}, {part}, with a method {method}" if method else self.what


def watch(owner: Any, what: str, function: Callable[..., Any], *given: Any) -> Any:
    """Return `function(*given)`; if it edits a state, restore the state and raise an error.

    Raises
    ------
    ValueError
        If the function edited one of its arguments in place.
    """
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
        f"{owner} has {what} that edits its argument in place, {vector.describe(edited)}; make it "
        f"work on a copy, such as u = u.{copy}(), and return a new state each time"
    )


def duplicate(state: State) -> State:
    """A copy of a state; the copy of a tensor stays in the same autograd graph.

    Examples
    --------
    >>> duplicate(np.ones(2))
    array([1., 1.])
    """
    return state.clone() if vector.is_tensor(state) else state.copy()


def _copied(state: Any) -> Any:
    """A copy of a state; None for anything else."""
    if isinstance(state, np.ndarray) or vector.is_vec(state):
        return state.copy()
    return state.detach().clone() if vector.is_tensor(state) else None


def _put_back(given: tuple[Any, ...], copies: list[Any]) -> Any:
    """Restore all states and return the first that differed from its copy, or None."""
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
    """Whether all entries are equal, or NaN in both."""
    if vector.is_vec(state):
        return bool(state.equal(copy))
    if state.shape != copy.shape:
        return False
    state = state.detach() if vector.is_tensor(state) else state
    equal = state == copy
    return bool(equal.all()) or bool((equal | ((state != state) & (copy != copy))).all())


def unfit(result: Any, expected: State, shape: bool = True) -> bool:
    """Whether a result differs from `expected` in kind, shape or type, so that it is refused.

    Other precisions are allowed, and NumPy's rules promote them. Integers are refused: they come
    from a forgotten `dtype`, and their fractional parts are lost. Complex numbers are refused in
    place of real ones, because some parts would drop the imaginary part.

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
    if shape and result.shape != expected.shape:
        return True
    if result.dtype == expected.dtype:
        return False
    return not vector.computes(result) or (_is_complex(result) and not _is_complex(expected))


def _is_complex(u: State) -> bool:
    return bool(u.is_complex()) if vector.is_tensor(u) else u.dtype.kind == "c"


def refuse_result(owner: Any, what: str, result: Any, wanted: str) -> NoReturn:
    """Raise an error that describes a result for which `unfit` is true.

    Raises
    ------
    TypeError
        Always.

    Examples
    --------
    >>> refuse_result("level 0", "an operator", None, "a state")
    Traceback (most recent call last):
    TypeError: level 0 has an operator that returned NoneType; it must return a state
    """
    raise TypeError(
        f"{owner} has {what} that returned {vector.describe(result)}; it must return {wanted}"
    )


def real_number(owner: Any, what: str, value: Any, least: float = -np.inf) -> float:
    """Convert the result of a user's function, which must be one real number, to a float.

    Raises
    ------
    TypeError
        If it is not one real number, or below `least`.

    Examples
    --------
    >>> real_number("Hierarchy", "a norm", np.float32(2.0))
    2.0
    >>> real_number("Hierarchy", "a norm", -1.0, least=0.0)
    Traceback (most recent call last):
    TypeError: Hierarchy has a norm that returned -1.0; it must return one real number of at least 0
    """
    shaped = isinstance(value, np.ndarray) or vector.is_tensor(value)
    usable = value.reshape(-1).shape == (1,) and not _is_complex(value) if shaped else True
    number = None
    if usable and not isinstance(value, str | bytes | np.complexfloating):
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = None
    if number is None or number < least:
        limit = "" if least == -np.inf else f" of at least {least:g}"
        got = vector.describe(value) if shaped else repr(value)
        wanted = f"one real number{limit}"
        raise TypeError(f"{owner} has {what} that returned {got}; it must return {wanted}")
    return number


def real_function(
    owner: str, what: str, function: Callable[..., Any], least: float = -np.inf
) -> Callable[..., float]:
    """A function of states, such as a norm, that raises an error unless it returns a real number.

    Raises
    ------
    TypeError
        If the argument is not a function.

    Examples
    --------
    >>> real_function("Hierarchy", "a norm", np.linalg.norm, least=0.0)(np.array([3.0, 4.0]))
    5.0
    """
    if not callable(function):
        raise TypeError(
            f"{owner} got {what} of type {type(function).__name__}; give a function of states"
        )
    return function if ours(function) else _RealFunction(owner, Watched(function, what), least)


class _RealFunction(NamedTuple):
    owner: str
    watched: Watched
    least: float

    def __call__(self, *states: State) -> float:
        value = self.watched(self.owner, *states)
        return real_number(self.owner, self.watched.what, value, self.least)


def ends(owner: str, monitor: Callable[..., Any], entry: Any, u: State) -> bool:
    """Whether a monitor ends the solve; every call is checked for edits of the state.

    Examples
    --------
    >>> ends("Solver", lambda entry, u: u.sum() > 1.0, None, np.ones(2))
    True
    """
    watched = () if ours(monitor) else (entry, u)
    told = watch(owner, "a monitor", monitor, *watched) if watched else monitor(entry, u)
    try:
        return bool(told)
    except (TypeError, ValueError, RuntimeError):
        refuse_result(owner, "a monitor", told, "True to end the solve, or nothing")


def watched_record(record: Callable[..., Any]) -> Callable[..., Any]:
    """A recorder for `run` that may not edit the states it receives.

    Examples
    --------
    >>> watched_record(print) is print
    False
    """
    if ours(record):
        return record
    watched = Watched(record, "a record")

    def told(step: Any, data: Any) -> None:
        watched.part = lambda *_: record(step, data)
        watched("run", data.state, data.rhs)

    return told


def network_below(network: Callable[[int, State], Any], first: int, level: int, u: State) -> Any:
    """The result of `Hierarchy.network` for a hierarchy whose levels before `first` are removed."""
    return network(first + level, u)


def bind_changed(
    bind: Callable[[Any], Sequence[Any]],
    change: Callable[[Sequence[Any]], Sequence[Any]],
    batch: Any,
) -> Sequence[Any]:
    """The levels of one batch, changed in the same way as the levels of the hierarchy."""
    return change(bind(batch))


def no_network(level: int, u: State) -> Any:
    """Default of `Hierarchy.network` for levels that hold no network.

    Raises
    ------
    TypeError
        Always.
    """
    raise TypeError(
        f"Hierarchy.network got level {level}, but these levels hold no network; "
        "build the hierarchy with knot_hierarchy or depth_hierarchy, or give network=..."
    )
