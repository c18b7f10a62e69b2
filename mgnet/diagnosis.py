"""Find out why a solve is slow by measuring one more cycle; used by `Solution.explain`."""

from __future__ import annotations

import math
from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from mgnet import vector
from mgnet.norms import binary_exponent, times_power_of_two
from mgnet.rounding import FALLEN, ROUNDING, rounding_noise
from mgnet.schedule import Step
from mgnet.smoother_advice import any_smoother, stronger_smoother

if TYPE_CHECKING:
    from mgnet.interpreter import StepData
    from mgnet.level import Level
    from mgnet.solution import Solution

__all__ = ["Diagnosis", "advise"]

State = Any

# A cycle with a factor below this needs no advice.
CONTENT = 0.6
# If the ratio is between these, fine and coarse operators agree. Coarse grids with few points, and
# nonlinear ones, differ by a factor of nearly two.
AGREE = 0.4, 2.5
# Same bounds for random corrections: a coarse grid of twice the mesh width gives ratios from 0.56
# to 1.
TYPICAL = 0.4, 1.5
# A sweep that leaves more than this part of the residual hardly smooths.
WEAK = 0.95


class Diagnosis:
    """Measurements of the last cycle of a solve, which is repeated for this purpose.

    One residual is evaluated after every step, and two coarse operators and one restriction per
    `up`; none of this counts as work of the solve.

    Attributes
    ----------
    logs : dict
        (level, action) -> logarithms of the reduction of the residual norm of that level, per
        visit.
    sweeps : dict
        Level -> logarithms of the reduction by its smoothing steps, per sweep.
    visits : dict
        Level -> logarithms of the reduction from each descent to the level to the next ascent.
    changes : dict
        Level l -> for each correction w from level l + 1, `<w, R (A(u + P w) - A(u))>` and
        `<w, A_c(v + w) - A_c(v)>`, which are equal if both operators discretize the same equation.
    levels, states : dict
        The `Level` and the state (u, f) of each level at its last visit.
    start : state or None
        The state before the last cycle, if it is known.
    plain : bool
        Whether the solve used no acceleration.

    Examples
    --------
    >>> from mgnet import Solver, gallery
    >>> diagnosis = Diagnosis(Solver(gallery.poisson(7)).solve(np.ones(7)))
    >>> fine, coarse = diagnosis.changes[0][0]
    >>> round(fine / coarse, 6)
    1.0
    """

    def __init__(self, solution: Solution):
        self.logs: dict[tuple[int, str], list[float]] = defaultdict(list)
        self.sweeps: dict[int, list[float]] = defaultdict(list)
        self.visits: dict[int, list[float]] = defaultdict(list)
        self.changes: dict[int, list[tuple[float, float]]] = defaultdict(list)
        self.levels: dict[int, Level] = {}
        self.states: dict[int, tuple[State, State | None]] = {}
        self._solution = solution
        self._norms: dict[int, float] = {}  # of each level, after the step before
        # For each level that was descended to: u and the residual norm there, and r on the level
        # above.
        self._arrivals: dict[int, tuple[State, float, State]] = {}
        last = solution.last_cycle
        self.start: State | None = last.args[2] if isinstance(last, partial) else None
        self.operator: Any = last.args[1][0].operator if isinstance(last, partial) else None
        # Scale of residuals: without it their products with states may overflow in float64.
        self._exponent = binary_exponent(solution.residual_norms[0])
        # After a state that was not finite, a repeated cycle would break off again.
        if last is not None and solution.reason.name != "NOT_FINITE":
            self._norms[0] = solution.residual_norms[-2]
            # A partial solve of a Krylov method begins at its last restart.
            if isinstance(last, partial):
                _, hierarchy, u, f, _ = last.args
                self._norms[0] = solution.norm(f if u is None else hierarchy[0].residual_at(u, f))
            last(self._measure)

    def _measure(self, step: Step, data: StepData) -> None:
        level = step.level + (step.action == "down")
        residual = data.level.residual_at(data.state, data.rhs)
        after, before = self._solution.norm(residual), self._norms.get(level, 0.0)
        measurable = 0.0 < before < math.inf and 0.0 < after < math.inf
        if step.action in ("pre", "post", "solve", "up") and measurable:
            log = math.log(after) - math.log(before)
            self.logs[level, step.action].append(log)
            if step.action in ("pre", "post"):
                self.sweeps[level].append(log / step.count)
        if step.action == "down":
            self._arrivals[level] = data.state, after, data.progress.rs[step.level]
        if step.action == "up":
            self._compare(level, residual, data)
        self._norms[level] = after
        self.levels[level], self.states[level] = data.level, (data.state, data.rhs)

    def _compare(self, number: int, residual: State, data: StepData) -> None:
        dot, coarse = self._solution.dot, self.levels[number + 1]
        start, began, above = self._arrivals[number + 1]
        ended = self._norms[number + 1]
        if 0.0 < began < math.inf and 0.0 < ended < math.inf:
            self.visits[number + 1].append(math.log(ended) - math.log(began))
        if not data.step_length:
            return
        end = data.progress.us[number + 1]
        change = (above - residual) * (1.0 / data.step_length)
        fine = data.level.transfer.restrict(change)  # type: ignore[union-attr]
        # Residual norms are not compared: the residual of a level may vanish on part of it
        # (C-layers).
        said = coarse.apply(end) - coarse.apply(start)
        fine, said = (times_power_of_two(each, -self._exponent) for each in (fine, said))
        self.changes[number].append((dot(end - start, fine), dot(end - start, said)))

    def typical_ratio(self, number: int) -> float | None:
        """The ratio of `changes` for a random correction; None if a level has no matrix."""
        level, coarse = self.levels[number], self.levels[number + 1]
        transfer: Any = level.transfer
        if level.matrix is None or coarse.matrix is None:
            return None
        w = vector.random_like(self.states[number + 1][0], np.random.default_rng(0))
        fine = transfer.restrict(vector.apply(level.matrix, transfer.prolong(w)))
        said = self._solution.dot(w, vector.apply(coarse.matrix, w))
        return self._solution.dot(w, fine) / said if said else None


def advise(solution: Solution, diagnosis: Diagnosis) -> list[str]:
    """Sentences with the measurements and a remedy; empty if the solve is healthy.

    Examples
    --------
    >>> from mgnet import Jacobi, Solver, gallery
    >>> solution = Solver(gallery.poisson(15, smoother=Jacobi(0.01))).solve(np.ones(15))
    >>> print(advise(solution, Diagnosis(solution))[0])
    levels 0, 1 and 2: ...
    """
    finite = solution.reason.name != "NOT_FINITE"
    found = [solution.message] if solution.message and finite else []
    found += _refused(solution) + _of_the_operator(solution, diagnosis)
    norms = solution.residual_norms[-6:]
    if not finite or len(norms) < 2 or not 0.0 < norms[-1] < math.inf:
        return found
    factor = (norms[-1] / norms[0]) ** (1.0 / (len(norms) - 1))
    if factor <= CONTENT and solution.reason.name != "ROUNDING":
        return found
    if not diagnosis.levels:  # no cycle to repeat
        return found
    stands: list[str] = []
    if not solution.reason.converged:
        stands = _inconsistent(solution, diagnosis) or _rounding(solution, diagnosis)
    found = stands or found + _scaling(diagnosis)
    if found or not all(_is_plain(level) for level in diagnosis.levels.values()):
        return found
    return _smoothing(solution, diagnosis) or _growing(solution, diagnosis, factor)


def _of_the_operator(solution: Solution, diagnosis: Diagnosis) -> list[str]:
    """Advice from an operator's own method `advise`, for a solve that has not converged."""
    tell = getattr(diagnosis.operator, "advise", None)
    return [] if tell is None or solution.reason.converged else list(tell())


def _refused(solution: Solution) -> list[str]:
    return [
        f"level {level}: all {told.refused} coarse corrections were refused by the line search, "
        f"so no coarser level helps: check the equation of level {level + 1} (hierarchy.check), "
        "smooth more before going down, or leave the coarser levels out"
        for level, told in solution.corrections.items()
        if told.refused > 1 and told.refused == len(told.lengths)
    ]


def _rounding(solution: Solution, diagnosis: Diagnosis) -> list[str]:
    level, (u, f) = diagnosis.levels[0], diagnosis.states[0]
    noise = rounding_noise(level, solution.norm, u, f)
    now, dtype = solution.residual_norms[-1], vector.dtype_of(u)
    scale = (0.0 if f is None else solution.norm(f)) or solution.residual_norms[0]
    if now > ROUNDING * noise:
        return []
    if now > FALLEN * scale:
        return [
            f"the state has grown to a norm of {solution.norm(u):.1e}, and its last digits move "
            f"the residual by {noise:.1e}: the matrix is singular or nearly singular; if it is "
            "singular, subtract from f its part outside the range of the matrix (its mean, for a "
            "periodic or Neumann problem)"
        ]
    return [
        f"the residual norm has stagnated at {now:.1e}, and the last digits of the {dtype} state "
        f"move it by {noise:.1e}: use a tolerance of at least about "
        f"rtol={3.0 * max(now, noise) / scale:.0e}"
        + (", or use float64" if dtype.itemsize <= 4 else "")
    ]


def _inconsistent(solution: Solution, diagnosis: Diagnosis) -> list[str]:
    """Whether the matrix maps to zero the change of a cycle, or the residual that cycles leave."""
    level, (u, f), norm = diagnosis.levels[0], diagnosis.states[0], solution.norm
    if level.matrix is None:
        return []

    def stretched(v: State) -> float:
        return norm(vector.apply(level.matrix, v)) / norm(v)

    limit = 1e-10 * stretched(vector.random_like(u, np.random.default_rng(0)))
    found = {"residual": level.residual_at(u, f)}
    if f is not None and _outside_constants(level.matrix, f, norm, solution.dot):
        found["vector of ones"] = vector.zeros_like(u) + 1.0
    if diagnosis.start is not None and norm(u - diagnosis.start) > 1e-10 * norm(u):
        found["change of the last cycle"] = u - diagnosis.start
    return [
        f"level 0: the matrix maps the {name} to zero, so it is singular, and the equation has no "
        "solution: subtract from f its part outside the range (its mean, for a periodic or a "
        "Neumann problem), or give the hierarchy its nullspace ('constant', there)"
        for name, v in found.items()
        if stretched(v) <= limit
    ][:1]


def _outside_constants(matrix: Any, f: State, norm: Any, dot: Any) -> bool:
    """Whether all products of the matrix have mean zero, but f does not."""
    if vector.is_vec(f):
        return False
    ones = vector.zeros_like(f) + 1.0
    image = vector.apply(matrix, vector.random_like(f, np.random.default_rng(1)))
    size = norm(ones)
    return abs(dot(ones, image)) <= 1e-10 * size * norm(image) and abs(
        dot(ones, f)
    ) > 1e-10 * size * norm(f)


def _scaling(diagnosis: Diagnosis) -> list[str]:
    """Levels whose operator or transfers are scaled differently from those of adjacent levels."""
    ratios = {}
    for level, pairs in diagnosis.changes.items():
        fine, coarse = (sum(part) for part in zip(*pairs, strict=True))
        ratios[level] = fine / coarse if coarse else math.inf
    low, high = AGREE
    off = {level for level, ratio in ratios.items() if not low <= ratio <= high}
    found = []
    for level in sorted(off):
        above, below = ratios.get(level - 1, 1.0), ratios[level]
        if level - 1 in off and low <= above * below <= high:
            continue  # reported with the level above
        told = f"level {level}: the correction from level {level + 1} changes the restricted "
        told += f"residual {below:.2g} times as much as the operator of level {level + 1} does, "
        if level + 1 in off and low <= below * ratios[level + 1] <= high:
            told += f"and level {level + 1} itself gives {ratios[level + 1]:.2g}: the operator of "
            told += f"level {level + 1} is wrong, by a factor of about {1.0 / below:.2g}"
        elif (typical := diagnosis.typical_ratio(level)) and TYPICAL[0] <= typical <= TYPICAL[1]:
            found.append(
                f"{told}but a random one {typical:.2g} times: the scale is right, and the operator "
                f"of level {level + 1} is wrong for some errors, for example where coefficients "
                f"rotate or jump within its cells; use P^T A P there"
            )
            continue
        else:
            told += f"so the transfer between levels {level} and {level + 1} is scaled wrongly, or "
            told += f"the operator of level {level + 1} is"
        found.append(f"{told}; hierarchy.check tests the transfers, P^T A P is always consistent")
    return found


def _smoothing(solution: Solution, diagnosis: Diagnosis) -> list[str]:
    """Levels whose sweeps barely reduce the residual that the cycle leaves."""
    coarsest = max(diagnosis.levels)
    factors = {
        level: _mean(logs)
        for level, logs in diagnosis.sweeps.items()
        if level < coarsest or not coarsest
    }
    worst = max(factors.values(), default=0.0)
    if worst > 1.05:
        level = max(factors, key=lambda level: factors[level])
        told = stronger_smoother(diagnosis.levels[level], diagnosis.states[level][0])
        return [
            f"level {level}: a sweep of {diagnosis.levels[level].smoother} increases the residual "
            f"norm {worst:.2f}-fold: {told or 'use another smoother there'}, or damp it"
        ]
    if worst < WEAK:
        return []
    # The worst ones within a factor: a weak level slows down all levels above it.
    near = 1 - 2.5 * max(1 - worst, 0.0)
    named = sorted(level for level, factor in factors.items() if factor >= min(near, worst))
    level = diagnosis.levels[named[0]]
    told = stronger_smoother(level, diagnosis.states[named[0]][0])
    told = told or any_smoother(level, diagnosis.states[named[0]][0])
    return [
        f"{_listed(named)}: a sweep of {level.smoother} leaves {worst:.3f} of the residual norm, "
        f"and no coarser level reduces the rest: {told}{_or_accelerate(solution, diagnosis)}"
    ]


def _growing(solution: Solution, diagnosis: Diagnosis, factor: float) -> list[str]:
    """Advice on coarse levels that are solved too inaccurately; otherwise general advice."""
    # Above the coarsest levels, which solve exactly.
    visits = [_mean(diagnosis.visits[level]) for level in sorted(diagnosis.visits)[:-1]]
    told = f"the cycle leaves {factor:.2f} of the residual norm on level 0"
    if visits and factor > 1.25 * visits[-1]:
        factors = "".join(f", {visit:.2f} on level {k}" for k, visit in enumerate(visits, 1))
        told += f"{factors}: this grows with the number of levels below, so solve those better, "
        told += "with an F- or W-cycle or more sweeps"
        shown = stronger_smoother(diagnosis.levels[0], diagnosis.states[0][0])
        return [f"{told}; or else, {shown}" if shown else told]
    return [
        f"{told}, and no single level is the cause: try more "
        f"sweeps{_or_accelerate(solution, diagnosis)}"
    ]


def _or_accelerate(solution: Solution, diagnosis: Diagnosis) -> str:
    """The acceleration to use if the solve had none."""
    if solution.acceleration is not None:
        return ""
    linear = all(level.matrix is not None for level in diagnosis.levels.values())
    return f", or use acceleration={'GMRES()' if linear else 'Anderson()'}"


def _is_plain(level: Level) -> bool:
    """Whether sweeps should reduce the residual; those of optimizers need not."""
    smoothers = (level.smoother, level.post_smoother or level.smoother)
    return all(smoother.fixed_work and smoother.monotone for smoother in smoothers)


def _mean(logs: list[float]) -> float:
    return math.exp(sum(logs) / len(logs))


def _listed(levels: list[int]) -> str:
    if len(levels) == 1:
        return f"level {levels[0]}"
    return f"levels {', '.join(map(str, levels[:-1]))} and {levels[-1]}"
