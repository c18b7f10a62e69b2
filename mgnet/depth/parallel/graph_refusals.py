"""Checks of the modules that `capture_graph` gets, and of the tensors that a graph gets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as modules

from mgnet.depth.batched.autocast import cast_of
from mgnet.depth.mgrit.communicator import SerialCommunicator
from mgnet.depth.network.spline_weights import DepthSpline
from mgnet.depth.network.subclass import check_calls
from mgnet.depth.parallel.control import FixedCycles
from mgnet.depth.parallel.layer_parallel import LayerParallel
from mgnet.depth.parallel.method import SERIAL_METHOD

__all__ = ["AGAIN", "check_capture", "check_like", "hooked", "is_serial", "refuse_code"]

HOOKS = "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"
AGAIN = "call capture_graph again"


def check_capture(parallel: LayerParallel, x: Tensor, side: Mapping[str, Any]) -> None:
    """Raise a TypeError or ValueError if the passes of a module cannot be captured in graphs.

    Parameters
    ----------
    parallel, x, side
        As in `capture_graph`.

    Examples
    --------
    >>> check_capture(nn.Linear(2, 2), torch.ones(1, 2), {})
    Traceback (most recent call last):
    TypeError: capture_graph got (Linear, Tensor); give a LayerParallel and a tensor (for other \
modules: torch.cuda.make_graphed_callables)
    """
    if not isinstance(parallel, LayerParallel) or not isinstance(x, Tensor):
        raise TypeError(
            f"capture_graph got ({type(parallel).__name__}, {type(x).__name__}); give a "
            "LayerParallel and a tensor (for other modules: torch.cuda.make_graphed_callables)"
        )
    check_calls("capture_graph", parallel, LayerParallel, ("__call__", "forward"))
    reason = _refusal(parallel, x, side)
    if reason:
        raise ValueError(f"capture_graph got {reason}")


def is_serial(parallel: LayerParallel) -> bool:
    """Whether a module propagates layer by layer, because of its settings or the cost of cycles.

    Examples
    --------
    >>> from mgnet.depth import ODENet
    >>> is_serial(LayerParallel(ODENet(nn.Linear(2, 2), 8), levels=1))
    True
    """
    settings = parallel.settings
    return not settings["factors"] or parallel.control is None or settings["mode"] == "serial"


def _refusal(parallel: LayerParallel, x: Tensor, side: Mapping[str, Any]) -> str:
    """The reason why a graph is impossible, if there is one."""
    settings, serial = parallel.settings, is_serial(parallel)
    others = [name for name, value in side.items() if not isinstance(value, Tensor)]
    own = [*parallel.parameters(), *parallel.buffers()]
    away = next((p.device for p in own if p.device != x.device), None)
    names = hooked(parallel)
    cases = [
        (
            not _has_graphs(x),
            f"an input on {x.device}; CUDA graphs need tensors on a GPU: move the module "
            'and its inputs there, as by .to("cuda")',
        ),
        (away is not None, f"an input on {x.device} and weights on {away}; move one of them"),
        (
            not isinstance(parallel.communicator, SerialCommunicator),
            "a module whose layers are spread over processes, whose messages no graph has; capture "
            "one that holds all layers",
        ),
        (
            settings["mode"] == "auto" and not serial,
            'mode "auto", which measures in its first call; use mode="mgrit" or mode="serial"',
        ),
        (
            not serial and not isinstance(parallel.control, FixedCycles),
            f"{type(parallel.control).__name__}, which reads norms to decide on cycles; use "
            "FixedCycles",
        ),
        (
            not serial and settings["warm_start"],
            "warm_start=True, which carries states from call to call; use warm_start=False",
        ),
        (
            not serial and any(parallel.method.sweeps),
            'a cycle by Newton\'s method, which reads norms to decide on its steps; use "V", "F" '
            'or "W", or mode="serial"',
        ),
        (
            isinstance(parallel.net.weights, DepthSpline),
            "weights that are splines, whose matrices lie on the host; use per-layer or shared "
            "weights",
        ),
        (
            bool(names),
            f"a module with hooks ({', '.join(map(repr, names[:3]))}), which are Python and would "
            "run at the capture alone; remove them",
        ),
        (
            cast_of(x.device.type) is not None,
            "a call under autocast; capture outside of it, with weights in the wanted precision",
        ),
        (
            bool(others),
            f"side inputs that are not tensors ({', '.join(others)}); make them tensors",
        ),
    ]
    return next((reason for applies, reason in cases if applies), "")


def _has_graphs(x: Tensor) -> bool:
    return x.is_cuda


def hooked(parallel: nn.Module) -> list[str]:
    """The names of the parts of a module that have hooks.

    Examples
    --------
    >>> layers = nn.Sequential(nn.Linear(2, 2), nn.Tanh())
    >>> _ = layers[1].register_forward_hook(lambda *told: None)
    >>> hooked(layers)
    ['1']
    """
    found = [n for n, m in parallel.named_modules() if any(getattr(m, kind) for kind in HOOKS)]
    return found or ["every module"] * bool(modules._has_any_global_hook())


def refuse_code(parallel: LayerParallel, x: Tensor, side: Mapping[str, Any]) -> None:
    """Raise a ValueError if the block cannot be traced, because a graph would repeat a single run.

    Examples
    --------
    >>> from mgnet.depth import ODENet
    >>> refuse_code(LayerParallel(ODENet(nn.Linear(2, 2), 8)), torch.ones(1, 2), {})
    """
    net = parallel.net
    with torch.no_grad():
        u = net.encode(x, **side)
        setup = parallel._prepare(u, SERIAL_METHOD, side)[0]
    if setup.kernel._traced(setup.fine, u[None])[0].one is None:
        raise ValueError(
            f"capture_graph got a block {type(net.block).__name__} that cannot be traced, so its "
            "layers run as Python, of which a graph would keep one run; see the warning of a call "
            "of the module"
        )


def check_like(name: str, tensor: Any, static: Tensor) -> None:
    """Raise a ValueError unless a tensor has the type, shape and device of the captured one.

    Parameters
    ----------
    name : str
        Name of the tensor, for the message.
    tensor : Tensor
        Tensor of a call.
    static : Tensor
        Tensor with which the graph was captured.

    Examples
    --------
    >>> check_like("x", torch.ones(3), torch.ones(2))
    Traceback (most recent call last):
    ValueError: GraphedLayers got x as torch.float32 of shape (3,) on cpu, but was captured with \
torch.float32 of shape (2,) on cpu; give such a tensor, or call capture_graph again
    """
    kind = f"type {type(tensor).__name__}"
    if isinstance(tensor, Tensor):
        kind = f"{tensor.dtype} of shape {tuple(tensor.shape)} on {tensor.device}"
    wanted = f"{static.dtype} of shape {tuple(static.shape)} on {static.device}"
    if kind != wanted:
        raise ValueError(
            f"GraphedLayers got {name} as {kind}, but was captured with {wanted}; give such a "
            f"tensor, or {AGAIN}"
        )
    if tensor.requires_grad and not static.requires_grad:
        raise ValueError(
            f"GraphedLayers got {name} with requires_grad, but was captured without: its graph has "
            f"no such gradient; {AGAIN} with the tensor as it is now"
        )
