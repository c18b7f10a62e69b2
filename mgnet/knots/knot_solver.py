"""The linear solver for many knots that needs least work, found while it solves.

Every input of a layer is solved by its bands, which costs next to nothing to set up. Where the
inputs couple so strongly that this takes many iterations, a coarse level that couples them is
added: it takes as long to make as 40 to 100 iterations. So conjugate gradients go on without it for
`patience` iterations; then it is made, and they go on from where they are. Without knowing
beforehand which of the two is better, no system takes much more than twice the work of the better
one (the "ski rental": Karlin, Manasse, Rudolph and Sleator, Algorithmica 3 (1988) 79-119).
Iterations are counted, not timed: the course is the same on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mgnet.knots.input_bands import PreparedBands, prepared_bands
from mgnet.limits import is_count, shown
from mgnet.training.least_squares.jacobian import Jacobian
from mgnet.training.least_squares.newton_krylov import (
    Gradients,
    Product,
    Solve,
    conjugate_gradients,
)
from mgnet.training.least_squares.scaling import power_of_two

__all__ = ["ChosenSolver", "KnotSolver"]


@dataclass(frozen=True)
class KnotSolver:
    """A preconditioner for `NewtonKrylov` with many knots, chosen by the iterations it takes.

    One input alone is solved directly, by its bands. Several inputs are solved by `InputBands()`
    and, after `patience` iterations, by `InputBands(coarsest)`. In benchmarks/knot_solvers.py one
    of the two was the fastest preconditioner on every system, of data with a penalty and of an
    equation; `KnotBPX` and `KnotMultigrid` remain for other choices.

    Parameters
    ----------
    coarsest : int
        Least number of intervals of the coarse level.
    patience : int
        Iterations without a coarse level, per system.

    Raises
    ------
    ValueError
        If one of them is not positive.

    Examples
    --------
    >>> from mgnet.knots import KAN
    >>> from mgnet.training import LeastSquares
    >>> x = torch.rand(500, 3, generator=torch.Generator().manual_seed(0)).double() * 2 - 1
    >>> x = 0.1 * x + 0.9 * x[:, :1]  # columns that say nearly the same
    >>> problem = LeastSquares(KAN([3, 1], 32), (x, x[:, :1] * x[:, 1:2]))
    >>> r, J = problem.linearize(problem.start())
    >>> solver = KnotSolver(patience=10).prepare(J)
    >>> solver.solver(1e-6)(J.rmatvec(r), 1e-6, 200).converged
    True
    >>> print(solver)
    KnotSolver: 3 inputs, 105 coefficients
    system 1: bands of each input, 10 iterations; then with a coarse level of 33, 20 iterations
    """

    coarsest: int = 8
    patience: int = 50

    def __post_init__(self) -> None:
        if not (is_count(self.coarsest) and is_count(self.patience)):
            raise ValueError(
                f"KnotSolver got coarsest {shown(self.coarsest)} and patience "
                f"{shown(self.patience)}; both must be integers of at least 1"
            )

    def prepare(self, J: Jacobian) -> ChosenSolver:
        """The bands of all inputs."""
        return ChosenSolver(J, self, prepared_bands(J, "KnotSolver"))


class ChosenSolver:
    """What `KnotSolver` knows of one Jacobian, and what it has done with it.

    Once a system has asked for the coarse level, further ones of the same Jacobian start with it.

    Parameters
    ----------
    J : Jacobian
    options : KnotSolver
    bands : PreparedBands
    """

    def __init__(self, J: Jacobian, options: KnotSolver, bands: PreparedBands):
        self.J = J
        self.options = options
        self.bands = bands
        self.coarse: PreparedBands | None = None
        self._told: list[str] = []

    @property
    def scale(self) -> float:
        """The mean of the diagonal of `J^T J` without a penalty."""
        return self.bands.scale

    def shifted(self, shift: float) -> tuple[Product, Product]:
        """Products with `J^T J + shift I`, and with the approximate inverse chosen so far."""
        return (self.coarse or self.bands).shifted(shift)

    def solver(self, shift: float) -> Solve:
        """Solves systems with this shift as `conjugate_gradients` does."""
        made: dict[bool, tuple[Product, Product]] = {}

        def shifted() -> tuple[Product, Product]:
            coupled = self.coarse is not None
            if coupled not in made:
                made[coupled] = self.shifted(shift)
            return made[coupled]

        def solve(b: torch.Tensor, rtol: float, max_iterations: int) -> Gradients:
            size = float(b.norm())
            unit = 1.0 if 1e-150 < size < 1e150 else power_of_two(float(b.abs().max()))
            if unit != 1.0:  # squares would vanish or overflow
                found = solve(b / unit, rtol, max_iterations)
                return found._replace(value=unit * found.value)
            product, precondition = shifted()
            if self.coarse is not None or len(self.bands.bands) == 1:
                found = conjugate_gradients(product, b, precondition, rtol, max_iterations)
                return self._with_line(found, "")
            first = min(self.options.patience, max_iterations)
            found = conjugate_gradients(product, b, precondition, rtol, first)
            if found.converged or found.iterations == max_iterations or not bool(b.any()):
                return self._with_line(found, "")
            r = b - product(found.value)
            left = float(r.norm()) / size
            if left <= rtol:  # rounding kept the recursion from seeing it
                return self._with_line(found._replace(residual_norm=left, converged=True), "")
            broken = ", a breakdown" if found.iterations < first else ""
            before = f"bands of each input, {_count(found)}{broken}; then "
            self.coarse = prepared_bands(self.J, "KnotSolver", self.options.coarsest)
            rest = conjugate_gradients(
                product, r, shifted()[1], rtol / left, max_iterations - found.iterations
            )
            both = Gradients(
                found.value + rest.value,
                found.iterations + rest.iterations,
                rest.residual_norm * left,
                rest.converged,
            )
            self._with_line(rest, before)
            return both

        return solve

    def _with_line(self, found: Gradients, before: str) -> Gradients:
        name = "banded Cholesky" if len(self.bands.bands) == 1 else "bands of each input"
        if self.coarse is not None and self.coarse.coarse is not None:
            name = f"with a coarse level of {self.coarse.coarse.P.shape[1]}"
        end = "" if found.converged else f", ended at a residual of {found.residual_norm:.1e}"
        self._told.append(f"system {len(self._told) + 1}: {before}{name}, {_count(found)}{end}")
        return found

    def explain(self) -> str:
        """What was chosen for each system, and how many iterations it took."""
        inputs = len(self.bands.bands)
        size = f"{inputs} input{'s' if inputs > 1 else ''}, {self.J.shape[1]} coefficients"
        return "\n".join([f"KnotSolver: {size}", *self._told])

    __str__ = explain


def _count(found: Gradients) -> str:
    return f"{found.iterations} iteration{'' if found.iterations == 1 else 's'}"
