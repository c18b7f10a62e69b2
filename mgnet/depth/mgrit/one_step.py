"""Initial-value problems in NumPy, solved in parallel in time: steps of a one-step method.

For users of XBraid and pyMGRIT: here the grid is the time grid and a layer is one time step.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Complex, Real
from typing import Any

import numpy as np
import scipy.linalg as la

from mgnet.callbacks import ours
from mgnet.depth.mgrit.c_layers import level_factors
from mgnet.depth.mgrit.checked_step import CheckedStep, StepFunction, check_unequal
from mgnet.depth.mgrit.layer_hierarchy import layer_hierarchy
from mgnet.depth.mgrit.relaxation import SerialSweep
from mgnet.depth.mgrit.spatial_coarsening import (
    SpatialCoarsening,
    check_spatial,
    coarsened_in_space,
)
from mgnet.depth.mgrit.step_jacobian import step_jacobian
from mgnet.hierarchy import Hierarchy
from mgnet.limits import MOST_UNKNOWNS, is_number, is_whole, shown
from mgnet.smoother import Smoother

__all__ = ["OneStep", "dahlquist", "heat"]


@dataclass(frozen=True, eq=False)
class OneStep:
    """An initial-value problem, discretized by a one-step method.

    Parameters
    ----------
    step : callable
        The function `(t, dt, states) -> states`, which computes many steps at once, from the times
        t, shape (k,), with the step sizes dt, shape (k,), for states of shape (k, ...). Coarser
        levels take larger steps with the same method, so it should be stable for them. The function
        may edit its arguments, and return the same array each time. Before the first solution, a
        few states are stepped together and one by one, to check that the function keeps shapes and
        handles each row independently.
    initial : array of shape (...)
        The initial state; complex if the steps produce complex numbers.
    steps : array of shape (N,)
        Step sizes dt, in units of time.
    start : float
        Initial time.
    jacobian : callable, optional
        A function `(t, dt, states) -> array of shape (k, n, n)` for `NewtonSweep`: the derivative
        of the step with respect to the state, whose n entries are in the order of `ravel`. Without
        it, central differences (2 n steps each) are used for states of at most 64 entries.

    Raises
    ------
    ValueError
        If `steps` is not one-dimensional.
    TypeError
        If `step` or `jacobian` is not callable, or `initial` or `steps` are not numbers.

    Examples
    --------
    A pendulum, with the explicit Euler method:

    >>> import mgnet
    >>> def euler(t, dt, u):
    ...     slope = np.stack([u[:, 1], -np.sin(u[:, 0])], axis=1)
    ...     return u + dt[:, None] * slope
    >>> pendulum = OneStep(euler, np.array([1.0, 0.0]), np.full(1000, 0.002))
    >>> solver = mgnet.Solver(pendulum.hierarchy(coarsening=20), rtol=1e-10)
    >>> solution = solver.solve(u=pendulum.guess())
    >>> solution.reason.name, solution.cycles
    ('RTOL', 5)
    >>> bool(abs(solution.value - pendulum.serial()).max() < 1e-10)
    True
    """

    step: StepFunction
    initial: np.ndarray
    steps: np.ndarray
    start: float = 0.0
    jacobian: StepFunction | None = None

    def __post_init__(self) -> None:
        if np.ndim(self.steps) != 1 or not len(self.steps):
            raise ValueError(
                f"OneStep got steps of shape {np.shape(self.steps)}; "
                "give one dt per step, such as np.full(100, 0.01)"
            )
        if not callable(self.step):
            raise TypeError(
                f"OneStep got a step of type {type(self.step).__name__}; give a function "
                "(t, dt, states) -> states"
            )
        if self.jacobian is not None and not callable(self.jacobian):
            raise TypeError(
                f"OneStep got a jacobian of type {type(self.jacobian).__name__}; give a function "
                "(t, dt, states) -> array of shape (k, n, n)"
            )
        for name, values, kinds in (
            ("steps", self.steps, "iuf"),
            ("initial", self.initial, "iufc"),
        ):
            kind = np.asarray(values).dtype
            if kind.kind not in kinds:
                raise TypeError(
                    f"OneStep got {name} of {kind}; give numbers of float64, such as "
                    f"{name}.astype(float)"
                )

    @property
    def _initial(self) -> np.ndarray:
        """The initial state as floating-point numbers."""
        initial = np.asarray(self.initial)
        return initial.astype(float) if initial.dtype.kind in "iu" else initial

    @cached_property
    def checked_step(self) -> StepFunction:
        """The step, after checking that it handles many states at once."""
        return _checked(self.step, self._initial, self.times[:-1], np.asarray(self.steps))

    @property
    def times(self) -> np.ndarray:
        """The N + 1 times of a trajectory; with equal steps, each is rounded only once."""
        steps = np.asarray(self.steps)
        if (steps == steps[0]).all():
            return self.start + steps[0] * np.arange(len(steps) + 1)
        return self.start + np.concatenate([[0.0], np.cumsum(steps)])

    def guess(self) -> np.ndarray:
        """An initial guess of the trajectory: the initial state at all times, (N + 1, ...)."""
        return np.repeat(self._initial[None], len(self.steps) + 1, axis=0)

    def serial(self) -> np.ndarray:
        """The trajectory computed step by step, shape (N + 1, ...)."""
        return self.hierarchy(levels=1)[0].operator.march(None)

    def grids(self, factors: Sequence[int]) -> list[tuple[np.ndarray, np.ndarray]]:
        """The time at the start of every step, and the step size, on every level.

        Parameters
        ----------
        factors : sequence of int
            Coarsening factor of each level except the coarsest, finest first.

        """
        grids = [(self.times[:-1], np.asarray(self.steps))]
        for factor in factors:
            times, steps = grids[-1]
            # Sums of equal steps are equal to the last bit, while differences of times are not.
            grids.append((times[::factor], np.add.reduceat(steps, range(0, len(steps), factor))))
        equal = [bool((steps == steps[0]).all()) for _, steps in grids]
        if equal[0] and not all(equal):  # the last interval is short
            times, steps = grids[equal.index(False)]
            check_unequal(self.checked_step, self._initial, times, steps)
        return grids

    def hierarchy(
        self,
        levels: int = 2,
        coarsening: int | Sequence[int] = 4,
        relaxation: Sequence[str] = ("F", "FCF"),
        weight: float = 1.0,
        spatial: Sequence[SpatialCoarsening | None] = (),
        c_points_only: bool = False,
        solver: Smoother = SerialSweep(),  # noqa: B008
        costs: Sequence[float] | None = None,
    ) -> Hierarchy:
        """Build the levels of MGRIT for `mgnet.Solver`.

        `levels=1, solver=NewtonSweep()` is Newton's method for all steps at once.

        Parameters
        ----------
        levels, coarsening, relaxation, weight, solver, costs
            The arguments of `layer_hierarchy`.
        spatial : sequence of (SpatialCoarsening or None)
            The spatial coarsening from each level to the next, if states of coarser levels have
            fewer unknowns.
        c_points_only : bool
            Whether a state of level 0 consists of its C-points alone; the initial guess is then
            `guess()[::c]`, followed by the last point. `observed` computes functionals of the whole
            trajectory in this case.

        """
        step, grids = self.checked_step, self.grids(level_factors(levels, coarsening))
        parts = check_spatial(spatial, len(grids))
        on_levels, initials = [step], [self._initial]
        for part, (times, steps) in zip(parts, grids[1:], strict=True):
            if part is None:
                on_levels.append(on_levels[-1])
                initials.append(initials[-1])
                continue
            initials.append(part.coarse(initials[-1]))
            on_levels.append(_checked(part.step, initials[-1], times, steps))
        made = layer_hierarchy(
            _Steps(tuple(on_levels), tuple(grids), self.jacobian),
            len(self.steps),
            self._initial,
            levels=levels,
            coarsening=coarsening,
            relaxation=relaxation,
            weight=weight,
            c_points_only=c_points_only,
            solver=solver,
            costs=costs,
        )
        return coarsened_in_space(made, parts, initials) if any(parts) else made


def _checked(
    step: StepFunction, initial: np.ndarray, times: np.ndarray, steps: np.ndarray
) -> StepFunction:
    """The step, after checking that it handles many states at once."""
    if ours(step):
        return step
    checked = CheckedStep(step)
    checked.observe(initial, times, steps)
    return checked


@dataclass(frozen=True)
class _Steps:
    steps: tuple[StepFunction, ...]  # one per level
    grids: tuple[tuple[np.ndarray, np.ndarray], ...]
    jacobian: StepFunction | None = None

    def advance(self, level: int, which: slice, states: np.ndarray) -> np.ndarray:
        times, steps = self.grids[level]
        return self.steps[level](times[which], steps[which], states)

    def linearize(
        self, level: int, which: slice, states: np.ndarray, structure: str
    ) -> tuple[np.ndarray, np.ndarray]:
        """The next states, and the Jacobians of the steps; see `NewtonSweep`."""
        times, steps = (grid[which] for grid in self.grids[level])
        step = self.steps[level]
        # Steps for coarser states differ from the step whose Jacobian the user gave.
        jacobian = self.jacobian if step is self.steps[0] else None
        return step(times, steps, states), step_jacobian(
            step, jacobian, times, steps, states, structure
        )

    def linearization_work(self, structure: str, states: np.ndarray) -> float:
        """The cost of a step with its Jacobian, in steps; a user's Jacobian counts as one step."""
        return 2.0 if self.jacobian is not None else 1.0 + 2.0 * math.prod(states.shape[1:])


def _check_theta(name: str, theta: float) -> None:
    if not is_number(theta, 0.0, 1.0):
        raise ValueError(
            f"{name} got theta = {shown(theta)}; it must lie between 0 (forward Euler) and 1 "
            "(backward Euler), 0.5 is Crank-Nicolson"
        )


def _check_finite(owner: str, numbers: dict[str, complex]) -> None:
    for name, number in numbers.items():
        real = is_number(number)
        other = name == "rate" and isinstance(number, Complex) and not isinstance(number, Real)
        if not (real or other) or not cmath.isfinite(number):
            raise ValueError(f"{owner} got {name} = {shown(number)}; give a finite number")


def _check_counts(name: str, counts: dict[str, int]) -> None:
    for what, count in counts.items():
        if not is_whole(count, 1, math.inf):
            raise ValueError(f"{name} got {shown(count)} {what}; give an integer of at least 1")
    unknowns = math.prod(counts.values())
    if unknowns > MOST_UNKNOWNS:
        raise ValueError(
            f"{name} got {' times '.join(counts)} of {shown(unknowns)}; at most {MOST_UNKNOWNS} "
            "states are made"
        )


def dahlquist(
    rate: complex = -1.0, steps: int = 64, final_time: float = 1.0, theta: float = 1.0
) -> OneStep:
    """Dahlquist's test equation `u' = rate u`, `u(0) = 1`, with the theta method.

    Parameters
    ----------
    rate : float or complex
        Coefficient of the equation, in 1 / time.
    steps : int
        Number of time steps.
    final_time : float
        Final time.
    theta : float
        Parameter of the method: 1 is backward Euler, 0.5 Crank-Nicolson, 0 forward Euler.

    Raises
    ------
    ValueError
        If an argument is outside its range.

    Examples
    --------
    >>> problem = dahlquist(rate=-1.0, steps=2, final_time=2.0)
    >>> problem.serial().ravel()
    array([1.  , 0.5 , 0.25])
    """
    _check_theta("dahlquist", theta)
    _check_finite("dahlquist", {"rate": rate, "final_time": final_time})
    _check_counts("dahlquist", {"steps": steps})

    def step(t: np.ndarray, dt: np.ndarray, states: np.ndarray) -> np.ndarray:
        z = rate * dt[:, None]
        return states * ((1.0 + (1.0 - theta) * z) / (1.0 - theta * z))

    return OneStep(step, np.ones(1, np.result_type(rate, 1.0)), np.full(steps, final_time / steps))


def heat(
    points: int = 63,
    steps: int = 256,
    final_time: float = 1.0,
    theta: float = 1.0,
    initial: np.ndarray | None = None,
    conductivity: float = 1.0,
) -> OneStep:
    """The heat equation `u_t = a u_xx` on the unit interval, `u = 0` at its ends.

    Second-order differences are used in space, and the theta method in time.

    Parameters
    ----------
    points : int
        Number of interior points in space.
    steps : int
        Number of time steps.
    final_time : float
        Final time.
    theta : float
        Parameter of the method: 1 is backward Euler, 0.5 Crank-Nicolson, 0 forward Euler (whose
        large steps are unstable).
    initial : array of shape (points,), optional
        Initial values at the interior points; a hat function of height 1 by default.
    conductivity : float
        Diffusivity a, in length^2 / time.

    Raises
    ------
    ValueError
        If an argument is outside its range, or `initial` has the wrong shape.

    Examples
    --------
    >>> import mgnet
    >>> problem = heat(points=31, steps=64)
    >>> solver = mgnet.Solver(problem.hierarchy(coarsening=8), rtol=1e-9)
    >>> solver.solve(u=problem.guess()).reason.name
    'RTOL'
    """
    _check_theta("heat", theta)
    _check_finite("heat", {"final_time": final_time, "conductivity": conductivity})
    _check_counts("heat", {"points": points, "steps": steps})
    x = np.arange(1, points + 1) / (points + 1)
    u0 = 1.0 - abs(2.0 * x - 1.0) if initial is None else np.asarray(initial, dtype=float)
    if u0.shape != (points,):
        raise ValueError(f"heat got initial of shape {u0.shape}; it must be ({points},)")
    step = _HeatStep(theta, conductivity * (points + 1) ** 2)
    return OneStep(step, u0, np.full(steps, final_time / steps))


@dataclass(frozen=True, eq=False)
class _HeatStep:
    """`(1 + theta dt A) u_new = (1 - (1 - theta) dt A) u`, A = scale * tridiag(-1, 2, -1)."""

    theta: float
    scale: float
    factors: dict[float, Any] = field(default_factory=dict)  # Cholesky factors by dt

    def __call__(self, t: np.ndarray, dt: np.ndarray, states: np.ndarray) -> np.ndarray:
        lengths = np.unique(dt)
        if len(lengths) == 1:
            return self._equal_steps(float(lengths[0]), states)
        new = np.empty_like(states)
        for length in lengths:
            rows = dt == length
            new[rows] = self._equal_steps(float(length), states[rows])
        return new

    def _equal_steps(self, dt: float, states: np.ndarray) -> np.ndarray:
        padded = np.pad(states, ((0, 0), (1, 1)))
        image = self.scale * (2.0 * states - padded[:, :-2] - padded[:, 2:])
        right = states - (1.0 - self.theta) * dt * image
        if dt not in self.factors:
            bands = np.full((2, states.shape[1]), -self.theta * dt * self.scale)
            bands[1] = 1.0 + 2.0 * self.theta * dt * self.scale
            self.factors[dt] = la.cholesky_banded(bands)
        return la.cho_solve_banded((self.factors[dt], False), right.T).T
