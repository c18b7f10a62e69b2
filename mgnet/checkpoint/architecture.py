"""Descriptions of networks: everything, besides the tensors, that is needed to rebuild them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from mgnet.knots import KAN, FreeKnotKAN

__all__ = ["check_config", "check_shapes", "from_config", "is_kan", "to_config"]
__all__ += ["without_extra_state"]

KINDS = {"KAN": KAN, "FreeKnotKAN": FreeKnotKAN}
NEEDED = {"kind", "widths", "intervals", "degree", "linear"}
OPTIONAL = {"hidden", "dtype", "domain"}


def to_config(network: torch.nn.Module) -> dict[str, Any]:
    """The arguments of a KAN, or the shapes of another module, as JSON values.

    Parameters
    ----------
    network : torch.nn.Module
        Network to describe.

    Examples
    --------
    >>> to_config(KAN([2, 1], intervals=3))["intervals"]
    [3]
    >>> to_config(torch.nn.Linear(2, 1))
    {'kind': 'Linear', 'shapes': {'weight': [1, 2], 'bias': [1]}}
    """
    kind = type(network)
    name = kind.__name__
    if name in ("KAN", "FreeKnotKAN") and kind not in (KAN, FreeKnotKAN):
        name = f"{kind.__module__}.{name}"  # another class with the same name
    if not isinstance(network, KAN | FreeKnotKAN):
        every = network.state_dict().items()
        shapes = {n: list(t.shape) for n, t in every if not n.endswith("_extra_state")}
        return {"kind": name, "shapes": shapes}
    told: dict[str, Any] = {
        "kind": name,
        "widths": list(network.widths),
        "intervals": list(network.intervals),
        "degree": network.degree,
        "linear": network.linear is not None,
        "hidden": network.hidden,
        "dtype": str(network.coefficients[0].dtype).removeprefix("torch."),
    }
    # Free knots store the ends of their domains, one pair per input, with their tensors.
    return told | ({"domain": list(network.domain)} if isinstance(network, KAN) else {})


def without_extra_state(told: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Convert a description to the current form: older ones list extra states among the shapes.

    Examples
    --------
    >>> without_extra_state({"kind": "ODENet", "shapes": {"_extra_state": [2], "weight": [3]}})
    {'kind': 'ODENet', 'shapes': {'weight': [3]}}
    """
    if told is None or "shapes" not in told:
        return told
    shapes = told["shapes"].items()
    return {**told, "shapes": {n: s for n, s in shapes if not n.endswith("_extra_state")}}


def is_kan(told: Mapping[str, Any]) -> bool:
    """Whether a description has the arguments of a KAN or a FreeKnotKAN.

    Examples
    --------
    >>> is_kan(to_config(KAN([2, 1]))), is_kan({"kind": "Linear", "shapes": {}})
    (True, False)
    """
    return isinstance(told.get("kind"), str) and told["kind"] in KINDS


def check_config(told: Mapping[str, Any]) -> None:
    """Refuse a description of a KAN that does not have the form that `to_config` gives it.

    Parameters
    ----------
    told : mapping
        Description read from JSON.

    Raises
    ------
    ValueError
        If an entry is missing, unknown or malformed.

    Examples
    --------
    >>> check_config({**to_config(KAN([2, 1])), "widths": [2, -1]})
    Traceback (most recent call last):
    ValueError: the network has the widths [2, -1]; positive integers are expected
    """
    known = NEEDED | OPTIONAL
    if NEEDED - set(told) or set(told) - known:
        raise ValueError(f"the network is not described by {', '.join(sorted(known))} alone")
    for name in ("widths", "intervals"):
        value = told[name]
        if not isinstance(value, list) or not all(type(n) is int and n > 0 for n in value):
            raise ValueError(
                f"the network has the {name} {repr(value)[:80]}; positive integers are expected"
            )
    hidden, dtype = told.get("hidden", "tanh"), told.get("dtype", "float64")
    if type(told["degree"]) is not int or type(told["linear"]) is not bool:
        raise ValueError("the degree of the network is not an integer, or linear is not a bool")
    if not isinstance(hidden, str) or not isinstance(dtype, str):
        raise ValueError("hidden and dtype of the network are not strings")
    if dtype not in ("float64", "float32", "float16", "bfloat16"):
        raise ValueError(f"the network has the dtype {dtype[:80]!r}, which is not one of weights")
    domain = told.get("domain", [-1.0, 1.0])
    if not isinstance(domain, list) or not all(type(end) in (int, float) for end in domain):
        raise ValueError(f"the network has the domain {repr(domain)[:80]}; give two numbers")
    if len(told["intervals"]) != len(told["widths"]) - 1 - told["linear"]:
        raise ValueError("the network has other numbers of widths and of intervals")


def check_shapes(told: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
    """Refuse a description of a KAN whose splines do not match the tensors.

    Call this before building the network: the described network may be too large for the memory.

    Parameters
    ----------
    told : mapping
        Description that `check_config` accepts.
    tensors : mapping
        Tensors by their names in the network.

    Raises
    ------
    ValueError
        If a shape differs.

    Examples
    --------
    >>> kan = KAN([2, 1])
    >>> check_shapes({**to_config(kan), "intervals": [10**11]}, kan.state_dict())
    Traceback (most recent call last):
    ValueError: the network has coefficients.0 of shape (2, 100000000003, 1), and its tensors have \
(2, 7, 1)
    """
    widths = told["widths"][told["linear"] :]
    shapes: dict[str, tuple[int, ...]] = {
        f"coefficients.{k}": (widths[k], n + told["degree"], widths[k + 1])
        for k, n in enumerate(told["intervals"])
    }
    if told["linear"]:
        shapes["linear.weight"] = (told["widths"][1], told["widths"][0])
    for name, shape in shapes.items():
        found = tuple(tensors[name].shape) if name in tensors else None
        if found != shape:
            raise ValueError(
                f"the network has {name} of shape {shape}, and its tensors have {found}"
            )


def from_config(told: Mapping[str, Any]) -> KAN | FreeKnotKAN:
    """Build the untrained network that a description specifies.

    Parameters
    ----------
    told : mapping
        Description of a KAN or a FreeKnotKAN from `to_config`. The defaults of "hidden" and "dtype"
        are tanh and float64.

    Raises
    ------
    ValueError
        If the object is not such a description.

    Examples
    --------
    >>> from_config(to_config(KAN([2, 5, 1], hidden="identity"))).hidden
    'identity'
    """
    if not is_kan(told):
        raise ValueError(
            f"a network of kind {told.get('kind')} cannot be built from its description"
        )
    check_config({key: told[key] for key in told if key in NEEDED | OPTIONAL})
    return KINDS[told["kind"]](
        told["widths"],
        told["intervals"],
        told["degree"],
        linear=told["linear"],
        domain=tuple(told.get("domain", (-1.0, 1.0))),
        hidden=told.get("hidden", "tanh"),
        dtype=getattr(torch, told.get("dtype", "float64")),
    )
