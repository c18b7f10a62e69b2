"""Newton's method for the layer equation: linearize all layers, and solve by one scan.

Sources: DEER, Lim et al. (arXiv 2309.12252), with dense Jacobians; quasi-DEER and ELK, Gonzalez et
al. (arXiv 2407.19115), with diagonals of the Jacobians and damping; Picard's running sum, with the
identity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from mgnet import vector
from mgnet.depth.mgrit.communicator import SERIAL_COMMUNICATOR
from mgnet.depth.mgrit.scan import affine_scan, composed, pushed
from mgnet.kinds import is_tensor
from mgnet.limits import is_number, is_one_of, shown
from mgnet.notation import Scanner
from mgnet.smoother import Smoother

if TYPE_CHECKING:
    from mgnet.depth.mgrit.layer_equation import LayerEquation
    from mgnet.level import Level

__all__ = ["STRUCTURES", "NewtonSweep", "newton_of"]

State = Any
STRUCTURES = "dense", "diagonal", "identity"
# Largest correction relative to the largest state, after a full step has increased the residual.
TRUSTED = 3.0
WORSE = 2.0  # factor by which a residual must exceed the last one
MOST_DAMPING = 0.999  # from here on, a step is Jacobi's, without Jacobians


@dataclass(frozen=True)
class NewtonSweep(Smoother):
    """One Newton step for the states of all layers at once: a smoother, or a solver on one level.

    All layers are evaluated and linearized in one batched call. The linearized equation is a
    recurrence of affine maps, which a scan solves exactly. On a level with C-layers, the unknowns
    are the C-points, and a march over all intervals at once computes the products of the Jacobians.

    Every sweep makes at least one more point exact, whatever the Jacobians are, so N sweeps
    suffice. If layers are contracting, a full Newton step doubles the number of correct digits of
    all points. If layers are chaotic, linearized errors grow without bound along the layers. The
    residual after a full step is therefore evaluated, and the step is undone if it has increased
    the residual. From then on, Jacobians are scaled by 1 - k, with the smallest k for which no
    correction is larger than three times the largest state (scale-ELK with a trust region). To find
    this k, only the scan is repeated, without evaluating layers.

    Parameters
    ----------
    structure : {"dense", "diagonal", "identity"}
        Which Jacobians to use: full Jacobians (DEER), their diagonals (quasi-DEER), or the
        identity, for which the scan is a running sum (Picard). The last two converge linearly.
    damping : float
        Lower bound of k, dimensionless, below 1: Jacobians are always scaled by 1 - k. This is
        scale-ELK of Gonzalez et al. (arXiv 2407.19115); the Levenberg-Marquardt damping of their
        ELK itself would need a Kalman smoother instead of the scan.

    Raises
    ------
    TypeError
        In a sweep, if the propagator cannot linearize its layers.
    ValueError
        If `structure` or `damping` is invalid.

    Examples
    --------
    >>> import mgnet
    >>> from mgnet.depth import OneStep
    >>> def euler(t, dt, u):
    ...     return u - dt[:, None] * np.sin(u)
    >>> pendulum = OneStep(euler, np.array([1.0]), np.full(500, 0.02))
    >>> hierarchy = pendulum.hierarchy(levels=1, solver=NewtonSweep())
    >>> solution = mgnet.Solver(hierarchy, rtol=1e-12).solve(u=pendulum.guess())
    >>> solution.cycles, bool(abs(solution.value - pendulum.serial()).max() < 1e-12)
    (4, True)
    """

    structure: str = "dense"
    damping: float = 0.0
    fixed_work: ClassVar[bool] = False  # the propagator determines the cost of Jacobians

    def __post_init__(self) -> None:
        if not is_one_of(self.structure, STRUCTURES):
            raise ValueError(
                f"NewtonSweep got the structure {shown(self.structure)}; it must be one of "
                f"{', '.join(STRUCTURES)}"
            )
        if not is_number(self.damping, 0.0, 1.0) or self.damping >= 1.0:
            raise ValueError(
                f"NewtonSweep got the damping {shown(self.damping)}; it must be a number from 0 to "
                "below 1"
            )

    def start(self, level: Level, u: State) -> float:
        """The bound on corrections: infinite until a full step has increased the residual."""
        return math.inf

    def smooth(
        self, level: Level, u: State, f: State | None, sweeps: int, memory: Any
    ) -> tuple[State, float]:
        radius = math.inf if memory is None else memory
        for _ in range(sweeps):
            u, radius = self._sweep(level.operator, u, f, radius)
        return u, radius

    def work(self, level: Level, sweeps: int) -> float:
        return 2.0 * sweeps

    def _sweep(
        self, equation: LayerEquation, u: State, f: State | None, radius: float
    ) -> tuple[State, float]:
        points = equation.begun(u, f)
        own = _linearized(equation, points, f, self.structure)
        every = _of_all(equation, own, points)
        equation.keep_residual(_residual(own, points, equation.reverse))
        new = self._step(equation, points, own, every, radius)
        # Picard's corrections do not grow along the layers, and the adjoint is linear.
        if radius == math.inf and self.structure != "identity" and not equation.reverse:
            tried = _of_all(equation, _linearized(equation, new, f, "identity"), new)
            if _norm(tried.rows) > WORSE * _norm(every.rows):
                radius = TRUSTED * every.largest
                new = self._step(equation, points, own, every, radius)
        transfer = equation.transfer
        return (new if transfer is None else transfer.interpolate(new)), radius

    def _step(
        self,
        equation: LayerEquation,
        points: State,
        own: _Linearized,
        every: _Linearized,
        radius: float,
    ) -> State:
        """The new points: the propagated values plus the effect of the preceding corrections."""
        reverse, shift = equation.reverse, equation.communicator.shift
        start = points[-1:] if reverse else points[:1]
        if not len(own.rows):  # other processes hold all layers
            return shift(points, reverse)
        arrivals, jacobian, rows = _finite(own, every, start)
        zero = vector.zeros_like(rows[0])
        damping, corrections = self.damping, None
        while damping < MOST_DAMPING:
            corrections = affine_scan(_scaled(jacobian, damping, rows), rows, zero, reverse)
            if vector.is_finite(corrections) and _largest(corrections) <= radius:
                break
            damping, corrections = 1.0 - (1.0 - damping) * (0.8 if damping else 0.95), None
        if corrections is None:
            new = arrivals
        else:
            before = (corrections[1:] if reverse else corrections[:-1])[every.place]
            scaled = _scaled(None if jacobian is None else jacobian[every.place], damping, before)
            new = arrivals + pushed(scaled, before).reshape(arrivals.shape)
        return shift(_with_row(reverse, new, start), reverse)

    def __str__(self) -> str:
        damping = "" if self.damping == 0.0 else f", {self.damping:g}"
        return f"NewtonSweep({self.structure!r}{damping})"


def newton_of(text: str) -> NewtonSweep | None:
    """Parse the sweep of "newton", "newton(dense, 0.1)", "cascade + newton(diagonal)" and so on.

    The result is None if the text describes another cycle.

    Raises
    ------
    ValueError
        If the text after "newton" has a different form; the message contains the position.

    Examples
    --------
    >>> newton_of("newton(diagonal)"), newton_of("V")
    (NewtonSweep(structure='diagonal', damping=0.0), None)
    """
    scanner = Scanner(text)
    if scanner.take(r"cascade\b") is not None:
        scanner.expect(r"\+", "'+'")
    if scanner.take(r"newton\b") is None:
        return None
    structure, damping = "dense", 0.0
    if scanner.take(r"\("):
        structure = scanner.expect(rf"(?:{'|'.join(STRUCTURES)})\b", "dense, diagonal or identity")
        if scanner.take(","):
            damping = float(scanner.expect(r"0?\.\d+|0", "a damping from 0 to below 1"))
        scanner.expect(r"\)", "')'")
    scanner.end()
    return NewtonSweep(structure, damping)


class _Linearized(NamedTuple):
    """Layers, or intervals, linearized at the states at which they start.

    `rows` contains the propagated values minus the current ones, shaped for products with the
    Jacobians.
    """

    arrivals: State
    jacobian: State | None
    rows: State
    place: slice  # among the rows of all processes
    largest: float  # largest absolute value of `arrivals`


def _linearized(
    equation: LayerEquation, points: State, f: State | None, structure: str
) -> _Linearized:
    """Linearize all layers at their states, or march over all intervals from their C-points."""
    n, reverse, transfer = equation.layers, equation.reverse, equation.transfer
    factor = 1 if transfer is None else transfer.intervals.factor
    value = points[1:] if reverse else points[:-1]
    whole, jacobian = len(value), None
    offsets = range(min(factor, n))
    for j in reversed(offsets) if reverse else offsets:
        which = slice(j, n, factor)
        count = len(range(n)[which])
        new, of_new = _of_layers(equation, which, value[:count], structure)
        if f is not None:
            new = new + (f[which] if reverse else f[j + 1 :: factor])
        if count < whole:  # the short last interval has ended, or has not started
            new = vector.join([new, value[count:]])
            of_new = _padded(of_new, whole, structure)
        value, jacobian = new, composed(of_new, jacobian, structure == "dense")
    rows = value - (points[:-1] if reverse else points[1:])
    if not whole and structure != "identity":  # no layers, with the shape that others have
        _, jacobian = _of_layers(equation, slice(0, 0), value, structure)
    elif jacobian is not None and structure == "dense":
        rows = rows.reshape(jacobian.shape[:-1])
    return _Linearized(value, jacobian, rows, slice(0, whole), _largest(value))


def _of_layers(
    equation: LayerEquation, which: slice, states: State, structure: str
) -> tuple[State, State | None]:
    """Values and Jacobians of some layers; the evaluations are counted."""
    propagator, level = equation.propagator, equation.level
    share = equation.share(which)
    if structure == "identity":
        equation.tally[0] += share
        return propagator.advance(level, which, states), None
    linearize = getattr(propagator, "linearize", None)
    if linearize is None:
        name = type(getattr(propagator, "inner", propagator)).__name__
        raise TypeError(
            f"NewtonSweep({structure!r}) got the propagator {name}, which has no method "
            "linearize(level, which, states, structure) -> (values, jacobians); write one, or take "
            "NewtonSweep('identity'), which needs none"
        )
    values, jacobian = linearize(level, which, states, structure)
    work = getattr(propagator, "linearization_work", None)
    equation.tally[0] += share * (2.0 if work is None else work(structure, states))
    shape, own = tuple(states.shape), tuple(jacobian.shape)
    dense = math.prod(own[:-1]) == math.prod(shape) and own[-1:] == own[-2:-1]
    if tuple(values.shape) != shape or not (dense if structure == "dense" else own == shape):
        raise ValueError(
            f"NewtonSweep({structure!r}) got from linearize the values {vector.describe(values)} "
            f"and Jacobians {vector.describe(jacobian)} for {vector.describe(states)}; values have "
            "the shape of the states, diagonal Jacobians too, dense ones (k, ..., H, H)"
        )
    return values, jacobian


def _padded(jacobian: State | None, whole: int, structure: str) -> State | None:
    """Append identity Jacobians for intervals that have no layer at this offset."""
    if jacobian is None:
        return None
    rest = vector.zeros_like(jacobian, (whole - len(jacobian), *jacobian.shape[1:]))
    if structure == "dense":
        width = range(jacobian.shape[-1])
        rest[..., width, width] = 1.0
    else:
        rest[...] = 1.0
    return vector.join([jacobian, rest])


def _residual(own: _Linearized, points: State, reverse: bool) -> State:
    """The residual at the points; if it is not finite, infinity, so that no estimate uses it."""
    rows = own.rows.reshape(own.arrivals.shape)
    if not vector.is_finite(rows):
        rows = math.inf + vector.zeros_like(rows)
    return _with_row(reverse, rows, vector.zeros_like(points[:1]))


def _of_all(equation: LayerEquation, own: _Linearized, points: State) -> _Linearized:
    """The data of all processes in the order of the layers, gathered on each of them."""
    communicator = equation.communicator
    if communicator is SERIAL_COMMUNICATOR:
        return own
    count = len(own.rows)
    rows, jacobian = own.rows.reshape(count, math.prod(points.shape[1:])), own.jacobian
    largest = abs(own.arrivals).reshape(count, -1).amax(1) if count else rows.new_empty(0)
    parts = [rows.new_full((1, count), communicator.rank), largest[None], rows.T]
    if jacobian is not None:
        parts.append(jacobian.reshape(count, math.prod(jacobian.shape[1:])).T)
    every = communicator.gather(vector.join(parts)).to(points.device)
    place = (every[0] == communicator.rank).nonzero().flatten().tolist()
    rows = every[2 : 2 + rows.shape[1]].T.contiguous()
    whole = len(rows)
    if count:
        rows = rows.reshape(whole, *own.rows.shape[1:])
    if count and jacobian is not None:
        matrices = every[2 + math.prod(own.rows.shape[1:]) :].T.contiguous()
        jacobian = matrices.reshape(whole, *jacobian.shape[1:])
    finite = every[1][every[1].isfinite()]
    return _Linearized(
        own.arrivals,
        jacobian,
        rows,
        slice(place[0], place[-1] + 1) if place else slice(0, 0),
        float(finite.max()) if len(finite) else 0.0,
    )


def _finite(own: _Linearized, every: _Linearized, start: State) -> tuple[State, State, State]:
    """The arrivals and all affine maps, with values that are not finite replaced, as in DEER."""
    arrivals, jacobian, rows = own.arrivals, every.jacobian, every.rows
    if not vector.is_finite(arrivals):
        arrivals = _where_finite(arrivals, start)
    if not vector.is_finite(rows):
        rows = _where_finite(rows, vector.zeros_like(rows[:1]))
    if jacobian is not None and not vector.is_finite(jacobian):
        jacobian = _where_finite(jacobian, vector.zeros_like(jacobian[:1]))
    return arrivals, jacobian, rows


def _where_finite(values: State, other: State) -> State:
    """The values, with rows (in tensors, samples) that are not finite replaced by `other`."""
    axes = tuple(range(1, values.ndim))
    if is_tensor(values):
        kept = min(2, values.ndim)
        good = values.isfinite().reshape(*values.shape[:kept], -1).all(-1)
        return values.where(good.reshape(*good.shape, *(1,) * (values.ndim - kept)), other)
    return np.where(np.isfinite(values).all(axes, keepdims=True), values, other)


def _scaled(jacobian: State | None, damping: float, like: State) -> State | None:
    if damping == 0.0:
        return jacobian
    if jacobian is None:
        return vector.zeros_like(like) + (1.0 - damping)
    return (1.0 - damping) * jacobian


def _norm(rows: State) -> float:
    norm = vector.norm(rows)
    return norm if math.isfinite(norm) else math.inf


def _largest(values: State) -> float:
    """The largest absolute value of all finite entries."""
    if not math.prod(values.shape):
        return 0.0
    sizes = abs(values)
    if not vector.is_finite(values):
        sizes = _where_finite(sizes.reshape(-1, 1), vector.zeros_like(sizes.reshape(-1, 1)[:1]))
    return float(sizes.max())


def _with_row(reverse: bool, rows: State, row: State) -> State:
    """The points: `rows`, and `row` at the end at which the equation starts."""
    return vector.join([rows, row] if reverse else [row, rows])
