"""Checks of the description of a model, before a network and its scales are built from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

import torch

from mgnet.app.columns.encoding import Encoding
from mgnet.app.columns.targets import Targets

__all__ = [
    "are",
    "as_list",
    "check_description",
    "check_finite",
    "check_names",
    "columns_of",
    "is_count",
    "shapes_of",
    "short",
]

DTYPES = {
    "float64": ("F64", torch.float64),
    "float32": ("F32", torch.float32),
    "float16": ("F16", torch.float16),
    "bfloat16": ("BF16", torch.bfloat16),
}
EXTRA = "_extra_state"
LONGEST_NAME, MOST_LAYERS = 1000, 1000


def check_names(names: Any, targets: Any) -> None:
    """Refuse names that are not allowed in a model, its messages and its tables.

    Parameters
    ----------
    names, targets : sequence of str
        Names of inputs and targets.

    Raises
    ------
    ValueError
        If a name is not allowed.

    Examples
    --------
    >>> check_names(["T", "p"], ["p"])
    Traceback (most recent call last):
    ValueError: two columns are called 'p'; rename one
    """
    every = [*names, *targets]
    for name in every:
        if not isinstance(name, str):
            raise ValueError(f"the name of a column is {str(name)[:40]!r}; it must be a text")
        if name.splitlines() != [name] or len(name) > LONGEST_NAME or not _is_text(name):
            raise ValueError(
                f"the name of a column is {name[:40]!r}; give it one of a single line with "
                f"1 to {LONGEST_NAME} characters"
            )
    if len(set(every)) < len(every):
        twin = next(name for number, name in enumerate(every) if name in every[:number])
        raise ValueError(f"two columns are called '{twin[:40]}'; rename one")


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # a lone surrogate, such as "\ud800" in JSON
        return False
    return "\0" not in name


def short(value: Any) -> str:
    """A value as text for a message.

    Examples
    --------
    >>> short(list(range(1000)))
    '[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11...'
    """
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def is_count(value: Any) -> TypeGuard[int]:
    """Whether a value from JSON is a positive integer.

    Examples
    --------
    >>> is_count(3), is_count(True), is_count(3.0)
    (True, False, False)
    """
    return type(value) is int and value > 0


def _is_finite(value: Any) -> bool:
    try:
        return type(value) in (int, float) and math.isfinite(float(value))
    except OverflowError:
        return False


def check_description(told: Mapping[str, Any]) -> None:
    """Refuse a description from which no KAN and scales can be built.

    Parameters
    ----------
    told : mapping
        Description from JSON: lists, not tuples.

    Raises
    ------
    ValueError
        If an entry is missing or invalid.

    Examples
    --------
    >>> check_description({"kind": "KAN"})
    Traceback (most recent call last):
    ValueError: degree is missing
    """
    wanted = {"kind", "widths", "intervals", "degree", "linear", "domain"}
    wanted |= {"targets", "classes", "columns", "left_out"} if _is_new(told) else {"target"}
    for key in sorted(wanted | {"inputs", "ranges", "mean", "scale"}):
        if key not in told:
            raise ValueError(f"{key} is missing")

    def need(condition: bool, key: str, expected: str) -> None:
        if not condition:
            raise ValueError(f"{key} is {short(told.get(key))}; expected {expected}")

    need(told["kind"] == "KAN", "kind", "KAN")
    need(type(told["linear"]) is bool, "linear", "true or false")
    need(told.get("hidden", "tanh") in ("tanh", "identity"), "hidden", "tanh or identity")
    dtype = told.get("dtype", "float64")
    need(isinstance(dtype, str) and dtype in DTYPES, "dtype", "one of " + ", ".join(DTYPES))
    need(is_count(told["degree"]) and told["degree"] <= 5, "degree", "1 to 5")
    widths, layers = told["widths"], told["intervals"]
    need(are(widths, is_count) and len(widths) <= MOST_LAYERS, "widths", "positive integers")
    need(
        are(layers, is_count) and len(layers) == len(widths) - 1 - told["linear"] > 0,
        "intervals",
        "one positive integer per layer",
    )
    domain = told["domain"]
    need(are(domain, _is_finite) and len(domain) == 2, "domain", "two finite numbers")
    low, step = float(domain[0]), (float(domain[1]) - float(domain[0])) / max(layers)
    need(
        0.0 < step < math.inf and math.isfinite(1.0 / step) and low + step > low,
        "domain",
        "an interval that can be divided",
    )
    ranges = told["ranges"]
    need(isinstance(told["inputs"], list) and len(told["inputs"]) == widths[0], "inputs",
         "one name for each of the first widths")  # fmt: skip
    targets = as_list(told["targets" if _is_new(told) else "target"])
    check_names(told["inputs"], targets)
    need(
        isinstance(ranges, list)
        and len(ranges) == widths[0]
        and all(are(r, _is_finite) and len(r) == 2 and r[0] <= r[1] for r in ranges),
        "ranges",
        "two finite numbers in order for each input",
    )
    if _is_new(told):
        need(isinstance(told["targets"], list) and len(targets) > 0, "targets", "a list of names")
        classes = told["classes"]
        need(_are_classes(classes, len(targets)), "classes", "texts that differ, for one target")
        outputs, numbers = len(classes or targets), 0 if classes else len(targets)
        need(widths[-1] == outputs, "widths", f"{outputs} outputs")
        for key, least in (("mean", -math.inf), ("scale", 0.0)):
            values = told[key]
            good = isinstance(values, list) and len(values) == numbers
            good = good and all(_is_finite(value) and value > least for value in values)
            need(good, key, "a finite number for each target, and a scale above 0")
        need(columns_of(told)[1].names == tuple(told["inputs"]), "inputs", "those of the columns")
        return
    need(_is_finite(told["mean"]), "mean", "a finite number")
    need(_is_finite(told["scale"]) and told["scale"] > 0.0, "scale", "a positive finite number")


def _is_new(told: Mapping[str, Any]) -> bool:
    """Whether the format allows columns that are not numbers, as format 3 and later ones do."""
    return told.get("format", 1) >= 3


def _are_classes(classes: Any, targets: int) -> bool:
    if classes == []:
        return True
    texts = are(classes, lambda name: isinstance(name, str) and _is_text(name))
    return texts and len(set(classes)) == len(classes) > 1 and targets == 1


def as_list(value: Any) -> list[Any]:
    """A value that format 3 stores in a list, and earlier formats store by itself.

    Examples
    --------
    >>> as_list(2.0), as_list([])
    ([2.0], [])
    """
    return value if isinstance(value, list) else [value]


def columns_of(told: Mapping[str, Any]) -> tuple[Targets, Encoding]:
    """The targets and the inputs of a description; before format 3, all of them are numeric.

    Raises
    ------
    ValueError
        If the description of a column is invalid.

    Examples
    --------
    >>> targets, encoding = columns_of({"inputs": ["T", "p"], "target": "rho"})
    >>> targets.names, encoding.columns
    (('rho',), ('T', 'p'))
    """
    if not _is_new(told):
        return Targets((told["target"],)), Encoding.of_numbers(told["inputs"])
    targets = Targets(tuple(told["targets"]), tuple(told["classes"]))
    return targets, Encoding.read(told["columns"], told["left_out"])


def are(values: Any, condition: Callable[[Any], bool]) -> TypeGuard[list[Any]]:
    """Whether a value is a nonempty list whose entries all meet a condition.

    Examples
    --------
    >>> are([1, 2], is_count), are([], is_count), are("12", is_count)
    (True, False, False)
    """
    return isinstance(values, list) and len(values) > 0 and all(map(condition, values))


def shapes_of(told: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shapes of a network's tensors, by name.

    Examples
    --------
    >>> told = {"widths": [2, 3, 1], "intervals": [4, 4], "degree": 3, "linear": False}
    >>> shapes_of(told)
    {'coefficients.0': (2, 7, 3), 'coefficients.1': (3, 7, 1)}
    """
    widths, degree = told["widths"], told["degree"]
    shapes: dict[str, tuple[int, ...]] = {}
    if told["linear"]:
        shapes = {"linear.weight": (widths[1], widths[0]), "linear.bias": (widths[1],)}
        widths = widths[1:]
    layers = zip(widths[:-1], widths[1:], told["intervals"], strict=True)
    for number, (inputs, outputs, n) in enumerate(layers):
        shapes[f"coefficients.{number}"] = (inputs, n + degree, outputs)
    return shapes


def check_finite(state: Mapping[str, torch.Tensor]) -> None:
    """Refuse weights that are NaN or infinite.

    Raises
    ------
    ValueError
        If a weight is not finite.

    Examples
    --------
    >>> check_finite({"coefficients.0": torch.tensor([1.0, torch.nan])})
    Traceback (most recent call last):
    ValueError: coefficients.0 has weights that are not finite
    """
    for name, value in state.items():
        if name != EXTRA and not bool(torch.isfinite(value).all()):
            raise ValueError(f"{name} has weights that are not finite")
