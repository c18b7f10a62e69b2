"""Newton-multigrid: one V-cycle over the knots preconditions the linear systems of Gauss-Newton."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

import torch

from mgnet.coarse_solver import Direct
from mgnet.hierarchy import Hierarchy
from mgnet.interpreter import Memory, run
from mgnet.knots.local_jacobian import LocalJacobian, local_form
from mgnet.knots.patches import GaussNewtonMatrix, Patches
from mgnet.knots.refinement import refinement_matrix
from mgnet.level import Level
from mgnet.notation import parse
from mgnet.smoother import Smoother
from mgnet.training.jacobian import Jacobian
from mgnet.training.newton_krylov import Product
from mgnet.transfer import AxisTransfer, PackedTransfer

__all__ = ["KnotLevels", "KnotMultigrid"]


@dataclass(frozen=True)
class KnotMultigrid:
    """A preconditioner for `(J^T J + shift I) d = b` of a KAN: one cycle over its knot levels.

    Coarse matrices are Galerkin products, the coarsest is solved exactly.

    Parameters
    ----------
    smoother : Smoother
        For levels whose operator is a `GaussNewtonMatrix`.
    coarsest : int
        Intervals, or a few more, of the coarsest level.
    cycle : str
        With as many sweeps before as after the coarse correction.
    """

    smoother: Smoother = Patches()
    coarsest: int = 4
    cycle: str = "V(1,1)"
    rows: float = 0.0
    assembled: int = 2000

    def prepare(self, J: Jacobian) -> KnotLevels:
        """The Jacobians of all levels."""
        local = local_form(J)
        if local is None:
            raise TypeError(
                f"KnotMultigrid got a {type(J).__name__}; it needs the LocalJacobian of a KAN: "
                "give residuals of one call of the module each, a row per sample"
            )
        levels = [local]
        while self._coarsens(levels[-1]):
            J = levels[-1].coarsened()
            if self.rows:
                J = levels[-1].coarsened(rows=int(self.rows * J.shape[1]))
            levels.append(J)
        return KnotLevels(tuple(levels), self)

    def _coarsens(self, J: LocalJacobian) -> bool:
        return all(p.intervals % 2 == 0 and p.intervals >= 2 * self.coarsest for p in J.inputs)


@dataclass(frozen=True, eq=False)
class KnotLevels:
    """The levels of `KnotMultigrid` for one Jacobian, finest first."""

    jacobians: tuple[LocalJacobian, ...]
    options: KnotMultigrid

    @property
    def scale(self) -> float:
        """The mean of the diagonal of `J^T J`."""
        return self.jacobians[0].mean_diagonal

    @cached_property
    def transfers(self) -> list[PackedTransfer]:
        """The same as `knot_transfer`."""
        made = []
        for coarse in self.jacobians[1:]:
            parts = []
            for (n, Q), inputs in groupby(coarse.inputs, lambda p: (p.intervals, p.outputs)):
                first, *others = inputs
                P = torch.from_numpy(refinement_matrix(n, first.degree).toarray())
                shape = (1 + len(others), first.splines, Q)
                parts.append((shape, AxisTransfer(P, axis=1)))
            made.append(PackedTransfer(tuple(parts)))
        return made

    @cached_property
    def identities(self) -> list[dict[int, torch.Tensor]]:
        """Of each level and number of intervals: the unit matrix of the finest in its splines."""
        finest = {p.intervals: torch.eye(p.splines).double() for p in self.jacobians[0].inputs}
        made, degree = [finest], self.jacobians[0].inputs[0].degree
        for _ in self.jacobians[1:]:
            coarse = {}
            for n, N in made[-1].items():
                P = torch.from_numpy(refinement_matrix(n // 2, degree).toarray())
                coarse[n // 2] = P.T @ N @ P
            made.append(coarse)
        return made

    @cached_property
    def grams(self) -> list[torch.Tensor | None]:
        """`J^T J` of the levels that are small enough; from the finest such one by the transfers."""
        made: list[torch.Tensor | None] = []
        for number, J in enumerate(self.jacobians):
            above = made[-1] if made else None
            if above is not None and not self.options.rows:
                restrict = torch.func.vmap(self.transfers[number - 1].restrict)
                made.append(restrict(restrict(above).T))
            elif number and (number + 1 == len(self.jacobians) or J.shape[1] <= self.options.assembled):
                made.append(J.gram())
            else:
                made.append(None)
        return made

    def hierarchy(self, shift: float) -> Hierarchy:
        """The levels with `J^T J + shift I` on the finest."""
        levels = []
        for number, (J, N, gram) in enumerate(
            zip(self.jacobians, self.identities, self.grams, strict=True)
        ):
            M = GaussNewtonMatrix(J, shift, N, gram)
            name = f"level {number} ({J.inputs[0].intervals} intervals)"
            if number + 1 == len(self.jacobians):
                levels.append(Level(M.dense(), Direct(), name=name))
            else:
                levels.append(Level(M, self.options.smoother, self.transfers[number], name=name))
        return Hierarchy(levels)

    def shifted(self, shift: float) -> tuple[Product, Product]:
        """Products with `J^T J + shift I`, and one cycle."""
        hierarchy = self.hierarchy(shift)
        schedule, memory = parse(self.options.cycle, len(hierarchy)), {}

        def precondition(r: torch.Tensor) -> torch.Tensor:
            u, new = run(schedule, hierarchy, None, r, memory)
            memory.update(new)
            return u

        return hierarchy[0].operator.__matmul__, precondition
