"""Levenberg-Marquardt: Gauss-Newton steps inside a trust region, as a smoother.

`(J^T J + mu s I) d = f - J^T r` with s the mean of the diagonal of `J^T J`; mu follows the gain
ratio. Marquardt's own choice, that diagonal in place of `s I`, lets parameters run away that few
samples see: on the data of `make demo` held-out errors were worse with it, most for tanh networks.
Sources: Levenberg (1944); Nielsen, "Damping parameter in Marquardt's method" (1999); Transtrum and
Sethna, arXiv 1201.5885 (geodesic acceleration).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch

from mgnet.smoother import Smoother
from mgnet.training.objective import LeastSquares

if TYPE_CHECKING:
    from mgnet.level import Level
    from mgnet.transfer import Transfer

__all__ = ["LevenbergMarquardt"]


class Damping(NamedTuple):
    """What Levenberg-Marquardt remembers: mu, and its growth at the next refusal."""

    mu: float
    growth: float


@dataclass(frozen=True)
class LevenbergMarquardt(Smoother):
    """One sweep: one Jacobian, and steps from it until one lowers the objective.

    A sweep never raises the objective. For levels whose operator is a `LeastSquares`.

    Parameters
    ----------
    mu : float
        Initial damping, relative to the mean diagonal of `J^T J`, dimensionless.
    trials : int
        Steps tried per Jacobian before the sweep gives up and leaves the state.
    acceleration : float
        Largest ratio of twice the geodesic acceleration to the step, dimensionless; 0 leaves the
        acceleration out.

    Examples
    --------
    >>> from mgnet import Hierarchy, Level, Solver
    >>> x = torch.linspace(-1, 1, 50, dtype=torch.float64).unsqueeze(1)
    >>> network = torch.nn.Sequential(torch.nn.Linear(1, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    >>> problem = LeastSquares(network.double(), (x, torch.sin(3 * x)))
    >>> level = Level(problem, LevenbergMarquardt(), objective=problem.value)
    >>> solver = Solver(Hierarchy([level]), "V(0,0,40)", max_cycles=1)
    >>> problem.value(solver.solve(u=problem.start()).value) < 1e-4
    True
    """

    mu: float = 1e-2
    trials: int = 12
    acceleration: float = 0.75
    fixed_work: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.mu <= 0.0 or self.trials < 1 or self.acceleration < 0.0:
            raise ValueError(
                f"{self} needs a positive mu, at least one trial and a ratio that is not negative"
            )

    def start(self, level: Level, u: torch.Tensor) -> Damping:
        if not isinstance(level.operator, LeastSquares):
            raise TypeError(
                f"{level} has an operator of type {type(level.operator).__name__}; "
                "LevenbergMarquardt needs a LeastSquares"
            )
        return Damping(self.mu, 2.0)

    def carry(self, memory: Damping, transfer: Transfer) -> Damping:
        return memory  # mu is relative to the diagonal, so it means the same on the finer level

    def work(self, level: Level, sweeps: int) -> float:
        return 2.0 * sweeps

    def smooth(
        self, level: Level, u: torch.Tensor, f: torch.Tensor | None, sweeps: int, memory: Damping
    ) -> tuple[torch.Tensor, Damping]:
        for _ in range(sweeps):
            u, memory = self._sweep(level, u, f, memory)
        return u, memory

    def _sweep(
        self, level: Level, u: torch.Tensor, f: torch.Tensor | None, memory: Damping
    ) -> tuple[torch.Tensor, Damping]:
        problem: Any = level.operator
        if problem.shift is not None:
            f = problem.shift if f is None else f + problem.shift
        r, J = problem.residuals(u), problem.jacobian(u)
        level.charge(1.0)
        system = _Normal(J, r, f)
        mu, growth = memory
        scale = system.matrix.diagonal().mean()
        now = 0.5 * float(r @ r) - (0.0 if f is None else float(f @ u))
        for _ in range(self.trials):
            solve = system.damped(mu * scale)
            d = solve(system.descent)
            predicted = 0.5 * float(d @ (mu * scale * d + system.descent))
            step = d if not self.acceleration else self._accelerated(problem, u, d, r, J, solve)
            level.charge(1.0 / 3.0 if not self.acceleration else 2.0 / 3.0)
            if step is not None and bool(torch.isfinite(step).all()) and predicted > 0.0:
                trial = problem.residuals(u + step)
                then = 0.5 * float(trial @ trial) - (0.0 if f is None else float(f @ (u + step)))
                gain = (now - then) / predicted
                if gain > 1e-4:
                    shrink = max(1.0 / 3.0, 1.0 - (2.0 * min(gain, 1.0) - 1.0) ** 3)
                    return u + step, Damping(max(mu * shrink, 1e-15), 2.0)
            mu, growth = min(mu * growth, 1e15), 2.0 * growth
        return u, Damping(mu, 2.0)

    def _accelerated(
        self,
        problem: LeastSquares,
        u: torch.Tensor,
        d: torch.Tensor,
        r: torch.Tensor,
        J: torch.Tensor,
        solve: Any,
    ) -> torch.Tensor | None:
        """The step with its geodesic acceleration; None where that is too large to trust."""
        h = 0.1
        curvature = (problem.residuals(u + h * d) - r) / h - J @ d
        a = solve(-(J.T @ curvature) * (2.0 / h))
        if not 2.0 * float(a.norm()) <= self.acceleration * float(d.norm()):
            return None
        return d + 0.5 * a


class _Normal:
    """The Gauss-Newton system of one Jacobian: normal equations, or QR where they lose digits."""

    def __init__(self, J: torch.Tensor, r: torch.Tensor, f: torch.Tensor | None):
        self.J = J
        self.matrix = J.T @ J
        self.descent = -(J.T @ r) if f is None else f - J.T @ r

    def damped(self, shift: torch.Tensor) -> Any:
        """A function that solves `(J^T J + shift I) x = b`."""
        matrix = self.matrix.clone()
        matrix.diagonal().add_(shift)
        # Scaled to a unit diagonal, so that the factor's diagonal tells the conditioning.
        unit = matrix.diagonal().rsqrt()
        factor, fault = torch.linalg.cholesky_ex(matrix * unit * unit.unsqueeze(1))
        eps = torch.finfo(matrix.dtype).eps
        if int(fault) == 0 and float(factor.diagonal().min()) ** 2 > 1e2 * eps:

            def solve(b: torch.Tensor) -> torch.Tensor:
                return unit * torch.cholesky_solve((unit * b).unsqueeze(1), factor).squeeze(1)

            return solve
        # R^T R = J^T J + shift I from the stacked matrix itself has twice the digits.
        stacked = torch.cat([self.J * unit, torch.diag(shift.sqrt() * unit)])
        upper = torch.linalg.qr(stacked, mode="r").R

        def solve_by_qr(b: torch.Tensor) -> torch.Tensor:
            half = torch.linalg.solve_triangular(upper.T, (unit * b).unsqueeze(1), upper=False)
            return unit * torch.linalg.solve_triangular(upper, half, upper=True).squeeze(1)

        return solve_by_qr
