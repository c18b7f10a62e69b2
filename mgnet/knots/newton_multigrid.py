"""Newton-multigrid: a V-cycle over the knots as preconditioner for Gauss-Newton systems."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby, pairwise
from typing import Any

import scipy.sparse as sp
import torch

from mgnet.hierarchy import Hierarchy
from mgnet.interpreter import Memory, run
from mgnet.knots.coarse_inputs import can_halve
from mgnet.knots.kan_options import told_intervals
from mgnet.knots.local_jacobian import local_form
from mgnet.knots.local_rows import LocalJacobian, single
from mgnet.knots.patches import GaussNewtonMatrix, Patches, cholesky
from mgnet.knots.refinement import refinement_matrix
from mgnet.knots.spline_operator import SplineOperator, is_long
from mgnet.level import Level
from mgnet.limits import is_count, is_number
from mgnet.notation import parse
from mgnet.smoother import Smoother
from mgnet.training.least_squares.jacobian import Jacobian, ProlongedJacobian, StackedJacobian
from mgnet.training.least_squares.newton_krylov import Product
from mgnet.transfer import AxisTransfer, PackedTransfer

__all__ = ["KnotLevels", "KnotMultigrid"]

LARGE = 2**20  # entries from which a coarse Jacobian is stored in single precision


@dataclass(frozen=True)
class KnotMultigrid:
    """A preconditioner for `(J^T J + shift I) d = b` of a KAN: one cycle over its knot levels.

    Coarse matrices are Galerkin products, and the coarsest level is solved exactly.

    Parameters
    ----------
    smoother : Smoother
        Smoother for levels whose operator is a `GaussNewtonMatrix`.
    coarsest : int
        Least number of intervals of the coarsest level. For a PINN [2,6,1] with little damping, a
        value of 8 took up to 40 % fewer iterations than a value of 4.
    cycle : str
        The cycle, with equal numbers of sweeps before and after the coarse correction.
    rows : float
        Residuals per parameter on coarse levels, drawn from those of the next finer level, so that
        all levels together cost twice the finest one. With a value of 8, conjugate gradients took
        about a tenth more iterations than with all residuals.
    formed : int
        Largest number of parameters for which a level multiplies by its matrix instead of by J.

    Raises
    ------
    ValueError
        If an argument is invalid.
    TypeError
        In `prepare`, if the Jacobian is not that of a KAN that has only splines.

    Examples
    --------
    >>> from mgnet.knots import KAN
    >>> from mgnet.knots.local_jacobian import linearize_residual
    >>> x = torch.linspace(-1, 1, 400, dtype=torch.float64).unsqueeze(1)
    >>> _, J = linearize_residual(KAN([1, 3, 1], 32), lambda kan: kan(x))
    >>> print(KnotMultigrid().prepare(J).hierarchy(shift=1e-3))
    Hierarchy of 3 levels, 390 unknowns in all (1.86 times the finest)
    level  unknowns   cost  smoother                           transfer
        0       210      1  Patches(degree=2, blocks='patch')  PackedTransfer of 2 arrays
        1       114  0.543  Patches(degree=2, blocks='patch')  PackedTransfer of 2 arrays
        2        66  0.314  CoarseCholesky()                   -
    """

    smoother: Smoother = Patches()
    coarsest: int = 8
    cycle: str = "V(1,1)"
    rows: float = 8.0
    formed: int = 1500

    def __post_init__(self) -> None:
        counts = is_count(self.coarsest) and is_count(self.formed, 0)
        if not counts or not is_number(self.rows, 1.0):
            raise ValueError(
                f"{self} needs at least 1 interval and 1 residual per parameter, and a number of "
                "parameters that is not negative; intervals and parameters are integers"
            )

    def prepare(self, J: Jacobian) -> KnotLevels:
        """Compute the Jacobians of all levels.

        Raises
        ------
        TypeError
            If J is not the Jacobian of a KAN that has only splines.
        """
        first, *others = _parts(J)
        local = local_form(first)
        if local is None:
            raise TypeError(
                "KnotMultigrid got a Jacobian without knot intervals; it needs that of a KAN of "
                "splines alone (no linear layer), all of them trained and none of them shared, on "
                "the CPU, with data or with residuals of one call of the module each (no "
                "Collocation), a row per sample; give NewtonKrylov() for others"
            )
        levels = [local]
        while any(chosen := self._coarsens(levels[-1])):
            coarse = sum(
                p.outputs * (p.intervals // (2 if coarsens else 1) + p.degree)
                for p, coarsens in zip(levels[-1].inputs, chosen, strict=True)
            )
            rows = math.ceil(min(levels[-1].rows, self.rows * coarse))
            dtype = single if rows * levels[-1].row_entries > LARGE else None
            levels.append(levels[-1].coarsened(rows=rows, dtype=dtype, chosen=chosen))
        return KnotLevels(tuple(levels), self, tuple(others))

    def _coarsens(self, J: LocalJacobian) -> list[bool]:
        """For each input, whether the number of intervals is halved on the next level.

        It is halved for inputs with more than half of the largest number of intervals: the finest
        layers are coarsened first, which reverses refinement by layer. Coarsening all inputs at
        once took a third more iterations if the outer layer had 16 intervals.
        """
        able = [can_halve(p.intervals, self.coarsest) for p in J.inputs]
        pairs = list(zip(J.inputs, able, strict=True))
        most = max((p.intervals for p, can in pairs if can), default=0)
        return [can and 2 * p.intervals > most for p, can in pairs]


def _parts(J: Jacobian) -> list[Jacobian]:
    """The parts that are stacked in J; the rows of a penalty follow those of the residuals."""
    if isinstance(J, StackedJacobian):
        return [StackedJacobian((part,)) for part in J.parts]
    if isinstance(J, ProlongedJacobian):
        return [replace(J, fine=part) for part in _parts(J.fine)]
    return [J]


@dataclass(frozen=True)
class CoarseCholesky(Smoother):
    """An exact solver that also works if the matrix is singular up to rounding."""

    def start(self, level: Level, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return cholesky(level.operator.dense())

    def smooth(
        self, level: Level, u: torch.Tensor, f: torch.Tensor | None, sweeps: int, memory: Any
    ) -> tuple[torch.Tensor, Any]:
        factor, unit = memory
        b = torch.zeros_like(u) if f is None else f
        solution = torch.cholesky_solve((unit * b).unsqueeze(1), factor).squeeze(1)
        level.charge(1.0)
        return unit * solution, memory


@dataclass(frozen=True, eq=False)
class KnotLevels:
    """The levels of `KnotMultigrid` for one Jacobian, finest first.

    Attributes
    ----------
    jacobians : tuple of LocalJacobian
        The Jacobian of each level.
    options : KnotMultigrid
        The settings.
    others : tuple of Jacobian
        Rows of a penalty; they are part of the product, but the cycle omits them.
    """

    jacobians: tuple[LocalJacobian, ...]
    options: KnotMultigrid
    others: tuple[Jacobian, ...] = ()

    @property
    def scale(self) -> float:
        """The mean of the diagonal of `J^T J`."""
        return self.jacobians[0].mean_diagonal

    @cached_property
    def transfers(self) -> list[PackedTransfer]:
        """The same transfers as those of `knot_transfer`."""
        made = []
        for fine, coarse in pairwise(self.jacobians):
            parts = []
            sizes = [
                (many.intervals, few.intervals, few.outputs)
                for many, few in zip(fine.inputs, coarse.inputs, strict=True)
            ]
            degree = coarse.inputs[0].degree
            for (many, few, Q), inputs in groupby(sizes):
                shape = (len(list(inputs)), few + degree, Q)
                if few == many:
                    parts.append((shape, None))
                    continue
                P: Any = refinement_matrix(few, degree)
                if is_long(P):
                    P = SplineOperator((P,))
                else:
                    P = torch.from_numpy(P.toarray())
                    if fine.shape[1] > self.options.formed:  # otherwise `vmap` needs dense ones
                        P = P.to_sparse()
                parts.append((shape, AxisTransfer(P, axis=1)))
            made.append(PackedTransfer(tuple(parts)))
        return made

    @cached_property
    def identities(self) -> list[list[sp.csr_array]]:
        """The Galerkin product of the finest level's unit matrix, for each level and input."""
        degree = self.jacobians[0].inputs[0].degree
        known: dict[tuple[int, int], sp.csr_array] = {}  # by finest and coarse intervals

        def product(finest: int, n: int) -> sp.csr_array:
            if (finest, n) not in known:
                N = sp.eye_array(n + degree).tocsr()
                if n < finest:
                    P = sp.csr_array(refinement_matrix(n, degree))
                    N = P.T @ product(finest, 2 * n) @ P
                known[finest, n] = N
            return known[finest, n]

        finest = [p.intervals for p in self.jacobians[0].inputs]
        return [
            [product(many, p.intervals) for many, p in zip(finest, J.inputs, strict=True)]
            for J in self.jacobians
        ]

    @cached_property
    def grams(self) -> list[torch.Tensor | None]:
        """`J^T J` of each level, or None; by Galerkin if the finer level has the same rows."""
        made: list[torch.Tensor | None] = []
        for number, J in enumerate(self.jacobians):
            above = made[-1] if made else None
            if above is not None and J.rows == self.jacobians[number - 1].rows:
                restrict = torch.func.vmap(self.transfers[number - 1].restrict)
                made.append(restrict(restrict(above).T))
            elif number == len(self.jacobians) - 1 or J.shape[1] <= self.options.formed:
                made.append(J.gram())
            else:
                made.append(None)
        return made

    def hierarchy(self, shift: float) -> Hierarchy:
        """The levels, with `J^T J + shift I` on the finest."""
        levels = []
        for number, (J, N, gram) in enumerate(
            zip(self.jacobians, self.identities, self.grams, strict=True)
        ):
            M = GaussNewtonMatrix(J, shift, N, gram)
            layers = [n for n, _ in groupby(p.intervals for p in J.inputs)]
            name = f"level {number} ({told_intervals(layers)})"
            if number + 1 == len(self.jacobians):
                levels.append(Level(M, CoarseCholesky(), name=name))
            else:
                levels.append(Level(M, self.options.smoother, self.transfers[number], name=name))
        return Hierarchy(levels)

    def shifted(self, shift: float) -> tuple[Product, Product]:
        """Products with `J^T J + shift I`, and one cycle."""
        hierarchy = self.hierarchy(shift)
        schedule = parse(self.options.cycle, len(hierarchy))
        memory: Memory = {}

        def precondition(r: torch.Tensor) -> torch.Tensor:
            u, new = run(schedule, hierarchy, None, r, memory)
            memory.update(new)
            return u

        def product(d: torch.Tensor) -> torch.Tensor:
            image = hierarchy[0].operator @ d
            return image + sum(J.rmatvec(J.matvec(d)) for J in self.others)

        return product if self.others else hierarchy[0].operator.__matmul__, precondition
