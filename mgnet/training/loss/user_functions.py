"""Check the user's losses and residuals for unintended broadcasting and edits of parameters.

Outputs of shape (n, 1) and targets of shape (n,) broadcast to all n * n pairs, which is a different
least-squares problem with a different solution; PyTorch warns about this only in its own losses.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

__all__ = ["check_all_pairs", "check_loss_pairs", "watched_parameters"]


def check_loss_pairs(loss: Callable[..., Any], outputs: Any, targets: Any) -> None:
    """Refuse a loss that compares every output with every target.

    The value of such a loss changes when outputs of shape (n, 1) lose their extra axis, but not
    when one of the two tensors is made a row, which broadcasts in the same way. A loss that sums
    over the last axis, or does not accept these shapes, passes.

    Raises
    ------
    ValueError
        If the loss compares all pairs.

    Examples
    --------
    >>> o, t = torch.tensor([[1.0], [2.0]]), torch.tensor([1.0, 2.0])
    >>> def loss(outputs, targets):
    ...     return (outputs - targets).square().mean()
    >>> check_loss_pairs(loss, o, t)
    Traceback (most recent call last):
    ValueError: the loss of an Objective compares all 2 * 2 pairs of outputs of shape (2, 1) and
    targets of shape (2,); it must compare each with its own: give targets of the shape of the
    outputs, y.reshape(2, 1), and squeeze none alone
    """
    if not isinstance(outputs, torch.Tensor) or not isinstance(targets, torch.Tensor):
        return
    shapes, n = (tuple(outputs.shape), tuple(targets.shape)), len(targets)
    if n < 2 or (n, 1) not in shapes or not {*shapes} <= {(n,), (n, 1)}:
        return
    # Use the targets of other samples as outputs: the distances from all outputs to all targets
    # then differ from those of each output to its own target, whatever the network returns.
    t = targets.detach()
    o = t.reshape(n).roll(1).reshape(outputs.shape).to(outputs.dtype)

    def of(o: torch.Tensor, t: torch.Tensor) -> float:
        try:
            with torch.no_grad():
                return float(loss(o, t))
        except Exception:
            return math.nan  # it does not accept these shapes

    value = of(o, t)

    def same(o: torch.Tensor, t: torch.Tensor) -> bool | None:
        other = of(o, t)
        return None if math.isnan(other) else abs(other - value) <= 1e-4 * abs(value)

    if same(o.reshape(n), t.reshape(n)) is False and (
        same(o.reshape(1, n), t) or same(o, t.reshape(1, n))
    ):
        raise ValueError(
            f"the loss of an Objective compares all {n} * {n} pairs of outputs of shape "
            f"{shapes[0]} and targets of shape {shapes[1]}; it must compare each with its own: "
            f"give targets of the shape of the outputs, y.reshape{shapes[0]}, and squeeze none "
            "alone"
        )


def check_all_pairs(residual: Callable[[Any], Any], module: torch.nn.Module, made: Any) -> None:
    """Refuse residuals that are the differences of all pairs of outputs and targets.

    Parameters
    ----------
    residual : callable
        Residual function; called once more if its result is square.
    module : torch.nn.Module
        Module of the residuals.
    made : tensor or sequence of tensors
        Result of the function.

    Raises
    ------
    ValueError
        If the residuals are differences of all pairs.

    Examples
    --------
    >>> module, x, y = torch.nn.Linear(1, 1), torch.ones(3, 1), torch.ones(3)
    >>> def residual(module):
    ...     return module(x) - y
    >>> check_all_pairs(residual, module, residual(module))
    Traceback (most recent call last):
    ValueError: residual(module) returned shape (3, 3), where the module returned (3, 1): targets of
    shape (3,) broadcast to all pairs; give y.reshape(3, 1) or, where pairs are meant, flatten()
    the residuals
    """
    blocks = made if isinstance(made, tuple | list) else [made]
    squares = {len(block) for block in blocks if _of_pairs(block)}
    if not squares:
        return
    seen: list[Any] = []
    handle = module.register_forward_hook(lambda module, given, out: seen.append(out))
    try:
        with torch.no_grad():
            residual(module)
    except Exception:
        return  # it needs gradients, for derivatives with respect to the inputs
    finally:
        handle.remove()
    columns = {len(out) for out in seen if isinstance(out, torch.Tensor) and out.shape[1:] == (1,)}
    for count in squares & columns:
        raise ValueError(
            f"residual(module) returned shape ({count}, {count}), where the module returned "
            f"({count}, 1): targets of shape ({count},) broadcast to all pairs; give "
            f"y.reshape({count}, 1) or, where pairs are meant, flatten() the residuals"
        )


def _of_pairs(block: Any) -> bool:
    """Whether entry (i, j) is the sum of a function of i and a function of j, as for all pairs."""
    if not isinstance(block, torch.Tensor) or block.dim() != 2:
        return False
    if not len(block) == block.shape[1] > 1:
        return False
    rest = block.detach() - block.detach()[:, :1]
    return bool((rest - rest[:1]).abs().max() <= 1e-4 * block.detach().abs().max())


def watched_parameters(name: str, function: Callable[[], Any], u: torch.Tensor) -> Any:
    """Return `function()`, which must not change u; if it does, u is restored.

    Examples
    --------
    >>> u = torch.ones(2)
    >>> watched_parameters("Linear", lambda: u.data.mul_(2.0), u)
    Traceback (most recent call last):
    ValueError: a function of Linear edits its parameters in place; it must not change them:
    compute with weight.clamp(min=0), say, in place of weight.data.clamp_(min=0)
    >>> u.tolist()
    [1.0, 1.0]
    """
    kept = u.detach().clone()
    try:
        result = function()
    except RuntimeError as error:
        if "modified inplace" not in str(error) and "view of a leaf" not in str(error):
            raise
        _refuse(name, u, kept, error)
    if not bool(((u.detach() == kept) | (kept != kept)).all()):
        _refuse(name, u, kept, None)
    return result


def _refuse(name: str, u: torch.Tensor, kept: torch.Tensor, error: Exception | None) -> None:
    u.detach().copy_(kept)
    raise ValueError(
        f"a function of {name} edits its parameters in place; it must not change them: "
        "compute with weight.clamp(min=0), say, in place of weight.data.clamp_(min=0)"
    ) from error
