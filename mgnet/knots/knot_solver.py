"""A linear solver for many knots that adapts its preconditioner while it solves.

The banded block of every input of a layer is solved, which costs almost nothing to set up. If the
inputs are coupled so strongly that this takes many iterations, a coarse level that couples them is
added; its setup takes as long as 40 to 100 iterations. Conjugate gradients therefore run for
`patience` iterations without the coarse level; then the level is built, and the iteration continues
from the current iterate. Although it is not known in advance whether the coarse level is worth its
setup, no system takes much more than twice the work of the better choice (the "ski rental" problem:
Karlin, Manasse, Rudolph and Sleator, Algorithmica 3 (1988) 79-119). Iterations are counted, not
timed, so decisions are the same on every machine.
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
    """A preconditioner for `NewtonKrylov` with many knots, selected by the number of iterations.

    A single input is solved directly, with a banded factorization. Several inputs are solved with
    `InputBands()` and, after `patience` iterations, with `InputBands(coarsest)`. In
    benchmarks/knot_solvers.py, one of the two was the fastest preconditioner for every system, for
    data with a penalty and for an equation; `KnotBPX` and `KnotMultigrid` are alternatives.

    Parameters
    ----------
    coarsest : int
        Least number of intervals of the coarse level.
    patience : int
        Number of iterations without a coarse level, per system.

    Raises
    ------
    ValueError
        If an argument is not a positive integer.

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
        """Compute the bands of all inputs."""
        return ChosenSolver(J, self, prepared_bands(J, "KnotSolver"))


class ChosenSolver:
    """The data of `KnotSolver` for one Jacobian, and a record of its solves.

    Once a system has needed the coarse level, further systems with this Jacobian start with it.

    Parameters
    ----------
    J : Jacobian
        The Jacobian.
    options : KnotSolver
        The settings.
    bands : PreparedBands
        The bands of all inputs.
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
        """Products with `J^T J + shift I`, and with the current approximate inverse."""
        return (self.coarse or self.bands).shifted(shift)

    def solver(self, shift: float) -> Solve:
        """Return a function that solves systems with this shift, like `conjugate_gradients`."""
        made: dict[bool, tuple[Product, Product]] = {}

        def shifted() -> tuple[Product, Product]:
            coupled = self.coarse is not None
            if coupled not in made:
                made[coupled] = self.shifted(shift)
            return made[coupled]

        def solve(b: torch.Tensor, rtol: float, max_iterations: int) -> Gradients:
            size = float(b.norm())
            unit = 1.0 if 1e-150 < size < 1e150 else power_of_two(float(b.abs().max()))
            if unit != 1.0:  # squares would underflow or overflow
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
            if left <= rtol:  # not detected by the recursion because of rounding
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
        """Describe the preconditioner and the number of iterations for each system."""
        inputs = len(self.bands.bands)
        size = f"{inputs} input{'s' if inputs > 1 else ''}, {self.J.shape[1]} coefficients"
        return "\n".join([f"KnotSolver: {size}", *self._told])

    __str__ = explain


def _count(found: Gradients) -> str:
    return f"{found.iterations} iteration{'' if found.iterations == 1 else 's'}"
