"""Test whether an optimizer treats coefficients independently, with steps on small arrays."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch

__all__ = ["check_coordinate_wise", "decay_of"]

SHAPES = (4, 3, 2), (4, 3)
STEPS = 4
RATE, DECAY = 0.01, 0.1  # used in place of the user's, so that all values are far from rounding
# Options of the implementation: they require devices or sizes that a probe does not have.
WAYS = "capturable", "foreach", "fused", "differentiable"


def check_coordinate_wise(kind: type, group: Mapping[str, Any]) -> None:
    """Raise an error unless the steps of a coefficient depend only on its own gradients.

    Four steps are taken on small random arrays. They are repeated with the gradient of one
    coefficient changed, which must not affect any other coefficient, and from another start, which
    must not affect any step.

    Parameters
    ----------
    kind : type
        Class of optimizers.
    group : mapping
        Its options.

    Raises
    ------
    TypeError
        If a step depends on other coefficients or on the values of the parameters.

    Examples
    --------
    >>> check_coordinate_wise(torch.optim.Adam, {"lr": 0.1})
    >>> check_coordinate_wise(torch.optim.ASGD, {"lr": 0.1})
    Traceback (most recent call last):
    TypeError: MultilevelGradient got ASGD, whose steps depend on the values of the parameters and
    not on gradients alone; give an optimizer that takes coefficients one by one, such as Adam, SGD
    or RMSprop, and no decay but `weight_decay`
    """
    remedy = "give an optimizer that takes coefficients one by one, such as Adam, SGD or RMSprop"
    for shape in SHAPES:
        gradients = _draw(shape)
        other = [g.clone() for g in gradients]
        for g in other:
            g.view(-1)[0] *= -300.0
        start = torch.zeros(shape, dtype=torch.float64)
        options = _probed(kind, group, 0.0)
        try:
            first = _path(kind, options, start, gradients)
            second = _path(kind, options, start, other)
            moved = _path(kind, options, start + 1.0, gradients)
        except Exception as error:
            raise TypeError(
                f"MultilevelGradient got {kind.__name__}, which takes no step by the gradient of "
                f"an array with {len(shape)} axes alone ({error}); {remedy}"
            ) from error
        for a, b in zip(first, second, strict=True):
            if not torch.equal(a.view(-1)[1:], b.view(-1)[1:]):
                raise TypeError(
                    f"MultilevelGradient got {kind.__name__}, whose step of a coefficient depends "
                    f"on others; {remedy}"
                )
        if not _close(first, [u - 1.0 for u in moved]):
            raise TypeError(
                f"MultilevelGradient got {kind.__name__}, whose steps depend on the values of the "
                f"parameters and not on gradients alone; {remedy}, and no decay but `weight_decay`"
            )


def decay_of(kind: type, group: Mapping[str, Any]) -> str:
    """How an optimizer uses its `weight_decay`: "" (not at all), "coupled" or "decoupled".

    Coupled: `weight_decay u` is added to the gradient, as in Adam and SGD. Decoupled: u is
    multiplied by `1 - lr weight_decay` before the step, as in AdamW.

    Parameters
    ----------
    kind : type
        Class of optimizers that treat coefficients independently.
    group : mapping
        Its options.

    Raises
    ------
    TypeError
        If the optimizer uses `weight_decay` in another way.

    Examples
    --------
    >>> decay_of(torch.optim.Adam, {"weight_decay": 0.1})
    'coupled'
    >>> decay_of(torch.optim.AdamW, {"weight_decay": 0.1})
    'decoupled'
    >>> decay_of(torch.optim.Adam, {"weight_decay": 0})
    ''
    """
    if not group.get("weight_decay", 0):
        return ""
    sign = -1.0 if group.get("maximize") else 1.0
    gradients = _draw(SHAPES[0])
    start = torch.ones(SHAPES[0], dtype=torch.float64)
    found = _path(kind, _probed(kind, group, DECAY), start, gradients)
    none = _probed(kind, group, 0.0)
    # Plain SGD fits both; PyTorch defines it as a term of the gradient.
    ways = {"coupled": (sign * DECAY, 1.0), "decoupled": (0.0, 1.0 - RATE * DECAY)}
    for name, (pull, factor) in ways.items():
        if _close(found, _path(kind, none, start, gradients, pull, factor)):
            return name
    raise TypeError(
        f"MultilevelGradient got {kind.__name__} with weight_decay {group['weight_decay']}, which "
        "neither adds weight_decay u to the gradient nor multiplies u by 1 - lr weight_decay; give "
        "weight_decay=0 and add a penalty to the loss"
    )


def _probed(kind: type, group: Mapping[str, Any], decay: float) -> dict[str, Any]:
    known = inspect.signature(kind).parameters
    options = {k: copy.deepcopy(v) for k, v in group.items() if k not in (*WAYS, "params")}
    if "lr" in known or "lr" in options:
        options["lr"] = RATE
    if "weight_decay" in known or "weight_decay" in options:
        options["weight_decay"] = decay
    return options


def _draw(shape: tuple[int, ...]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    draw = {"generator": generator, "dtype": torch.float64}
    return [torch.randn(shape, **draw) for _ in range(STEPS)]  # type: ignore[arg-type]


def _path(
    kind: Any,
    options: Mapping[str, Any],
    start: torch.Tensor,
    gradients: Sequence[torch.Tensor],
    pull: float = 0.0,
    factor: float = 1.0,
) -> list[torch.Tensor]:
    """The states after each step, with `pull u` added to gradients and u scaled by a factor."""
    u = torch.nn.Parameter(start.clone())
    known = inspect.signature(kind).parameters
    arguments = {name: value for name, value in options.items() if name in known}
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        optimizer = kind([{**options, "params": [u]}], **arguments)
        path = []
        for g in gradients:
            u.grad = g + pull * u.detach()
            u.data.mul_(factor)
            optimizer.step()
            path.append(u.detach().clone())
    return path


def _close(first: Sequence[torch.Tensor], second: Sequence[torch.Tensor]) -> bool:
    pairs = zip(first, second, strict=True)
    return all(torch.allclose(a, b, rtol=1e-9, atol=1e-11) for a, b in pairs)
