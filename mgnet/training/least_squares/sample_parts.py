"""Run residual functions so that autograd stores the graph for only a part of the samples.

A residual function calls a network at all its points. If residual i depends only on sample i of a
call, the stand-in for the network may provide derivatives for some samples only: the outputs for
the other samples have values but no graph. The rows of the samples with derivatives are then
correct.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.func import vmap

from mgnet.training.loss.parameters import FlatParameters
from mgnet.training.loss.tied_tensors import call_with

__all__ = ["Call", "PerSample", "SampleParts", "rows_of_samples"]

Window = Callable[[int], tuple[int, int]]


@dataclass
class Call:
    """One call of the network.

    Attributes
    ----------
    samples : int
        Number of samples of the call.
    begin, end : int
        Range of the samples that have derivatives now; empty if `begin >= end`.
    copies : tuple
        Tensors with respect to which the stand-in differentiates.
    values : tensor or None
        Outputs for all samples, once they have been computed.
    """

    samples: int
    begin: int = 0
    end: int = 0
    copies: tuple[Any, ...] = ()
    values: torch.Tensor | None = None


class SampleParts:
    """The calls in one run of a residual function, and which of their samples have derivatives.

    Parameters
    ----------
    window : callable
        Function that maps the number of samples of a call to the range of those with derivatives.

    Examples
    --------
    >>> parts = SampleParts(lambda samples: (1, 3))
    >>> x = torch.ones(4, 1)
    >>> y = parts.run((x,), lambda x: 2.0 * x, lambda x: (5.0 * x, ()))
    >>> y.flatten().tolist(), parts.calls[0].end
    ([2.0, 5.0, 5.0, 2.0], 3)
    """

    def __init__(self, window: Window):
        self.window = window
        self.calls: list[Call] = []
        self._next = 0

    def restart(self, window: Window) -> None:
        """Prepare to run the residual function again, for other samples."""
        self.window, self._next = window, 0

    def run(
        self,
        inputs: tuple[torch.Tensor, ...],
        plain: Callable[..., torch.Tensor],
        differentiated: Callable[..., tuple[torch.Tensor, tuple[Any, ...]]],
    ) -> torch.Tensor:
        """Run one call of the network at these inputs.

        Parameters
        ----------
        inputs : tuple of tensor
            Inputs with one sample per row.
        plain : callable
            `inputs -> outputs`.
        differentiated : callable
            `inputs -> outputs, copies`.
        """
        samples = len(inputs[0])
        if self._next == len(self.calls):
            self.calls.append(Call(samples))
        call = self.calls[self._next]
        self._next += 1
        begin, end = call.begin, call.end = self.window(samples)
        if begin >= end:  # done, but the result still has to depend on its inputs
            begin, end = 0, min(1, samples)
        if end - begin == samples:
            y, call.copies = differentiated(*inputs)
            return y
        if call.values is None:
            step = max(1, end - begin)
            with torch.no_grad():
                pieces = [
                    plain(*(part[n : n + step].detach() for part in inputs))
                    for n in range(0, samples, step)
                ]
            call.values = torch.cat(pieces)
        y, call.copies = differentiated(*(part[begin:end] for part in inputs))
        return torch.cat([call.values[:begin], y, call.values[end:]])


class PerSample(torch.nn.Module):
    """Stand-in for a module that gives every sample of a call its own copy of the parameters.

    Parameters
    ----------
    parameters : FlatParameters
        Parameters of the module.
    u : tensor of shape (parameters,)
        Values of the parameters.
    window : callable
        Range of samples, as for `SampleParts`; all samples by default.

    Examples
    --------
    >>> flat = FlatParameters(torch.nn.Linear(1, 1))
    >>> stand_in = PerSample(flat, torch.tensor([2.0, 0.0]))
    >>> stand_in(torch.ones(3, 1)).flatten().tolist()
    [2.0, 2.0, 2.0]
    """

    def __init__(
        self,
        parameters: FlatParameters,
        u: torch.Tensor,
        window: Window = lambda samples: (0, samples),
    ):
        super().__init__()
        self.parameters_of = parameters
        self.named = parameters.named(u.detach())
        self.parts = SampleParts(window)  # a copy for each parameter

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.parts.run(inputs, self._plain, self._with_copies)

    def _plain(self, *inputs: torch.Tensor) -> torch.Tensor:
        return call_with(self.parameters_of.module, self.named, inputs)

    def _with_copies(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        samples = len(inputs[0])
        copies = tuple(p.expand(samples, *p.shape).requires_grad_() for p in self.named.values())

        def one(own: tuple[torch.Tensor, ...], *sample: torch.Tensor) -> torch.Tensor:
            named = dict(zip(self.named, own, strict=True))
            batch = tuple(part.unsqueeze(0) for part in sample)
            return call_with(self.parameters_of.module, named, batch)[0]

        return vmap(one)(copies, *inputs), copies


def rows_of_samples(
    blocks: list[torch.Tensor], calls: list[Call]
) -> Iterator[tuple[slice, torch.Tensor]]:
    """Yield the positions and rows of the samples with derivatives, for each tensor of residuals.

    Parameters
    ----------
    blocks : list of tensor
        Result of the residual function for a `PerSample`.
    calls : list of Call
        Its `parts.calls`.

    Examples
    --------
    >>> stand_in = PerSample(FlatParameters(torch.nn.Linear(1, 1)), torch.tensor([2.0, 0.0]))
    >>> y = stand_in(torch.full((2, 1), 3.0))
    >>> [(place, rows.tolist()) for place, rows in rows_of_samples([y], stand_in.parts.calls)]
    [(slice(0, 2, None), [[3.0, 1.0], [3.0, 1.0]])]
    """
    start = 0
    for block in blocks:
        samples = len(block)
        own = [call for call in calls if call.samples == samples]
        whole = [copy for call in own for copy in call.copies]
        begin, end = own[0].begin, own[0].end
        rows = []
        for component in block.reshape(samples, -1)[begin:end].unbind(1) if begin < end else ():
            parts = torch.autograd.grad(
                component.sum(), whole, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            row = torch.cat([part.flatten(1) for part in parts], 1)
            rows.append(row.unflatten(1, (len(own), -1)).sum(1) if len(own) > 1 else row)
        if rows:
            places = slice(start + begin * len(rows), start + end * len(rows))
            yield places, rows[0] if len(rows) == 1 else torch.stack(rows, 1).flatten(0, 1)
        start += block.numel()
