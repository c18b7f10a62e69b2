"""Evaluation of a module that can propagate in several ways: mean metrics, and timings."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

__all__ = ["evaluating", "fastest", "least_seconds", "means", "preferred", "unchanged"]

TURNS, MOST_TURNS, ENOUGH = 3, 10, 0.2  # turns of a measurement: least, most; enough seconds
SAVED = 0.95  # fraction of the time of serial propagation


def means(
    outputs: Callable[[Tensor, Mapping[str, Any], Sequence[str]], Iterable[Tensor]],
    metric: Callable[[Tensor, Any], Any],
    batches: Iterable[Sequence[Any]],
    ways: Sequence[str],
) -> dict[str, float]:
    """Compute the mean of `metric(output, target)` for each propagation, weighted by batch sizes.

    Parameters
    ----------
    outputs : callable
        A function `(x, side inputs, ways)` that returns the output of each way to propagate.
    metric : callable
        A function `(output, target)` that returns the mean over a batch.
    batches : iterable of (x, target) or (x, target, side inputs)
        The batches.
    ways : sequence of str
        Names of the ways to propagate.

    Returns
    -------
    dict of str to float
        The mean for each way to propagate.

    Raises
    ------
    TypeError, ValueError
        If a batch has a different form, or there are no samples.

    Examples
    --------
    >>> import torch
    >>> batches = [(torch.ones(2), None), (torch.zeros(6), None)]
    >>> means(lambda x, side, ways: [x, 2.0 * x], lambda y, _: y.mean(), batches, ("once", "twice"))
    {'once': 0.25, 'twice': 0.5}
    """
    total, count = dict.fromkeys(ways, 0.0), 0
    for batch in batches:
        x, target, side = _parts(batch)
        for way, output in zip(ways, outputs(x, side, ways), strict=True):
            total[way] += len(x) * float(metric(output, target))
        count += len(x)
    if not count:
        raise ValueError(
            "evaluate got batches without a sample; give at least one (an iterator that is already "
            "exhausted is empty: give a list or a DataLoader)"
        )
    return {way: total[way] / count for way in ways}


def _parts(batch: Sequence[Any]) -> tuple[Any, Any, Mapping[str, Any]]:
    side = batch[2] if len(batch) == 3 else {}
    if len(batch) not in (2, 3) or not isinstance(side, Mapping):
        kinds = ", ".join(type(each).__name__ for each in batch)
        raise TypeError(
            f"evaluate got a batch ({kinds}); give (x, target), or (x, target, side) with a "
            "dictionary of side inputs"
        )
    return batch[0], batch[1], side


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """A context in evaluation mode; afterwards, each submodule has its previous mode again.

    Examples
    --------
    >>> dropout = nn.Dropout(0.5)
    >>> with evaluating(dropout):
    ...     dropout.training
    False
    >>> dropout.training
    True
    """
    training = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in training:
            part.training = mode


@contextmanager
def unchanged(module: nn.Module) -> Iterator[None]:
    """A context for trial calls, after which buffers and PyTorch's random generators are restored.

    Unchanged buffers are not written to, because graphs that are yet to be differentiated may need
    them.

    Examples
    --------
    >>> norm = nn.BatchNorm1d(2)
    >>> with unchanged(norm):
    ...     _ = norm(torch.randn(5, 2))
    >>> norm.num_batches_tracked
    tensor(0)
    """
    kept = [
        (part, name, buffer, buffer.clone())
        for part in module.modules()
        for name, buffer in part.named_buffers(recurse=False)
        if not buffer.is_meta
    ]
    with torch.random.fork_rng(devices=_graphics(module)):
        try:
            yield
        finally:
            for part, name, buffer, value in kept:
                part._buffers[name] = buffer
                if buffer.layout != torch.strided or not torch.equal(buffer, value):
                    buffer.copy_(value)


def _graphics(module: nn.Module) -> list[torch.device]:
    """The GPUs of a module, which have separate generators."""
    tensors = [*module.parameters(), *module.buffers()]
    return [*dict.fromkeys(x.device for x in tensors if x.is_cuda)]


def fastest(
    run: Callable[..., Tensor],
    u: Tensor,
    side: Mapping[str, Any],
    parameters: Sequence[Tensor],
    trials: int = 3,
) -> float:
    """Time `run(u, side=side)` several times, with gradients if it records; return the least time.

    The graphs that computed u and the side inputs are not affected.

    Parameters
    ----------
    run : callable
        The function to measure.
    u : Tensor
        The state before the layers.
    side : mapping
        Side inputs of a call.
    parameters : sequence of Tensor
        Parameters that `run` also uses.
    trials : int
        Number of measurements.

    Returns
    -------
    float
        The shortest time in seconds.

    Examples
    --------
    >>> fastest(lambda u, side: u + side["shift"], torch.ones(1), {"shift": torch.ones(1)}, []) > 0
    True
    """
    u = u.detach().requires_grad_(u.requires_grad)
    side = tree_map_only(Tensor, lambda x: x.detach().requires_grad_(x.requires_grad), dict(side))
    given = [u, *parameters, *tree_leaves(side)]
    wanted = [x for x in given if isinstance(x, Tensor) and x.requires_grad]
    seconds = []
    for _ in range(trials):
        began = time.perf_counter()
        out = run(u, side=side)
        if out.requires_grad:
            torch.autograd.grad(out.sum(), wanted, allow_unused=True)
        if u.is_cuda:
            torch.cuda.synchronize(u.device)
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def least_seconds(
    runs: Mapping[str, Callable[..., Tensor]],
    u: Tensor,
    side: Mapping[str, Any],
    parameters: Sequence[Tensor],
    alone: bool = True,
) -> dict[str, float]:
    """Time several functions in turn with `fastest`, so a slow phase of the machine affects all.

    Each function is timed three times, or up to ten times while the total is below 0.2 s. If a
    function meets a state that is not finite, its time counts as infinite.

    Parameters
    ----------
    runs : mapping of str to callable
        The functions by name.
    u, side, parameters
        The arguments of `fastest`.
    alone : bool
        Whether no other process takes part. Other processes would not know when to stop, so if they
        take part, each function is timed exactly three times.

    Returns
    -------
    dict of str to float
        The shortest time of each function, in seconds.

    Examples
    --------
    >>> runs = {"once": lambda u, side: u + 1.0, "twice": lambda u, side: u + 1.0 + 1.0}
    >>> sorted(least_seconds(runs, torch.ones(1), {}, []))
    ['once', 'twice']
    """
    seconds, spent = dict.fromkeys(runs, math.inf), 0.0
    for turn in range(MOST_TURNS):
        if turn >= TURNS and (spent > ENOUGH or not alone):
            break
        for name, run in runs.items():
            try:
                found = fastest(run, u, side, parameters, trials=1)
            except FloatingPointError:
                found = math.inf
            spent += found
            seconds[name] = min(seconds[name], found)
    return seconds


def preferred(seconds: Mapping[str, float]) -> str:
    """Return "mgrit" if cycles save at least 5 % of the time, else "serial", which is exact.

    Examples
    --------
    >>> preferred({"mgrit": 0.97, "serial": 1.0}), preferred({"mgrit": 0.9, "serial": 1.0})
    ('serial', 'mgrit')
    """
    return "mgrit" if seconds["mgrit"] < SAVED * seconds["serial"] else "serial"
