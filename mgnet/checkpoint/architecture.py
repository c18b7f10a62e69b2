"""What must be known to build a network again, besides its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from mgnet.knots import KAN, FreeKnotKAN

__all__ = ["from_config", "to_config", "without_extra_state"]


def to_config(network: torch.nn.Module) -> dict[str, Any]:
    """The arguments of a KAN, or the shapes of another module, as JSON can hold them.

    Parameters
    ----------
    network : torch.nn.Module

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
        name = f"{kind.__module__}.{name}"  # another class, of which only the name is the same
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
    # Free knots keep the ends of their domains, one pair per input, among their tensors.
    return told | ({"domain": list(network.domain)} if isinstance(network, KAN) else {})


def without_extra_state(told: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """A description as it is written now: older ones list extra states among the shapes.

    Examples
    --------
    >>> without_extra_state({"kind": "ODENet", "shapes": {"_extra_state": [2], "weight": [3]}})
    {'kind': 'ODENet', 'shapes': {'weight': [3]}}
    """
    if told is None or "shapes" not in told:
        return told
    shapes = told["shapes"].items()
    return {**told, "shapes": {n: s for n, s in shapes if not n.endswith("_extra_state")}}


def from_config(told: Mapping[str, Any]) -> KAN | FreeKnotKAN:
    """The untrained network of a description.

    Parameters
    ----------
    told : mapping
        From `to_config`, of a KAN or a FreeKnotKAN. Without "hidden" and "dtype" these are tanh and
        float64.

    Raises
    ------
    KeyError, TypeError, ValueError
        If it is no such description.

    Examples
    --------
    >>> from_config(to_config(KAN([2, 5, 1], hidden="identity"))).hidden
    'identity'
    """
    if told["kind"] not in ("KAN", "FreeKnotKAN"):
        raise ValueError(f"a network of kind {told['kind']} cannot be built from its description")
    return (KAN if told["kind"] == "KAN" else FreeKnotKAN)(
        told["widths"],
        told["intervals"],
        told["degree"],
        linear=told["linear"],
        domain=tuple(told.get("domain", (-1.0, 1.0))),
        hidden=told.get("hidden", "tanh"),
        dtype=getattr(torch, told.get("dtype", "float64")),
    )
