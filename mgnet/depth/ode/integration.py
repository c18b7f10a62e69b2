"""The states at all points of a time grid: step by step, by cycles, or by autograd."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from mgnet.depth.batched.autocast import cast_of
from mgnet.depth.batched.block import StackedBlock
from mgnet.depth.batched.lending import aliases, lending
from mgnet.depth.batched.scheme import advance
from mgnet.depth.mgrit.c_layers import level_factors
from mgnet.depth.mgrit.communicator import SERIAL_COMMUNICATOR, Communicator, SerialCommunicator
from mgnet.depth.mgrit.layer_hierarchy import relaxation_words
from mgnet.depth.ode.time_steps import TimeSteps
from mgnet.depth.parallel.control import Control, CyclesToTolerance, PassReport
from mgnet.depth.parallel.method import SERIAL_METHOD, MGRITMethod
from mgnet.depth.parallel.propagation import Propagation
from mgnet.depth.parallel.propagation_setup import PropagationSetup, detached
from mgnet.depth.parallel.serial import march
from mgnet.depth.parallel.solve import ModuleCall, solve

__all__ = ["Integration", "StepRanks"]

# Default relative errors that cycles may leave.
TOLERANCES = {torch.float32: 1e-5, torch.float64: 1e-11}
MOST_CYCLES = 100
LEAST = 2  # least number of steps of a coarsest level


class StepRanks(Protocol):
    """The processes that share the steps of a grid: `mgnet.petsc.steps_over_ranks`."""

    def place(self, steps: int, interval: int) -> tuple[range, Communicator]:
        """The steps of this process (whole intervals of this length), and the communicator."""
        ...

    def check_same(self, tensors: Sequence[Tensor]) -> None:
        """Raise a ValueError on all processes unless these tensors are the same on all of them."""
        ...


@dataclass(frozen=True, eq=False)
class Integration:
    """The solver for the steps of a grid.

    Parameters
    ----------
    kernel : StackedBlock
        The calls of the right-hand side.
    factors : tuple of int
        Coarsening factor of each level; levels for which a grid has too few steps are omitted.
        Empty for serial steps.
    control : FixedCycles, CyclesToTolerance or AdaptiveCycles, optional
        The control of cycles; by default the states agree with serial ones up to 1e-11 (1e-5 in
        float32).
    ranks : StepRanks, optional
        The processes that share the steps.

    Examples
    --------
    >>> from mgnet.depth.ode.right_hand_side import RightHandSide
    >>> from mgnet.depth.ode.state_tree import StateTree
    >>> side = RightHandSide(lambda t, y: -y, StateTree.of(torch.ones(1)))
    >>> t = torch.tensor([0.0, 0.5, 1.0])
    >>> Integration(StackedBlock(side), ()).states(torch.ones(1), t).ravel()
    tensor([1.0000, 0.5000, 0.2500])
    """

    kernel: StackedBlock
    factors: tuple[int, ...]
    control: Control | None = None
    ranks: StepRanks | None = None

    @classmethod
    def of(
        cls,
        kernel: StackedBlock,
        levels: int,
        coarsening: int | Sequence[int],
        control: Control | None = None,
        ranks: StepRanks | None = None,
    ) -> Integration:
        """Create a solver from the user's arguments `levels` and `coarsening`."""
        return cls(kernel, level_factors(levels, coarsening), control, ranks)

    def serial(self) -> Integration:
        """A solver that computes one step after another."""
        return Integration(self.kernel, (), None, self.ranks)

    def states(self, u: Tensor, points: Tensor) -> Tensor:
        """The states at all points of a grid, (N + 1, ...), differentiable.

        Parameters
        ----------
        u : Tensor
            State at the first point.
        points : Tensor of shape (N + 1,)
            Points of the grid.
        """
        if len(points) < 2:
            return u[None]
        if cast_of(u.device.type) is not None or u.is_meta:
            return self.by_autograd(u, points)
        factors = self._fitting(len(points) - 1)
        found = self._solved(u, points, factors) if factors else None
        if found is None:
            found = self._solved(u, points, ())
        return torch.cat([u[None], found])  # type: ignore[list-item]

    def by_autograd(self, u: Tensor, points: Tensor) -> Tensor:
        """The same states in plain PyTorch, which records every operation."""
        steps = TimeSteps.of(self.kernel, points, u.dtype)
        states = [u]
        scheme, side = self.kernel.scheme, self.kernel.template
        for t, s in zip(steps.points[:-1].unbind(), steps.steps_of_all.unbind(), strict=True):
            u = advance(scheme, side, t, u, s)
            states.append(u)
        return torch.stack(states)

    def _fitting(self, count: int) -> tuple[int, ...]:
        """The factors of the levels for which there are enough steps."""
        kept = list[int]()
        for factor in self.factors:
            count = -(-count // factor)
            if count < LEAST:
                break
            kept.append(factor)
        return tuple(kept)

    def _solved(self, u: Tensor, points: Tensor, factors: tuple[int, ...]) -> Tensor | None:
        """The states after each step; None if cycles did not reach their tolerance."""
        method = SERIAL_METHOD
        if factors:
            words = relaxation_words(("F", "FCF"), len(factors))
            method = MGRITMethod.from_texts(factors, "cascade + V", "cascade + V", words)
        steps = TimeSteps.of(self.kernel, points, u.dtype)
        communicator: Communicator = SERIAL_COMMUNICATOR
        if self.ranks is not None:
            self.ranks.check_same((u, points, *self.kernel.template.state_dict().values()))
            steps.kept, communicator = self.ranks.place(steps.depth, method.strides[-1])
        with lending():
            kernel, layers = steps.layers(communicator, method.strides[-1])
        setup = PropagationSetup.of(
            kernel,
            detached(layers),
            method,
            communicator,
            state_bytes=u.numel() * u.element_size(),
            fixed_steps=True,
        )
        if not factors:
            alone = isinstance(communicator, SerialCommunicator)
            plain = (lambda: self.by_autograd(u, points)[1:]) if alone else None
            spread = steps.spread(communicator, method.strides[-1])
            given = steps.slots().tensors()[0] if spread else layers.parameters
            lengths, *parameters = aliases((layers.steps, *given))
            return march(setup, u, lengths, parameters, otherwise=plain, spread=spread, every=True)
        lengths, *parameters = aliases((layers.steps, *layers.parameters))
        return self._by_cycles(steps, setup, u, lengths, parameters)

    def _by_cycles(
        self,
        steps: TimeSteps,
        setup: PropagationSetup,
        u: Tensor,
        lengths: Tensor,
        parameters: Sequence[Tensor],
    ) -> Tensor | None:
        chosen = CyclesToTolerance(TOLERANCES[u.dtype], max_cycles=MOST_CYCLES)
        control = self.control or chosen
        record, made = setup.is_recorded(u, lengths, parameters), list[PassReport]()
        call = ModuleCall(
            steps,  # type: ignore[arg-type]
            Propagation(setup, every=True),
            {name: control.limit(name) for name in ("forward", "backward")},
            record,
            False,
            partial(_follow, control, made),
        )
        try:
            found = solve(call, u, lengths, parameters)
        except FloatingPointError:
            why = "meet states that are not finite"
        else:
            if not isinstance(control, CyclesToTolerance) or made[0].estimate <= control.tolerance:
                return found
            why = f"leave an estimated relative error of {made[0].estimate:.1g}"
        warnings.warn(
            f"odeint takes its {steps.depth} steps one after another, for cycles with the factors "
            f"{setup.method.factors} {why}: coarse steps may not be stable; give a smaller "
            "coarsening, fewer levels, or mode='serial'",
            stacklevel=5,
        )
        return None


def _follow(control: Control, made: list[PassReport], direction: str, report: PassReport) -> None:
    made.append(report)
    if direction == "backward" and isinstance(control, CyclesToTolerance):
        allowed = control.tolerance if control.backward is None else control.backward
        if not report.estimate <= allowed:
            warnings.warn(
                f"odeint's gradient has an estimated relative error of {report.estimate:.1g} after "
                f"{report.cycles} cycles, above the tolerance {allowed:g}; give a smaller "
                "coarsening, fewer levels, or mode='serial'",
                stacklevel=2,
            )
