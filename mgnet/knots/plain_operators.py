"""A switch for exporters: splines in PyTorch's own operators, which other runtimes support."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["asks_for_plain_operators", "exact", "plain_operators"]


class _Wanted(threading.local):
    yes: bool = False


_wanted = _Wanted()


@contextmanager
def plain_operators() -> Iterator[None]:
    """Evaluate spline layers with PyTorch's own operators inside the context.

    A program that `torch.export` or `torch.jit.trace` creates inside the context can be loaded and
    run without mgnet: in another environment, with another runtime, or in C++. It evaluates all
    splines at every input, so its cost grows with the number of intervals. `torch.onnx.export` does
    not need this switch.

    Yields
    ------
    None
        Nothing; the context is active inside the `with` statement.

    Examples
    --------
    >>> from mgnet.knots import KAN
    >>> kan, x = KAN([2, 5, 1]), torch.rand(10, 2, dtype=torch.float64)
    >>> batch = {0: torch.export.Dim("batch")}
    >>> with plain_operators():
    ...     program = torch.export.export(kan, (x,), dynamic_shapes=(batch,))
    >>> {str(node.target).partition(".")[0] for node in program.graph.nodes
    ...  if node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload)}
    {'aten'}
    """
    former, _wanted.yes = _wanted.yes, True
    try:
        yield
    finally:
        _wanted.yes = former


def asks_for_plain_operators() -> bool:
    """Whether plain operators are requested, or an exporter to ONNX is running, which needs them.

    Examples
    --------
    >>> asks_for_plain_operators()
    False
    >>> with plain_operators():
    ...     asks_for_plain_operators()
    True
    """
    if _wanted.yes:
        return True
    traced = torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None
    return traced and torch.onnx.is_in_onnx_export()


def exact(number: float, like: torch.Tensor) -> float | torch.Tensor:
    """Return a Python number, or a constant tensor if an exporter might round the number.

    PyTorch's exporter to ONNX rounds Python numbers to single precision, even in double-precision
    networks.

    Examples
    --------
    >>> exact(0.1, torch.zeros(1))
    0.1
    >>> with plain_operators():
    ...     exact(0.1, torch.zeros(1))
    tensor(0.1000)
    """
    if asks_for_plain_operators():
        return torch.tensor(number, dtype=like.dtype, device=like.device)
    return number
