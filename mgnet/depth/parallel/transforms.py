"""PyTorch's function transforms of a `LayerParallel`, which never reach the multigrid solve.

`torch.compile` calls the solve without compiling it. `torch.func`, forward-mode differentiation,
`torch.export` and `torch.jit.trace` get serial propagation if the module computes the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch._compile import _disable_dynamo
from torch.autograd import forward_ad
from torch.utils._pytree import tree_leaves

from mgnet.depth.mgrit.communicator import Communicator, SerialCommunicator
from mgnet.depth.parallel.control import Control, CyclesToTolerance

__all__ = ["check_plain", "not_compiled", "transform_of"]


def transform_of(net: nn.Module, u: Tensor, side: Mapping[str, Any] | None = None) -> str | None:
    """Return the name of the function transform or tracer of the current call, if there is one.

    Parameters
    ----------
    net : Module
        An ODE net, or another module whose parameters may also be transformed.
    u : Tensor
        The state before the layers.
    side : mapping, optional
        Side inputs of the call.

    Returns
    -------
    str or None
        The name, for messages.

    Examples
    --------
    >>> from mgnet.depth import ODENet
    >>> net = ODENet(torch.nn.Linear(1, 1), 2)
    >>> def named(u):
    ...     print(transform_of(net, u))
    ...     return u
    >>> named(torch.ones(1)), torch.func.vmap(named)(torch.ones(1))
    None
    torch.func
    (tensor([1.]), tensor([1.]))
    """
    if _is_exporting():
        return "torch.export"
    if torch._C._get_tracing_state() is not None:
        return "torch.jit.trace"
    if torch._C._are_functorch_transforms_active():
        return "torch.func"
    if forward_ad._current_level >= 0:
        tensors = [x for x in tree_leaves(side) if isinstance(x, Tensor)]
        given = (u, *tensors, *net.parameters())
        if any(forward_ad.unpack_dual(x).tangent is not None for x in given):
            return "forward-mode differentiation"
    return None


def check_plain(
    transform: str, control: Control | None, serial: bool, communicator: Communicator
) -> None:
    """Refuse a transform unless the module computes the result of serial propagation.

    Parameters
    ----------
    transform : str
        Name of the transform.
    control : FixedCycles, CyclesToTolerance, AdaptiveCycles or None
        The control of the cycles; None means serial propagation from now on.
    serial : bool
        Whether the module propagates serially.
    communicator : Communicator
        The processes that hold the layers.

    Raises
    ------
    RuntimeError
        If cycles do not reproduce serial propagation, or other processes hold some layers.

    Examples
    --------
    >>> from mgnet.depth import FixedCycles
    >>> from mgnet.depth.mgrit.communicator import SERIAL_COMMUNICATOR
    >>> check_plain("torch.func", FixedCycles(2), True, SERIAL_COMMUNICATOR)
    >>> check_plain("torch.func", FixedCycles(2), False, SERIAL_COMMUNICATOR)
    Traceback (most recent call last):
    RuntimeError: LayerParallel was called under torch.func, which does not pass through a fixed
    number of cycles; use control=CyclesToTolerance(1e-8), for example, mode='serial', or the
    ODENet itself
    """
    if not isinstance(communicator, SerialCommunicator):
        raise RuntimeError(
            f"LayerParallel was called under {transform}, but other processes hold some of its "
            "layers; load its gathered state into a whole ODENet and use that"
        )
    if not (serial or control is None or isinstance(control, CyclesToTolerance)):
        raise RuntimeError(
            f"LayerParallel was called under {transform}, which does not pass through a fixed "
            "number of cycles; use control=CyclesToTolerance(1e-8), for example, mode='serial', "
            "or the ODENet itself"
        )


def not_compiled(function: Callable[[Tensor], Tensor], u: Tensor) -> Tensor:
    """Call `function(u)` without compilation, even if `torch.compile` compiles the caller.

    Compilation would unroll every layer of every cycle.

    Examples
    --------
    >>> not_compiled(torch.neg, torch.ones(1))
    tensor([-1.])
    """
    if torch.compiler.is_compiling() and not _is_exporting():
        return _as_it_is(function, u)
    return function(u)


@_disable_dynamo
def _as_it_is(function: Callable[[Tensor], Tensor], u: Tensor) -> Tensor:
    return function(u)


def _is_exporting() -> bool:
    ask = getattr(torch.compiler, "is_exporting", None)  # since PyTorch 2.7
    return ask is not None and ask()
