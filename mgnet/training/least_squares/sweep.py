"""A sweep of Levenberg-Marquardt: its start, the search for a step, and the result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from mgnet.training.least_squares.bounds import Box
from mgnet.training.least_squares.jacobian import Jacobian
from mgnet.training.least_squares.newton_krylov import KrylovEquations
from mgnet.training.least_squares.normal_equations import NormalEquations
from mgnet.training.least_squares.scaling import norm
from mgnet.training.least_squares.singular_values import SingularEquations
from mgnet.training.least_squares.step_rules import Damping, StepRule, Trial

__all__ = ["Attempt", "Equations", "Linearized", "Sweep", "searched"]

Equations = NormalEquations | KrylovEquations | SingularEquations

#: A step that was tried, where it leads to, None where it is not to be taken, how much it bends.
Attempt = tuple[Trial, torch.Tensor | None, float]


class Linearized(NamedTuple):
    """A state and its linearized residuals.

    Attributes
    ----------
    problem : LeastSquares or Rescaled
        Problem of the residuals.
    u, r, J : tensor, tensor, Jacobian
        The state, its residuals and their Jacobian.
    f : tensor or None
        Right-hand side; None means zero.
    half : float
        Value of `1/2 |r|^2`.
    box : Box or None
        Bounds of u. With bounds, J is a `HeldJacobian`, whose columns for held unknowns are zero.
    """

    problem: Any
    u: torch.Tensor
    r: torch.Tensor
    J: Jacobian
    f: torch.Tensor | None
    half: float
    box: Box | None = None

    @property
    def value(self) -> float:
        """`1/2 |r|^2 - <f, u>`."""
        return self.half - (0.0 if self.f is None else float(self.f @ self.u))

    @property
    def gradient(self) -> float:
        """`|J^T r|`."""
        return norm(self.J.rmatvec(self.r))

    @property
    def largest(self) -> float:
        """The largest magnitude of a residual, over all ranks."""
        return self.problem.largest(self.r)

    @property
    def digits(self) -> float:
        """The smallest relative change of the value that is above rounding."""
        return float(torch.finfo(self.r.dtype).eps)


class Sweep(NamedTuple):
    """Result of the steps from one Jacobian.

    Attributes
    ----------
    u : tensor
        The new state, or the old one if no step was accepted.
    memory : Damping
        Memory for the next sweep.
    told : Linearized
        Linearization at the old state, in the unit in which steps were compared.
    trial : Trial
        The last trial step.
    size : float
        Value of `|D u|` at the old state.
    system : NormalEquations, KrylovEquations or SingularEquations
        System of the steps.
    seen : bool
        False if the predicted reduction is below the rounding of the value.
    cosine : float or None
        Largest cosine of the angle between the residuals and a column of J, if it is already known.
    """

    u: torch.Tensor
    memory: Damping
    told: Linearized
    trial: Trial
    size: float
    system: Equations
    seen: bool
    cosine: float | None = None


def searched(
    rule: StepRule,
    memory: Damping,
    before: Sweep,
    unseen: float,
    moves: bool,
    attempt: Callable[[Damping], Attempt],
) -> Sweep:
    """Try steps until one lowers the objective.

    Parameters
    ----------
    rule : StepRule
        Rule that changes the damping after each trial.
    memory : Damping
        Memory before the sweep.
    before : Sweep
        The state before any step, with its system and the size of the state.
    unseen : float
        Rounding error of the value. If the predicted decrease is smaller, the state counts as a
        minimum, and rejected steps there do not change the damping, which the next level inherits.
    moves : bool
        Whether the slope of the objective is not zero.
    attempt : callable
        Function that tries the step with a given damping.

    Examples
    --------
    For a parabola, the model is exact:

    >>> from mgnet.training.least_squares.step_rules import Nielsen
    >>> told = Linearized(None, torch.ones(1), torch.ones(1), None, None, 0.5)
    >>> start = Sweep(told.u, Damping(1.0, 2.0), told, Trial(0.0, 0.0, 0.0, 0.0), 1.0, None, True)
    >>> found = searched(
    ...     Nielsen(), start.memory, start, 1e-16, True,
    ...     lambda now: (Trial(0.5, 0.5, 1.0, 1.0), torch.zeros(1), 0.0),
    ... )
    >>> found.u.item(), found.memory.mu < 1.0
    (0.0, True)
    """
    first, kept = memory, None
    attempts: dict[float, Attempt] = {}

    def known(memory: Damping) -> Attempt:
        if memory.mu not in attempts:
            attempts[memory.mu] = attempt(memory)
        return attempts[memory.mu]

    for _ in range(rule.trials):
        memory = rule.look(memory, before.system, before.size, lambda now: known(now)[0])
        trial, new, bend = known(memory)
        if 0.0 < trial.predicted <= unseen or not moves:
            return kept or before._replace(memory=first, trial=trial, seen=False)
        memory = memory._replace(bend=bend)
        if kept is not None and not (trial.gain > 0.75 and trial.actual > kept.trial.actual):
            return kept
        memory = rule.judge(memory, trial)
        if new is not None and trial.accepted:
            kept = before._replace(u=new, memory=memory, trial=trial)
            further = rule.reaching(first, memory, trial)
            if further is None:
                return kept
            memory = further
    return kept or before._replace(memory=memory._replace(growth=2.0), trial=trial)
