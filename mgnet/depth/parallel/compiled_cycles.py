"""Relaxation, coarse marches and adjoints for multigrid over layers, in compiled loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mgnet.depth.compiled.march import CompiledMarch, PackedLayers
from mgnet.depth.compiled.runs import LayerRuns, Runs
from mgnet.depth.mgrit.c_layers import Intervals
from mgnet.depth.mgrit.marching import AtOnce
from mgnet.depth.parallel.adjoint import Adjoint
from mgnet.depth.parallel.compiled_serial import compiled_march
from mgnet.depth.parallel.fused_layers import FusedLayers
from mgnet.depth.parallel.propagation_setup import PropagationSetup

__all__ = ["CompiledAdjoint", "CompiledForward", "compiled_cycles"]


def compiled_cycles(setup: PropagationSetup, u: Tensor) -> CompiledMarch | str:
    """Return the compiled loops for cycles over states like u, or the reason why there are none.

    Parameters
    ----------
    setup : PropagationSetup
        The layers and the method.
    u : Tensor of shape (batch, ..., features)
        A state before the layers.

    Examples
    --------
    >>> from mgnet.depth import ODENet
    >>> from mgnet.depth.parallel.method import MGRITMethod
    >>> from mgnet.depth.parallel.propagation_setup import detached
    >>> net, method = ODENet(torch.nn.Linear(2, 2), 4), ("newton", "newton", ("F",))
    >>> method = MGRITMethod.from_texts((2,), *method)
    >>> setup = PropagationSetup.of(net.kernel, detached(net.layers()), method)
    >>> compiled_cycles(setup, torch.ones(5, 2))
    "Newton's method needs Jacobians"
    """
    if any(setup.method.sweeps):
        return "Newton's method needs Jacobians"
    return compiled_march(setup, u)


class CompiledForward(AtOnce):
    """The forward `Propagator` of one call, which converts each level for the loops only once.

    Levels that the loops cannot process, with fused or identity layers, are handled by the setup.

    Parameters
    ----------
    setup : PropagationSetup
        The layers and the method.
    compiled : CompiledMarch
        The compiled loops.
    with_steps : bool
        Whether gradients with respect to the steps are needed.
    every : bool
        Whether gradients with respect to all states are passed to the adjoint.

    Examples
    --------
    >>> from mgnet.depth import ODENet
    >>> from mgnet.depth.parallel.method import MGRITMethod
    >>> from mgnet.depth.parallel.propagation_setup import detached
    >>> net, method = ODENet(torch.nn.Linear(2, 2), 8), MGRITMethod.from_texts((4,), "V", "V", "F")
    >>> setup, u = PropagationSetup.of(net.kernel, detached(net.layers()), method), torch.ones(3, 2)
    >>> forward = CompiledForward(setup, compiled_cycles(setup, u))
    >>> forward.advance(1, slice(0, 2), u.expand(2, 3, 2)).shape
    torch.Size([2, 3, 2])
    """

    reverse = False

    def __init__(
        self,
        setup: PropagationSetup,
        compiled: CompiledMarch,
        with_steps: bool = True,
        every: bool = False,
    ):
        self.setup, self.compiled, self.with_steps, self.every = setup, compiled, with_steps, every
        self._packed: dict[int, PackedLayers | None] = {}

    def packed(self, level: int) -> PackedLayers | None:
        """The layers of a level in the format of the loops; None if they are not supported."""
        if level not in self._packed:
            layers, found = self.setup.levels[level], None
            same = level and self.setup.method.coarse == "identity"
            if len(layers) and not isinstance(layers, FusedLayers) and not same:
                count = len(layers.parameters)
                rest = [False] * (len(layers.buffers) + 1)
                wanted = [*[True] * count, *rest, self.with_steps]
                found = PackedLayers(self.compiled, layers.tensors(), False, wanted)
            self._packed[level] = found
        return self._packed[level]

    def record(self, level: int, states: Tensor) -> tuple[LayerRuns, Tensor]:
        """Record the layers of a level from the states before their runs; return the states after.

        On the finest level, runs are intervals, for gradients with respect to its parameters; on
        coarser levels, they are single layers.
        """
        packed: Any = self.packed(level)
        factor = 1 if level else self.setup.method.factors[0]
        runs = Runs.of_intervals(packed.count, factor)
        kept = () if level else self.compiled.prepared.wanted(packed.wanted)
        rows = level > 0 or self.every
        found = LayerRuns(packed, runs, states.shape[1:], kept, rows)
        self._count(packed.count)
        return found, found.forward(states)

    def advance(self, level: int, which: slice, states: Tensor) -> Tensor:
        """Implement `PropagationSetup.advance`."""
        packed = self.packed(level)
        if packed is None or not len(states):
            return self.setup.advance(level, which, states)
        self._count(len(states))
        runs = Runs.of_slice(which, packed.count)
        return LayerRuns(packed, runs, states.shape[1:]).forward(states)

    def trajectory(self, level: int, layers: int, start: Tensor, f: Tensor | None) -> Tensor | None:
        """All points of a march over the layers of a level, if the loops support them."""
        packed = self.packed(level) if layers else None
        if packed is None:
            return None
        self._count(layers)
        rows = None if f is None else f[None, 1:]
        found = LayerRuns(packed, Runs.of_intervals(layers, layers), start.shape[1:], ())
        return torch.cat([start, found.forward(start, rows, every=True)[0]])

    def march(self, level: int, *given: Any) -> list[Tensor]:
        """Implement `PropagationSetup.march` for levels that the loops do not support."""
        return self.setup.march(level, *given)

    def relax(
        self, level: int, parts: Intervals, points: Tensor, f: Tensor | None, inner: bool
    ) -> Tensor | None:
        """Process all intervals at once; return their end values or, if `inner`, the F-points."""
        packed = self.packed(level)
        if packed is None:
            return None
        runs = inner_runs(parts, False) if inner else Runs.of_intervals(parts.layers, parts.factor)
        if not runs.count:
            return None
        self._count((runs.count - 1) * runs.length + runs.last)
        found = LayerRuns(packed, runs, points.shape[1:], () if inner else None)
        if f is not None:
            f = f[inner_points(parts, runs.count)]
        return found.forward(points[: runs.count], f, every=inner)

    def _count(self, layers: int) -> None:
        self.setup.kernel.evaluations += self.setup.kernel.stages * layers


def inner_runs(parts: Intervals, reverse: bool) -> Runs:
    """The runs of layers from the C-points to the last F-points of all intervals.

    Examples
    --------
    >>> inner_runs(Intervals(7, 3), reverse=False)
    Runs(first=0, step=3, count=2, length=2, last=2)
    >>> inner_runs(Intervals(8, 3), reverse=True)
    Runs(first=1, step=3, count=3, length=2, last=1)
    """
    first, step, count, length, last = Runs.of_intervals(parts.layers, parts.factor)
    if last == 1:  # the last interval has no F-points
        count, last = count - 1, length
    return Runs(int(reverse), step, count, length - 1, last - 1)


def inner_points(parts: Intervals, count: int) -> Tensor:
    """The numbers of the F-points of `count` intervals; n for points that a short last one lacks.

    Examples
    --------
    >>> inner_points(Intervals(8, 3), 3)
    tensor([[1, 2],
            [4, 5],
            [7, 8]])
    """
    length = min(parts.factor, parts.layers) - 1
    points = 1 + parts.factor * np.arange(count)[:, None] + np.arange(length)
    return torch.from_numpy(np.minimum(points, parts.layers))


class CompiledAdjoint(Adjoint, AtOnce):
    """The adjoint of a sweep recorded by the compiled loops; see `Adjoint`.

    Examples
    --------
    >>> from mgnet.depth import LayerParallel, ODENet
    >>> net, u = ODENet(torch.nn.Linear(2, 2), 8), torch.ones(3, 2)
    >>> (expected,) = torch.autograd.grad(net(u).sum(), net.block.weight)
    >>> (found,) = torch.autograd.grad(LayerParallel(net)(u).sum(), net.block.weight)
    >>> bool((found - expected).norm() < 0.1 * expected.norm())
    True
    """

    def __init__(self, forward: Any, gathered: Tensor | None):
        super().__init__(forward, gathered)
        self.loops: CompiledForward = forward.loops
        self._levels: dict[int, LayerRuns] = {0: forward.swept}

    def runs(self, level: int) -> LayerRuns | None:
        """The recorded layers of a level, if the loops support them."""
        if level not in self._levels:
            if self.loops.packed(level) is None:
                return None
            coarsest = len(self.forward.setup.method.factors)
            points = self.gathered if level > coarsest else self.forward.points_of(level)
            self._levels[level], _ = self.loops.record(level, points)  # type: ignore[arg-type]
        return self._levels[level]

    def record_coarse(self) -> None:
        """Implement `Adjoint.record_coarse`."""
        setup = self.forward.setup
        if self._same or setup.gathered:
            return
        for level in range(1, len(setup.method.factors) + 1):
            if self.runs(level) is None:
                self._of_level(level)

    def advance(self, level: int, which: slice, states: Tensor) -> Tensor:
        """Implement `Adjoint.advance`."""
        runs = self.runs(level) if len(states) else None
        if runs is None:
            return super().advance(level, which, states)
        chosen, sources = Runs.of_slice(which, runs.packed.count), self._of_states(level)
        self._count(len(states))
        new = runs.backward(states, chosen)
        return new if sources is None else new.add_(sources[which])

    def trajectory(self, level: int, layers: int, start: Tensor, f: Tensor | None) -> Tensor | None:
        """Implement `CompiledForward.trajectory`."""
        same = level and self._same
        runs = self.runs(level) if layers and not same else None
        if runs is None:
            return None
        whole, f = Runs.of_intervals(layers, layers), None if f is None else f[:-1]
        return torch.cat([self._points(runs, level, start, whole, f), start])

    def relax(
        self, level: int, parts: Intervals, points: Tensor, f: Tensor | None, inner: bool
    ) -> Tensor | None:
        """Implement `CompiledForward.relax`."""
        runs = self.runs(level) if parts.layers else None
        if runs is None:
            return None
        if not inner:
            self._count(parts.layers)
            return runs.backward(points, rows=self._of_states(level))
        chosen = inner_runs(parts, True)
        if not chosen.count:
            return None
        f = None if f is None else f[:-1]
        found = self._points(runs, level, points[: chosen.count], chosen, f)
        return found[inner_points(parts, chosen.count).clamp_(max=parts.layers - 1)]

    def _points(
        self, runs: LayerRuns, level: int, states: Tensor, chosen: Runs, f: Tensor | None
    ) -> Tensor:
        """The points before the layers of some runs; the other entries are undefined."""
        sources = self._of_states(level)
        rows = sources if f is None else f if sources is None else f + sources
        self._count((chosen.count - 1) * chosen.length + chosen.last)
        return runs.backward(states, chosen, rows, every=True)

    def _count(self, layers: int) -> None:
        kernel = self.forward.setup.kernel
        kernel.vjps += kernel.stages * layers
