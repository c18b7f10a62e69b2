"""`AdditiveSchwarz` and `MultiplicativeSchwarz`: overlapping subdomains, Vanka's smoother."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from mgnet import vector
from mgnet.limits import is_number, is_one_of, shown
from mgnet.local_inverses import local_inverses
from mgnet.smoother import Smoother
from mgnet.subspace_corrections import (
    Stage,
    check_direction,
    corrected,
    finite_matrix,
    has_rows,
    in_direction,
    solve_dtype,
)

if TYPE_CHECKING:
    from mgnet.level import Level

__all__ = ["AdditiveSchwarz", "MultiplicativeSchwarz"]

State = Any
Sets = tuple[np.ndarray, np.ndarray]  # concatenated index sets, and the beginning of each


@dataclass(frozen=True, eq=False, repr=False)
class AdditiveSchwarz(Smoother):
    """Additive Schwarz relaxation: all subdomains are solved from one residual.

    A sweep is `u + omega sum_k R_k^T W_k A_k^-1 R_k (f - A(u))`. R_k selects the unknowns of
    subdomain k. `A_k = R_k A R_k^T` is their part of the matrix, or of the Jacobian at the first
    visit, and is inverted once. W_k are weights. Each A_k may be indefinite but not singular. For
    saddle points, with a subdomain for each pressure and the velocities around it, the smoother is
    additive Vanka. Source: Toselli and Widlund, Domain Decomposition Methods (2005), chapter 2.

    Parameters
    ----------
    subdomains : sequence of index sequences, optional
        Unknowns of each subdomain. Subdomains may overlap, and every unknown must be in at least
        one. By default there is one subdomain for each unknown, with all unknowns that its row of
        the matrix couples it to.
    weights : "average", "symmetric", "none" or sequence of number sequences
        "average" divides a correction by the number of subdomains that contain the unknown;
        "symmetric" divides by the square root of that number before and after the solve, so that a
        symmetric matrix has a symmetric smoother; "none" adds corrections without weights, which
        needs a small omega. Numbers, one for each entry of `subdomains`, are the diagonals of the
        W_k.
    omega : float
        Damping factor, dimensionless, above 0.

    Raises
    ------
    ValueError
        If subdomains, weights or omega is malformed.

    Examples
    --------
    >>> from mgnet import Level, gallery
    >>> smoother = AdditiveSchwarz([[0, 1], [1, 2]])
    >>> level, u = gallery.poisson(3)[0], np.zeros(3)
    >>> smoother.smooth(level, u, np.ones(3), 1, smoother.start(level, u))[0]
    array([0.25, 0.25, 0.25])
    """

    subdomains: Sequence[Sequence[int] | np.ndarray] | None = None
    weights: str | Sequence[Sequence[float] | np.ndarray] = "average"
    omega: float = 1.0

    def __post_init__(self) -> None:
        _check_omega("AdditiveSchwarz", self.omega)
        sets = self._sets
        if isinstance(self.weights, str):
            if not is_one_of(self.weights, ("average", "symmetric", "none")):
                raise ValueError(
                    f"AdditiveSchwarz got weights {shown(self.weights)}; they must be 'average', "
                    "'symmetric', 'none' or numbers for each subdomain"
                )
            return
        given = self._numbers
        sizes = [] if sets is None else [(size,) for size in np.diff(sets[1])]
        numbers = all(part.dtype.kind in "iuf" and np.isfinite(part).all() for part in given)
        if not given or [part.shape for part in given] != sizes or not numbers:
            raise ValueError(
                f"AdditiveSchwarz got weights {shown(self.weights)}, which do not fit; give a real "
                "number for each entry of each subdomain, in the same order"
            )

    @cached_property
    def _numbers(self) -> list[np.ndarray]:
        """The weights as numbers; empty if they are given as a word."""
        try:
            return [np.asarray(part) for part in self.weights]
        except (TypeError, ValueError):
            return []

    @cached_property
    def _sets(self) -> Sets | None:
        return _concatenated("AdditiveSchwarz", self.subdomains)

    def start(self, level: Level, u: State) -> list[Stage]:
        owner = f"{self} on {level}"
        matrix = finite_matrix(level, u, owner)
        indices, offsets = _covering(owner, self._sets, matrix)
        inverses = local_inverses(matrix, indices, offsets, solve_dtype(matrix, u), owner)
        real = np.finfo(inverses.dtype).dtype
        after = self._weights(indices).astype(real)
        before = after if self.weights == "symmetric" else None
        places = (after * real.type(self.omega), indices, np.arange(len(indices) + 1))
        scatter = sp.csr_matrix(places, shape=(len(indices), matrix.shape[0])).T.tocsr()

        def solve(r: np.ndarray) -> np.ndarray:
            parts = r[indices] if before is None else r[indices] * before
            return scatter @ inverses.apply(parts)

        return [Stage(None, solve)]

    def _weights(self, indices: np.ndarray) -> np.ndarray:
        """Weights of each entry of the index sets, applied after its solve."""
        if not isinstance(self.weights, str):
            return np.concatenate(self._numbers)
        if self.weights == "none":
            return np.ones(len(indices))
        times = 1.0 / np.bincount(indices)[indices]
        return np.sqrt(times) if self.weights == "symmetric" else times

    def smooth(
        self, level: Level, u: State, f: State | None, sweeps: int, memory: Any
    ) -> tuple[State, Any]:
        return corrected(level, u, f, memory, sweeps), memory

    def __str__(self) -> str:
        weights = repr(self.weights) if isinstance(self.weights, str) else "weights"
        return f"AdditiveSchwarz({_number(self._sets)}, {weights})"

    __repr__ = __str__


@dataclass(frozen=True, eq=False, repr=False)
class MultiplicativeSchwarz(Smoother):
    """Multiplicative Schwarz relaxation: one subdomain after the other, grouped by colors.

    Each subdomain is solved from the residual left by those before it. Subdomains that neither
    overlap nor are coupled by the matrix may share a color and are then solved together. This
    changes only the order: first all subdomains of the first color, then all of the second, and so
    on. The level must have a matrix. For saddle points, with a subdomain for each pressure and the
    velocities around it, it is Vanka's smoother. Source: Vanka, J. Comput. Phys. 65 (1986) 138.

    Parameters
    ----------
    subdomains : sequence of index sequences, optional
        Unknowns of each subdomain, as for `AdditiveSchwarz`.
    omega : float
        Damping factor of every correction, dimensionless, above 0.
    direction : "forward", "backward" or "symmetric"
        Order of the colors; a symmetric sweep is a forward sweep followed by a backward one.

    Raises
    ------
    ValueError
        If subdomains, omega or direction is malformed.

    Examples
    --------
    >>> from mgnet import Level, gallery
    >>> smoother = MultiplicativeSchwarz([[0, 1], [1, 2]])
    >>> level, u = gallery.poisson(3)[0], np.zeros(3)
    >>> smoother.smooth(level, u, np.ones(3), 1, smoother.start(level, u))[0]
    array([0.25      , 0.41666667, 0.33333333])
    """

    subdomains: Sequence[Sequence[int] | np.ndarray] | None = None
    omega: float = 1.0
    direction: str = "forward"

    def __post_init__(self) -> None:
        _check_omega("MultiplicativeSchwarz", self.omega)
        check_direction("MultiplicativeSchwarz", self.direction)
        _ = self._sets

    @cached_property
    def _sets(self) -> Sets | None:
        return _concatenated("MultiplicativeSchwarz", self.subdomains)

    def start(self, level: Level, u: State) -> tuple[list[Stage], float]:
        self._check_rows(level)
        owner = f"{self} on {level}"
        matrix: Any = sp.csr_matrix(finite_matrix(level, u, owner))
        indices, offsets = _covering(owner, self._sets, matrix)
        dtype, omega, forward = solve_dtype(matrix, u), self.omega, []
        colours = _colours(matrix, indices, offsets)
        for colour in range(colours.max() + 1):
            chosen = np.repeat(colours == colour, np.diff(offsets))
            unknowns = indices[chosen]
            sizes = np.diff(offsets)[colours == colour]
            begins = np.concatenate([[0], np.cumsum(sizes)])
            inverses = local_inverses(matrix, unknowns, begins, dtype, owner)
            forward.append(Stage(unknowns, _damped(inverses, omega), matrix[unknowns]))
        return in_direction(self.direction, forward), self.work(level, 1)

    def smooth(
        self, level: Level, u: State, f: State | None, sweeps: int, memory: Any
    ) -> tuple[State, Any]:
        stages, work = memory
        level.charge(sweeps * work)
        return corrected(level, u, f, stages, sweeps), memory

    def _check_rows(self, level: Level) -> None:
        if not has_rows(level):
            raise ValueError(
                f"{self} on {level} needs the rows of a matrix, but the residual of this level is "
                "a function; use AdditiveSchwarz there"
            )

    def work(self, level: Level, sweeps: int) -> float:
        self._check_rows(level)
        sets = self._sets
        if sets is None:
            sets = _neighbours(vector.as_scipy(level.matrix, f"{self} on {level}"))
        times = 2 if self.direction == "symmetric" else 1
        return sweeps * (times * len(sets[0]) / level.unknowns) * level.residual_work

    def __str__(self) -> str:
        return f"MultiplicativeSchwarz({_number(self._sets)}, {self.direction!r})"

    __repr__ = __str__


def _damped(inverses: Any, omega: float) -> Any:
    return lambda r: inverses.apply(r) * omega


def _check_omega(owner: str, omega: Any) -> None:
    if not is_number(omega, 0.0, math.inf, open=True):
        raise ValueError(f"{owner} got omega {shown(omega)}; give a number above 0, such as 0.8")


def _number(sets: Sets | None) -> str:
    return "neighbours" if sets is None else f"{len(sets[1]) - 1} subdomains"


def _concatenated(owner: str, subdomains: Any) -> Sets | None:
    """Concatenate the index sets, after the checks that need no matrix."""
    if subdomains is None:
        return None
    wanted = "give a sequence of index sets, each with the numbers of its unknowns"
    try:
        parts = [np.asarray(part) for part in subdomains]
    except (TypeError, ValueError):
        raise ValueError(f"{owner} got subdomains {shown(subdomains)}; {wanted}") from None
    if not parts:
        raise ValueError(f"{owner} got no subdomains; {wanted}")
    for number, part in enumerate(parts):
        if part.ndim != 1 or part.size == 0 or part.dtype.kind not in "iu":
            raise ValueError(f"{owner} got {shown(part)} as subdomain {number}; {wanted}, from 0")
    sizes = np.array([len(part) for part in parts])
    indices = np.concatenate(parts, dtype=np.int64, casting="unsafe")
    offsets = np.cumsum([0, *sizes])
    owners = np.repeat(np.arange(len(parts)), sizes)
    if indices.min() < 0:  # such as unsigned integers that are too large
        number = owners[np.argmax(indices < 0)]
        raise ValueError(
            f"{owner} got {shown(parts[number])} as subdomain {number}; {wanted}, from 0"
        )
    order = np.lexsort((indices, owners))
    twice = (np.diff(indices[order]) == 0) & (np.diff(owners[order]) == 0)
    if twice.any():
        number = owners[order][np.argmax(twice)]
        raise ValueError(f"{owner} got subdomain {number} with an unknown twice; name each once")
    return indices, offsets


def _neighbours(matrix: Any) -> Sets:
    """For each unknown, itself and the unknowns that its row couples it to."""
    pattern: Any = sp.csr_matrix(matrix, copy=True)
    pattern.sum_duplicates()
    pattern.eliminate_zeros()
    pattern.data = np.ones(len(pattern.data))
    pattern = sp.csr_matrix(pattern + sp.identity(pattern.shape[0], format="csr"))
    return pattern.indices.astype(np.int64), pattern.indptr.astype(np.int64)


def _covering(owner: str, sets: Sets | None, matrix: Any) -> Sets:
    """Index sets that cover the unknowns of a matrix; others are refused."""
    n = int(matrix.shape[0])
    if sets is None:
        return _neighbours(matrix)
    if sets[0].max() >= n:
        raise ValueError(
            f"{owner}: unknown {sets[0].max()} is in a subdomain, but the level has {n} unknowns, "
            f"0 to {n - 1}; each level needs subdomains of its own"
        )
    missing = np.flatnonzero(np.bincount(sets[0], minlength=n) == 0)
    if len(missing):
        raise ValueError(
            f"{owner}: unknown {missing[0]} is in no subdomain ({len(missing)} of {n} are in none),"
            " so it would never be smoothed; add it to one, or give it its own"
        )
    return sets


def _colours(matrix: Any, indices: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """The color of each index set, from 0, assigned greedily in the order of the sets.

    Two sets have different colors if they share an unknown or the matrix has an entry between them.
    """
    ones = np.ones(len(indices), np.float32)
    member = sp.csr_matrix((ones, indices, offsets), shape=(len(offsets) - 1, matrix.shape[0]))
    coupled = sp.csr_matrix(abs(matrix) > 0, dtype=np.float32)
    near = member @ sp.csr_matrix(coupled + sp.identity(matrix.shape[0]))
    meets = sp.csr_matrix(near @ member.T)
    before: Any = sp.tril(meets + meets.T, -1, format="csr")
    others, colours = before.indices.tolist(), []
    for first, last in itertools.pairwise(before.indptr.tolist()):
        # One bit per color: Python's loop over integers is faster than NumPy's calls here.
        taken = 0
        for other in others[first:last]:
            taken |= colours[other]
        colours.append(~taken & (taken + 1))  # the lowest free bit
    return np.array([colour.bit_length() - 1 for colour in colours])
