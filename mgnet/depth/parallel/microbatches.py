"""The gradient of a batch as the sum of the gradients of its microbatches: `accumulate_gradients`.

This also works if each of several copies of a network processes part of each batch
(`mgnet.petsc.distribute`). Gradients are added in the order of the microbatches, on whichever rank
they were computed, so the sum has the same bits on any grid of ranks.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mgnet.depth.mgrit.communicator import largest
from mgnet.depth.network.ode_net import ODENet
from mgnet.depth.parallel.batch_pieces import checked_loss, fingerprint, pieces_of
from mgnet.depth.parallel.control import AdaptiveCycles
from mgnet.depth.parallel.layer_parallel import LayerParallel
from mgnet.depth.parallel.whole_state import distributed_parts
from mgnet.limits import is_count, shown

__all__ = ["accumulate_gradients"]

CHUNK = 2**18  # numbers in a message: ranks downstream add one while the next is sent

Loss = Callable[[nn.Module, Any], Tensor]
Gradients = Sequence[Tensor | None]


def accumulate_gradients(
    module: nn.Module, loss: Loss, batch: Any, microbatches: int | None = None
) -> Tensor:
    """Add the gradient of a mean loss over a batch to `.grad`, one microbatch after another.

    Call it instead of `loss(module, batch).backward()`. It needs the memory of one microbatch, and
    if `mgnet.petsc.distribute` has made several copies of the network, each copy processes only
    some of the microbatches. All ranks must pass the same batch. The terms of the sum and their
    order depend on the number of microbatches, not on the ranks.

    Parameters
    ----------
    module : torch.nn.Module
        The module, such as a `LayerParallel`, which may be distributed, or a module that contains
        it.
    loss : callable
        The function `loss(module, batch)`, which returns a scalar tensor: a mean over the rows of
        its batch.
    batch : tensor, or tuple, list or mapping of tensors
        The batch. All tensors that have axes have the same number of rows, on axis 0. Values that
        are not tensors with axes are passed unchanged with every microbatch.
    microbatches : int, optional
        Number of microbatches, of equal size or with one more row in each of the first few; by
        default, the number of copies of the network.

    Returns
    -------
    tensor without axes, float64
        The mean loss over the whole batch, the same on all ranks.

    Raises
    ------
    TypeError, ValueError
        If the batch cannot be divided; if a microbatch would depend on earlier ones, through
        running statistics with several copies of the network, `warm_start`, or a mode chosen by
        timing; if ranks have different batches (first and last rows are compared) or random
        numbers; or if several copies have a sparse gradient.

    Notes
    -----
    Batch statistics, such as those of batch norm, are computed per microbatch, as in any
    accumulation of gradients. Dropout masks are drawn for each microbatch and are the same on any
    grid of ranks. Put parameters of the loss itself into a module around the network; otherwise
    they are not summed over ranks.

    Examples
    --------
    >>> net = nn.Linear(3, 1)
    >>> batch = torch.randn(8, 3), torch.randn(8, 1)
    >>> def loss(module, batch):
    ...     x, y = batch
    ...     return nn.functional.mse_loss(module(x), y)
    >>> value = accumulate_gradients(net, loss, batch, microbatches=4)
    >>> whole = torch.autograd.grad(loss(net, batch), net.weight)
    >>> torch.allclose(net.weight.grad, *whole), torch.allclose(value.float(), loss(net, batch))
    (True, True)
    """
    row = _row_of(module)
    ranks = 1 if row is None else row.ranks
    count = ranks if microbatches is None else microbatches
    if not is_count(count, ranks):
        raise ValueError(
            f"accumulate_gradients got microbatches {shown(count)}; give a number of at least "
            f"{ranks}{', one for each network' if ranks > 1 else ''}"
        )
    _check_independent(module, count, row)
    pieces, step = pieces_of(batch, count), _Step(module, loss, count)
    _check_same(module, batch, step.drawn)
    if row is None:
        total = torch.stack([step.add(*piece, n) for n, piece in enumerate(pieces)]).cumsum(0)[-1]
        step.finish(None)
        _share_failure(module)
        return total
    own = range(count * row.rank // ranks, count * (row.rank + 1) // ranks)
    parameters = [p for p in module.parameters() if p.requires_grad]
    before = [p.grad for p in parameters]
    try:
        parts = _gradients(step, pieces, own, parameters)
    finally:
        _put(parameters, before)
    step.finish(row)
    nothing = torch.zeros((), dtype=torch.float64)
    if row.rank == 0:
        parts = [[*before, nothing], *parts]
    *total, value = _added_in_order(row, parts, [*parameters, nothing])
    with torch.no_grad():
        for p, new in zip(parameters, total, strict=True):
            if new is not None and p.grad is not None:
                p.grad.copy_(new)
            elif new is not None:
                p.grad = new.clone()
    _share_failure(module)
    return value.clone()  # type: ignore[union-attr]


class _Step:
    """State to be restored before each microbatch: random generators, controls, call counts."""

    def __init__(self, module: nn.Module, loss: Loss, count: int):
        self.module, self.loss, self.count = module, loss, count
        nets = [part for part in module.modules() if isinstance(part, ODENet)]
        parallel = [part for part in module.modules() if isinstance(part, LayerParallel)]
        self.nets = [(net, net.seed, net.calls) for net in nets]
        self.parallel = [(part, part.control, part.calls) for part in parallel]
        self.devices = sorted(
            {p.device.index for p in module.parameters() if p.device.type == "cuda"}
        )
        self.drawn = int(torch.randint(2**62, ())) if count > 1 else 0
        self.ends: list[Any] | None = None  # state after the first microbatch of this process

    def add(self, piece: Any, weight: float, number: int) -> Tensor:
        """Add the gradient of a microbatch to `.grad`; return its contribution to the loss."""
        with self._begun(number):
            share = checked_loss("accumulate_gradients", self.loss(self.module, piece))
            share = share * weight if self.count > 1 else share
            share.backward()
        return share.detach().double()

    @contextmanager
    def _begun(self, number: int) -> Iterator[None]:
        if self.count == 1:
            yield
            return
        for part, control, calls in self.parallel:
            part.control, part.calls = control, calls
        for net, seed, calls in self.nets:
            net.seed, net.calls = _mixed(seed, calls, number), 0
        try:
            with torch.random.fork_rng(self.devices):
                torch.manual_seed(_mixed(self.drawn, number))
                yield
        finally:
            if self.ends is None:
                self.ends = [(part.control, part.calls) for part, *_ in self.parallel]
                self.drew = [bool(net.calls) for net, *_ in self.nets]
            for net, seed, calls in self.nets:
                net.seed, net.calls = seed, calls

    def finish(self, row: Any) -> None:
        """Leave the module as after one call, in the state after the batch's first microbatch."""
        if self.count == 1:
            return
        for (net, _, calls), drew in zip(self.nets, self.drew, strict=True):
            net.calls = calls + drew
        for (part, before, _), end in zip(self.parallel, self.ends or (), strict=True):
            part.control, part.calls = end
            if row is not None and isinstance(before, AdaptiveCycles):
                part.control, part.calls = row.broadcast(end)


def _gradients(
    step: _Step,
    pieces: Sequence[tuple[Any, float]],
    own: range,
    parameters: Sequence[nn.Parameter],
) -> list[list[Tensor | None]]:
    """For each microbatch of this process, the gradients and the contribution to the loss."""
    parts: list[list[Tensor | None]] = []
    buffers = _buffers(step.module)
    for number in own:
        _put(parameters, [None] * len(parameters))
        value = step.add(*pieces[number], number)
        parts.append([*(p.grad for p in parameters), value])
        if any(p.grad is not None and p.grad.is_sparse for p in parameters):
            raise ValueError(
                "accumulate_gradients got a sparse gradient, which several networks do not add; "
                "use Embedding(sparse=False), or distribute(..., batches=1)"
            )
        for name, value in buffers.items():
            if not torch.equal(step.module.get_buffer(name), value):
                raise ValueError(
                    f"accumulate_gradients got a module whose calls change '{name}', which then "
                    "differs between the networks of a grid; use layers without running "
                    "statistics, such as GroupNorm and LayerNorm, or distribute(..., batches=1)"
                )
    return parts


def _buffers(module: nn.Module) -> dict[str, Tensor]:
    """Copies of the saved buffers, because batch norm edits them without counting versions."""
    saved = module.state_dict(keep_vars=True)
    return {name: b.clone() for name, b in module.named_buffers() if name in saved}


def _added_in_order(
    row: Any, parts: Sequence[Gradients], like: Sequence[Tensor]
) -> list[Tensor | None]:
    """The sums over all copies of the network, added in the same order as on one process."""
    have = torch.tensor([[any(part[n] is not None for part in parts) for n in range(len(like))]])
    some = row.gather(have).reshape(row.ranks, len(like)).any(0).tolist()
    total: list[Tensor | None] = [None] * len(like)
    kinds = dict.fromkeys((each.dtype, each.device) for each in like)
    for kind in kinds:
        which = [n for n, t in enumerate(like) if some[n] and (t.dtype, t.device) == kind]
        if not which:
            continue
        rows = [torch.cat([_flat(part[n], like[n]) for n in which]) for part in parts]
        sums = torch.cat([_passed_on(row, cuts) for cuts in _chunks(rows)])
        sums = row.broadcast_from_last(sums, False)
        ends = sums.split([like[n].numel() for n in which])
        for n, flat in zip(which, ends, strict=True):
            total[n] = flat.view(like[n].shape)
    return total


def _chunks(rows: Sequence[Tensor]) -> Iterator[tuple[Tensor, ...]]:
    return zip(*(each.split(CHUNK) for each in rows), strict=True)


def _passed_on(row: Any, parts: Sequence[Tensor]) -> Tensor:
    """Add this copy's gradients to the sum of the preceding copies, and pass that on."""
    first, *others = parts
    total = row.receive(first, False)
    if row.rank:
        total, others = total.clone(), list(parts)
    for each in others:
        total = total + each
    row.send(total, False)
    return total


def _flat(gradient: Tensor | None, like: Tensor) -> Tensor:
    if gradient is None:  # adding -0 leaves any number unchanged, even -0
        return torch.full((like.numel(),), -0.0, dtype=like.dtype, device=like.device)
    return gradient.detach().reshape(-1)


def _put(parameters: Sequence[nn.Parameter], gradients: Gradients) -> None:
    for p, gradient in zip(parameters, gradients, strict=True):
        p.grad = gradient


def _row_of(module: nn.Module) -> Any:
    """The other copies of the network, if there are several."""
    found = [m.communicator.batches for m in module.modules() if isinstance(m, LayerParallel)]
    rows = [each for each in found if each is not None]
    if rows and (len(rows) < len(found) or len({each.ranks for each in rows}) > 1):
        raise ValueError(
            "accumulate_gradients got a module with LayerParallel parts on different grids of "
            "ranks; call distribute with the same numbers for each"
        )
    return rows[0] if rows else None


def _check_independent(module: nn.Module, count: int, row: Any) -> None:
    """Raise an error if a microbatch would depend on earlier ones."""
    for part in module.modules() if count > 1 else ():
        if not isinstance(part, LayerParallel):
            continue
        if part.settings["warm_start"]:
            raise ValueError(
                "accumulate_gradients got several microbatches and a LayerParallel with "
                "warm_start=True, which begins with the trajectory of another microbatch; use "
                "warm_start=False"
            )
        if part.settings["mode"] == "auto" and row is not None:
            raise ValueError(
                "accumulate_gradients got a LayerParallel with mode='auto', which the networks of "
                "a grid may measure differently; use mode='mgrit' or 'serial'"
            )


def _check_same(module: nn.Module, batch: Any, drawn: int) -> None:
    """Raise an error if ranks differ in random numbers or in the batch's first or last rows."""
    spread = [part.communicator for part in distributed_parts(module)]
    if not spread:
        return
    own = torch.tensor([[fingerprint(batch)], [drawn]])
    others = [each for each in (spread[0], spread[0].batches) if each is not None]
    seen = torch.cat([each.gather(own) for each in others], 1)
    batches, numbers = (seen != own).any(1).tolist()
    if batches:
        raise ValueError(
            "accumulate_gradients got different batches on the ranks; give all ranks the same "
            "whole batch, without a DistributedSampler: each network takes its own microbatches"
        )
    if numbers:
        raise ValueError(
            "accumulate_gradients got different random numbers on the ranks, which dropout would "
            "use; call torch.manual_seed with the same seed on all ranks"
        )


def _share_failure(module: nn.Module) -> None:
    """Set gradients to NaN on all ranks of a network if any gradient on a rank is not finite.

    Each rank has its own optimizer, and possibly a GradScaler, which would skip the step on that
    rank alone.
    """
    for part in distributed_parts(module):
        if part.communicator.ranks == 1:
            continue
        own = [p.grad for p in part.parameters() if p.grad is not None]
        failed = any(not bool(each.isfinite().all()) for each in own)
        if largest(part.communicator, int(failed)):
            for gradient in own:
                gradient.fill_(torch.nan)


def _mixed(*numbers: int) -> int:
    """Combine several numbers into a seed."""
    return random.Random(" ".join(map(str, numbers))).getrandbits(62)
