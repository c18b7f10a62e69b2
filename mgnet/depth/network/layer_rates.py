"""Layers that differ only in dropout rates, such as the linear increase of stochastic depth."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from mgnet.depth.batched.layer_rate import give_rates
from mgnet.depth.network.differences import difference, named_tensors, plain_tensors
from mgnet.depth.network.dropout import KINDS, OWN

__all__ = ["but_for_rates", "first_difference", "place_rates"]

NAMES = "drop_prob", "p"  # attributes of modules that drop paths: timm, torchvision, Hugging Face
DROPS = "drop", "stochasticdepth"  # parts of the names of classes whose `p` is a rate
Rates = Mapping[str, tuple[str, Sequence[Any]]]


def but_for_rates(modules: Sequence[torch.nn.Module]) -> tuple[list[Any], Rates]:
    """Return the modules with equal rates, and the original rates by submodule name.

    An `Identity` in place of dropout has rate 0. If no rates differ, the given modules are
    returned; otherwise, the result consists of copies that share their tensors.

    Parameters
    ----------
    modules : sequence of torch.nn.Module
        The layers.

    Returns
    -------
    list of torch.nn.Module, dict of str to (name of the attribute, list of float)
        The modules, and the rates of all layers. A rate is None if a layer has neither dropout nor
        an identity there; the layers then differ in more than rates.

    Examples
    --------
    >>> modules = [torch.nn.Sequential(torch.nn.Dropout(p)) for p in (0.0, 0.25)]
    >>> but_for_rates(modules)[1]
    {'0': ('p', [0.0, 0.25])}
    """
    parts = [dict(module.named_modules()) for module in modules]
    typical: dict[str, torch.nn.Module] = {}
    rates: dict[str, tuple[str, list[float | None]]] = {}
    for path in {path: None for each in parts for path in each}:
        here = [each.get(path) for each in parts]
        first = next((x for x in here if _rate_name(x)), None)
        if first is not None:
            values = [_rate(x, first) for x in here]
            if len({(type(x), value) for x, value in zip(here, values, strict=True)}) > 1:
                typical[path], rates[path] = first, (_rate_name(first), values)
    if not rates:
        return list(modules), rates
    return [_made_equal(module, typical) for module in modules], rates


def _rate_name(part: torch.nn.Module | None) -> str:
    """The name of the attribute that holds a module's drop rate; empty if there is none."""
    if part is None or (type(part).__module__.startswith(OWN) and not isinstance(part, KINDS)):
        return ""
    name = next((name for name in NAMES if _is_rate(vars(part).get(name))), "")
    kind = type(part).__name__.lower()
    return name if name != "p" or any(word in kind for word in DROPS) else ""


def _is_rate(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0.0 <= value < 1.0


def _rate(part: torch.nn.Module | None, typical: torch.nn.Module) -> float | None:
    if _stands_for(part, typical):
        return 0.0
    name = _rate_name(typical)
    return float(vars(part)[name]) if _is_same(part, typical) else None


def _stands_for(part: torch.nn.Module | None, typical: torch.nn.Module) -> bool:
    """Whether a module is an `Identity` in place of a module without tensors, such as dropout."""
    return type(part) is torch.nn.Identity and not [*named_tensors(typical)]


def _is_same(part: torch.nn.Module | None, typical: torch.nn.Module) -> bool:
    return type(part) is type(typical) and _rate_name(part) == _rate_name(typical)


def _made_equal(module: torch.nn.Module, typical: Mapping[str, torch.nn.Module]) -> Any:
    """A copy that shares the module's tensors and has the typical submodules at these paths."""
    tensors = [x for _, x in (*named_tensors(module), *plain_tensors(module))]
    made = copy.deepcopy(module, {id(x): x for x in tensors})
    for path, part in typical.items():
        own = dict(made.named_modules()).get(path)
        if _is_same(own, part):
            name = _rate_name(part)
            setattr(own, name, vars(part)[name])
        elif own is not None and _stands_for(own, part):
            other = copy.deepcopy(part).train(own.training)
            if not path:
                return other
            parent, _, name = path.rpartition(".")
            setattr(made.get_submodule(parent), name, other)
    return made


def first_difference(modules: Sequence[torch.nn.Module]) -> tuple[int, str] | None:
    """Find the first module that differs from module 0 in more than rates, and the reason.

    Examples
    --------
    >>> first_difference([torch.nn.Dropout(0.1), torch.nn.Dropout(0.2), torch.nn.Tanh()])
    (2, 'Tanh() instead of Dropout(p=0.1, inplace=False)')
    """
    alike = but_for_rates(modules)[0]
    found = ((n, difference(alike[0], each)) for n, each in enumerate(alike))
    return next(((n, words) for n, words in found if words), None)


def place_rates(block: torch.nn.Module, rates: Rates) -> None:
    """Store the rates of all layers in the submodules of a stacked block.

    Raises
    ------
    ValueError
        If the block is on the meta device: rates are not saved, so they would be lost later.

    Examples
    --------
    >>> block = torch.nn.Sequential(torch.nn.Dropout(0.5))
    >>> place_rates(block, {"0": ("p", [0.0, 0.25])})
    >>> block[0]
    Dropout(p=0.0 to 0.25, inplace=False)
    """
    device = next((x.device for _, x in named_tensors(block)), torch.device("cpu"))
    for path, (name, values) in rates.items():
        if device.type == "meta":
            raise ValueError(
                f"ODENet got layers on the meta device that differ in {path}.{name}; a state_dict "
                "has no such rates, so make the layers on the device where they are used"
            )
        part = block.get_submodule(path)
        give_rates(part, name, values)
        part.to(device)
