"""`GaussSeidel`: relaxation of one row after the other, with the newest values."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from mgnet import kernels, vector
from mgnet.smoother import Smoother, diagonal, residual_at
from mgnet.subspace_corrections import check_direction, factored_triangle, has_rows

if TYPE_CHECKING:
    from mgnet.level import Level

__all__ = ["GaussSeidel"]

State = Any


@dataclass(frozen=True)
class GaussSeidel(Smoother):
    """Gauss-Seidel relaxation over the rows of a sparse matrix.

    Sweeps are compiled with numba if that is installed (`pip install "mgnet-solvers[fast]"`);
    otherwise they use SciPy's triangular factors. On a nonlinear level, each sweep is
    `u + (D + L)^-1 (f - A(u))` with the Jacobian of the first visit.

    Parameters
    ----------
    direction : "forward", "backward" or "symmetric"
        Order of the rows; a symmetric sweep is a forward sweep followed by a backward one.

    Raises
    ------
    ValueError
        If the direction is unknown.

    Examples
    --------
    >>> from mgnet import gallery
    >>> level = gallery.poisson(3)[0]
    >>> smoother = GaussSeidel()
    >>> memory = smoother.start(level, np.zeros(3))
    >>> u, memory = smoother.smooth(level, np.zeros(3), np.ones(3), 1, memory)
    >>> u
    array([0.125  , 0.1875 , 0.21875])
    """

    direction: str = "forward"

    def __post_init__(self) -> None:
        check_direction("GaussSeidel", self.direction)

    @cached_property
    def _directions(self) -> tuple[str, ...]:
        return ("forward", "backward") if self.direction == "symmetric" else (self.direction,)

    def start(self, level: Level, u: State) -> Any:
        inverse = 1.0 / diagonal(level, u, self)
        matrix = sp.csr_matrix(vector.as_scipy(level.jacobian(u), f"{self} on {level}"))
        plain = isinstance(u, np.ndarray) and has_rows(level)
        if plain and kernels.available and kernels.compiles(matrix.dtype, u.dtype):
            return matrix, inverse.reshape(-1), kernels.reach(matrix)
        parts = {"forward": sp.tril, "backward": sp.triu}
        factors, dtype = {}, vector.at_most_double(matrix.dtype, vector.dtype_of(u), float)
        for direction in self._directions:
            triangle = parts[direction](matrix.astype(dtype), format="csc")
            factors[direction] = factored_triangle(triangle)
        return factors

    def smooth(
        self, level: Level, u: State, f: State | None, sweeps: int, memory: Any
    ) -> tuple[State, Any]:
        if isinstance(memory, dict):
            for _ in range(sweeps):
                for direction in self._directions:
                    r = vector.as_numpy(residual_at(level, u, f))
                    r = r.ravel().astype(vector.at_most_double(r.dtype, float))
                    u = u + vector.like(memory[direction].solve(r), u)
            return u, memory
        return self._swept(level, u, f, sweeps, memory, None), memory

    def smooth_ahead(
        self, level: Level, u: State, f: State | None, sweeps: int, memory: Any
    ) -> tuple[State, Any, State | None]:
        if isinstance(memory, dict) or not kernels.alike(memory[0], u, u if f is None else f):
            return super().smooth_ahead(level, u, f, sweeps, memory)
        return self._swept(level, u, f, sweeps, memory, r := np.empty_like(u)), memory, r

    def _swept(
        self, level: Level, u: State, f: State | None, sweeps: int, memory: Any, r: State | None
    ) -> State:
        """Run compiled sweeps and return the state; r is filled with its residual."""
        matrix, inverse, within = memory
        shape, order = u.shape, self._directions
        zero = matrix.has_sorted_indices and kernels.is_zero(u)
        b = vector.zeros_like(u) if f is None else f
        if zero and kernels.fits(matrix, u, b):
            u = np.empty_like(u)  # the first sweep sets it
        else:
            u, b = kernels.flat(matrix, u, b)
        last = len(order) * sweeps - 1
        for k in range(last + 1):
            ahead, backward = (r if k == last else None), order[k % len(order)] == "backward"
            kernels.gauss_seidel(matrix, inverse, u, b, backward, ahead, within, zero and k == 0)
        level.charge(len(order) * sweeps * level.residual_work)
        return u.reshape(shape)

    def work(self, level: Level, sweeps: int) -> float:
        return sweeps * len(self._directions) * level.residual_work

    def __str__(self) -> str:
        return f"GaussSeidel({self.direction!r})"
