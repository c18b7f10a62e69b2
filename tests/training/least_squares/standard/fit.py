"""mgnet's Levenberg-Marquardt on a standard problem, with counts of what it evaluated."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch

from mgnet.training import levenberg_marquardt
from tests.training.least_squares.standard.problem import Residual, Standard
from tests.training.least_squares.standard.verdict import verdict


class Fit(NamedTuple):
    """How a solver ended. `evaluations` are of the residual alone, without those of Jacobians."""

    x: torch.Tensor
    value: float
    verdict: str
    reason: str
    converged: bool
    steps: int
    evaluations: int
    jacobians: int


class Counted:
    """A residual function that counts its calls; with a gradient wanted, they are Jacobians."""

    def __init__(self, residual: Residual):
        self.residual, self.values, self.derivatives = residual, 0, 0

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if x.requires_grad or torch._C._functorch.is_functorch_wrapped_tensor(x):
            self.derivatives += 1
        else:
            self.values += 1
        return self.residual(x)


class Unknowns(torch.nn.Module):
    def __init__(self, start: torch.Tensor):
        super().__init__()
        self.x = torch.nn.Parameter(start.clone())


def fit(problem: Standard, start: torch.Tensor, **options: Any) -> Fit:
    """A start that is refused counts as missed, with the error as reason."""
    module, counted = Unknowns(start), Counted(problem.residual)
    try:
        solution = levenberg_marquardt(lambda module: counted(module.x), module, **options)
        reason, converged = solution.reason.name, solution.reason.converged
        steps = solution.cycles
    except ValueError as error:
        reason, converged, steps = f"refused: {error}", False, 0
    x = module.x.detach()
    value = problem.value(x)
    judged = verdict(problem, x, value)
    if not math.isfinite(value):
        value = math.inf
    return Fit(x, value, judged, reason, converged, steps, counted.values, counted.derivatives)
