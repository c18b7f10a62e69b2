"""Anderson acceleration: combine the last few cycles so that the next change is smallest."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mgnet import norms
from mgnet.limits import is_number, is_whole, shown

__all__ = ["Anderson"]

State = Any


@dataclass(frozen=True)
class Anderson:
    """Anderson acceleration of a `Solver`: the cycle is the fixed-point map.

    Let `g` be one cycle and `d(u) = g(u) - u` the change it makes. The next state is the
    combination of the last states and of their cycles `g(u)` whose change has the smallest norm
    (the norm of the hierarchy). For a linear equation, these are the iterates of GMRES
    preconditioned by the cycle (theorem 2.2 of the source). Source: Walker and Ni, SIAM J. Numer.
    Anal. 49 (2011) 1715, doi 10.1137/10078356X, algorithm AA in the unconstrained form (2.2), with
    damping.

    The method is safeguarded. If the residual norm grows by more than the factor `growth` over a
    cycle, the combination is replaced by the result of the plain cycle; if its residual norm grew
    as well, or is not finite, by the result of the cycle before that. The memory is then cleared;
    `Solution.restarts` counts these restarts. Only a restart costs extra evaluations (one or two).
    The method stores 2 * memory states and computes about memory^2 / 2 + 2 * memory inner products
    per cycle.

    Parameters
    ----------
    memory : int
        Number of past cycles that are combined, at least 1; 3 to 10 is usual.
    damping : float
        Damping factor of the change, dimensionless, above 0; 1 means no damping.
    growth : float
        Factor, at least 1, by which the residual norm may grow over one cycle before a restart.
    rcond : float
        A past cycle is dropped if its direction differs from a linear combination of newer
        directions by at most this relative length, so that the least-squares problem stays well
        conditioned.

    Raises
    ------
    ValueError
        If memory is not a positive integer or another parameter is out of its range.

    Examples
    --------
    A grid of 63 x 7 points has cells with aspect ratio 8, where point relaxation hardly smooths:

    >>> from mgnet import Solver, gallery
    >>> hierarchy, f = gallery.reaction((63, 7), strength=100.0), np.full(63 * 7, 0.1)
    >>> for acceleration in (None, Anderson(memory=5)):
    ...     solver = Solver(hierarchy, max_cycles=500, acceleration=acceleration)
    ...     round(solver.solve(f).cycles, -1)
    410
    70
    """

    memory: int = 5
    damping: float = 1.0
    growth: float = 2.0
    rcond: float = 1e-8

    def __post_init__(self) -> None:
        if not is_whole(self.memory, 1) or not is_number(self.damping, 0.0, math.inf, open=True):
            raise ValueError(
                f"Anderson got {shown(vars(self), 200)}; it needs a memory of 1, 2, ... "
                "cycles and a damping above 0; leave acceleration out for the plain cycle"
            )
        if not is_number(self.growth, 1.0) or not is_number(self.rcond, 0.0, 1.0, open=True):
            raise ValueError(
                f"Anderson got {shown(vars(self), 200)}; it needs a growth of at least 1 and an "
                "rcond between 0 and 1"
            )


class Iterates:
    """What the acceleration stores during one solve.

    Parameters
    ----------
    anderson : Anderson
        Parameters of the acceleration.
    dot, norm : callable
        Inner product and norm of the hierarchy. Under MPI, all ranks then get the same numbers and
        make the same decisions.

    Examples
    --------
    For `u -> u / 2 + 1`, two cycles determine the fixed point, 2:

    >>> iterates = Iterates(Anderson(), np.dot, np.linalg.norm)
    >>> iterates.next(np.zeros(1), np.ones(1)), iterates.next(np.ones(1), 1.5 * np.ones(1))
    (array([1.]), array([2.]))
    """

    def __init__(
        self,
        anderson: Anderson,
        dot: Callable[[State, State], float],
        norm: Callable[[State], float],
    ):
        self.anderson = anderson
        self.dot = dot
        self.norm = norm
        self.restarts = 0
        self._plain: list[State] = []  # results of cycles that were not used, newest first
        self._last: tuple[State, State] | None = None
        self._differences: list[tuple[State, State]] = []  # of states and of changes, newest first

    def next(self, u: State, plain: State) -> State:
        """Return the next state, given that one cycle took `u` to `plain`."""
        change, earlier = plain - u, self._plain[:1]
        if self._last is None:
            earlier = []
        else:
            self._differences.insert(0, (u - self._last[0], change - self._last[1]))
            del self._differences[self.anderson.memory :]
        self._last = u, change
        damping = self.anderson.damping
        new = plain if damping == 1.0 else u + damping * change
        weights = self._least_squares(change)
        for weight, (step, difference) in zip(weights, self._differences, strict=True):
            new = new - weight * step
            new = new - (weight * damping) * difference
        self._plain = [] if new is plain else [plain, *earlier]
        return new

    def _least_squares(self, change: State) -> list[float]:
        """Weights with which the stored differences of changes combine to approximate `change`.

        Modified Gram-Schmidt with the right-hand side as its last column is as stable as
        Householder's QR. The newest differences come first, so that linearly dependent ones, which
        are dropped, are old.
        """
        basis: list[State] = []
        columns: list[list[float]] = []
        kept = []
        for pair in self._differences:
            rest, column, length = pair[1], [], self._length(pair[1])
            for q in basis:
                column.append(self.dot(q, rest))
                rest = rest - column[-1] * q
            left = self._length(rest)
            if left <= self.anderson.rcond * length:
                continue
            kept.append(pair)
            columns.append([*column, left])
            if not 1e-30 < left < 1e30:  # 1 / left may overflow in the precision of the states
                size = norms.binary_exponent(left)
                rest, left = norms.times_power_of_two(rest, -size), math.ldexp(left, -size)
            basis.append(rest * (1.0 / left))
        self._differences = kept
        size = len(basis)
        triangle, parts = np.zeros((size, size)), np.zeros(size)
        for k, column in enumerate(columns):
            triangle[: k + 1, k] = column
            parts[k] = self.dot(basis[k], change)
            change = change - float(parts[k]) * basis[k]
        return np.linalg.solve(triangle, parts).tolist()

    def _length(self, u: State) -> float:
        """The norm of u from the inner product; u is scaled if the square would overflow."""
        squares = self.dot(u, u)
        if 1e-290 < squares < math.inf:
            return math.sqrt(squares)
        exponent = norms.binary_exponent(self.norm(u))
        u = norms.times_power_of_two(u, -exponent)
        return math.ldexp(math.sqrt(self.dot(u, u)), exponent)

    def refuses(self, norms: list[float]) -> bool:
        """Whether the residual norm grew too much over the cycle and an earlier state exists."""
        return bool(self._plain) and not norms[-1] <= self.anderson.growth * norms[-2]

    def restart(self) -> State | None:
        """Clear the memory; return the plain cycle's state, or None if nothing was combined."""
        self.restarts += self._last is not None and bool(self._plain)
        self._last, self._differences = None, []
        return self._plain.pop(0) if self._plain else None
