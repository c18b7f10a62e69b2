"""Functions of the user, and what is refused of them: edits of what they are given, other kinds.

A state is shared: by levels, by what the user still holds, by the memory of an acceleration. One
that a function edits in place is wrong everywhere at once, so the first calls of every function
are compared with copies. Kinds and shapes are looked at in every call, since that costs nothing.
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

# A first start of zeros hides a function that scales in place; later calls do not.
WATCHED_CALLS = 4


def ours(part: Any) -> bool:
    """Whether a function, or the class of an object, is of mgnet, whose tests watch it.

    A part of mgnet that stands around one of the user, its `inner`, is the user's.

    Examples
    --------
    >>> ours(ours), ours(np.sin), ours(np.ones(2))
    (True, False, False)
    """
    named = part if isinstance(part, FunctionType | MethodType) else type(part)
    inner = getattr(part, "inner", None)
    return str(named.__module__).split(".")[0] == "mgnet" and (inner is None or ours(inner))


class Watched:
    """A function or a part of the user, whose first calls may not edit their arguments.

    Parameters
    ----------
    part : callable, or object with methods
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
        """What a message calls it, or a method of it."""
        part = type(self.part).__name__
        return f"{self.what}, {part}, with a method {method}" if method else self.what


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


def duplicate(state: State) -> State:
    """A state of the same entries; for a tensor, one of the same graph.

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

    Other precisions stand by NumPy's rules. Integers do not: they come of a forgotten `dtype`, and
    have lost the fractions. Nor do complex numbers for real ones, which some parts would drop.

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
        raise TypeError(f"{owner} has {what} that gave {got}; it must give one real number{limit}")
    return number


def real_function(
    owner: str, what: str, function: Callable[..., Any], least: float = -np.inf
) -> Callable[..., float]:
    """A function of states that gives one real number, such as a norm; it refuses all else.

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
    """Whether a monitor ends the solve; one that edits the state is refused, in every call.

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
    """A recorder for `run` that may not edit the states it is told.

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
    """What `Hierarchy.network` gives where the levels before `first` are cut off."""
    return network(first + level, u)


def bind_changed(
    bind: Callable[[Any], Sequence[Any]],
    change: Callable[[Sequence[Any]], Sequence[Any]],
    batch: Any,
) -> Sequence[Any]:
    """The levels of one batch, changed as those of the hierarchy were."""
    return change(bind(batch))


def no_network(level: int, u: State) -> Any:
    """`Hierarchy.network` of levels that hold no network."""
    raise TypeError(
        f"Hierarchy.network got level {level}, but these levels hold no network; "
        "make the hierarchy with knot_hierarchy or depth_hierarchy, or give network=..."
    )
