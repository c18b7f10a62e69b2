"""A time grid by step doubling on which the error of every interval is within a tolerance.

All intervals of a grid are treated together: two steps are compared with one of the same total
length, in one batched call. No interval has to wait for the decision about the previous one, and
the grids can be solved in parallel in time. Source of the estimate: Hairer, Norsett, Wanner,
Solving ODEs I, II.4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mgnet.depth.mgrit.communicator import SERIAL_COMMUNICATOR
from mgnet.depth.ode.fixed_grid import TimeGrid
from mgnet.depth.ode.integration import Integration
from mgnet.depth.ode.time_steps import TimeSteps
from mgnet.depth.time_grids.adaptive_solution import Ending
from mgnet.depth.time_grids.dyadic_grid import DyadicGrid
from mgnet.depth.time_grids.refinement import MOST_AT_ONCE, ending_of, halvings

__all__ = ["ORDERS", "Tolerances", "fitted_grid"]

ORDERS = {"euler": 1, "midpoint": 2, "heun": 2, "heun3": 3, "rk4": 4, "rk4_38": 4}
MAX_GRIDS = 40
RESOLVED = 1000.0  # tolerances: above them, coarse steps resolve nothing, and grids are marched
TOGETHER = 1024  # intervals whose errors are estimated in one call
SHORTEST = 16.0  # least step size, in units of the rounding of the times
PROBES, SWEEPS = 8, 8  # points and iterations for the estimate of the fastest rate
STABLE = 2.8  # longest stable step of RK4 times that rate


@dataclass(frozen=True)
class Tolerances:
    """The error that an interval may add: a root mean square, in units of atol + rtol |y|.

    Examples
    --------
    >>> Tolerances(0.0, 0.5).sizes(torch.ones(1, 2), torch.zeros(1, 2), torch.zeros(1, 2))
    tensor([2.], dtype=torch.float64)
    """

    rtol: float
    atol: float

    def sizes(self, error: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """The error of each interval in units of the tolerance; inf if it is not finite.

        Parameters
        ----------
        error, left, right : Tensor of shape (n, ...)
            Errors, and states at the left and right ends.
        """
        error, left, right = (x.double().flatten(1) for x in (error, left, right))
        scale = self.atol + self.rtol * torch.maximum(left.abs(), right.abs())
        relative = torch.where(error == 0.0, 0.0, error / scale)
        found = relative.square().mean(1).sqrt()
        return torch.where(found.isfinite(), found, torch.inf)


def fitted_grid(
    integration: Integration, u: Tensor, t: Tensor, tolerances: Tolerances, max_steps: int
) -> TimeGrid:
    """Find the grid, with points at all times t; its points are differentiable functions of them.

    Parameters
    ----------
    integration : Integration
        The solver.
    u : Tensor
        State at t[0].
    t : Tensor of shape (K,)
        Times that the grid must contain.
    tolerances : Tolerances
        The tolerances.
    max_steps : int
        Largest number of steps.

    Returns
    -------
    TimeGrid
        The grid.

    Raises
    ------
    ValueError
        If the tolerance is not met with this number of steps.

    Examples
    --------
    >>> from mgnet.depth.batched.block import StackedBlock
    >>> from mgnet.depth.ode.right_hand_side import RightHandSide
    >>> from mgnet.depth.ode.state_tree import StateTree
    >>> u = torch.ones(1, dtype=torch.float64)
    >>> side = RightHandSide(lambda t, y: -y, StateTree.of(u))
    >>> integration = Integration(StackedBlock(side, "rk4"), ())
    >>> t = torch.tensor([0.0, 1.0, 10.0], dtype=torch.float64)
    >>> grid = fitted_grid(integration, u, t, Tolerances(1e-4, 1e-6), 1000)
    >>> error = integration.states(u, grid.points)[-1] - torch.exp(-t[-1])
    >>> len(grid.points), bool(error.abs() < 1e-5)
    (31, True)
    """
    times = t.detach().double().cpu()
    cells, grids, resolved = DyadicGrid.first((times[1:] - times[:-1]).abs().numpy()), 0, False
    order = ORDERS[integration.kernel.scheme]
    with torch.no_grad():
        while True:
            grid = _grid(cells.halved(), t.detach())
            now = integration if resolved else integration.serial()
            states, grids = now.states(u.detach(), grid.points), grids + 1
            sizes = _estimates(integration, grid.points, states, order, tolerances)
            finite = states[:-1:2].flatten(1).isfinite().all(1).cpu().numpy()
            more = _behind(cells, halvings(sizes, finite, order), finite)
            ending = ending_of(sizes, cells, more, grids, MAX_GRIDS, max_steps)
            shortest = (grid.points[1:] - grid.points[:-1]).abs().min()
            if ending is None and shortest < SHORTEST * _rounding(u, t):
                ending = Ending.TOO_SHORT
            if ending is not None:
                break
            resolved, cells = bool(sizes.max() <= RESOLVED), cells.changed(more)
        if not ending.converged:
            raise ValueError(_unmet(ending, integration, grid, states, sizes, max_steps))
    return _grid(cells.halved(), t)


def _behind(cells: DyadicGrid, more: np.ndarray, finite: np.ndarray) -> np.ndarray:
    """Refine cells after the last finite state to the size of the cell that starts there.

    Otherwise the front of unstable steps would move by only one cell from grid to grid.
    """
    if finite.all():
        return more
    front = int(np.argmin(finite)) - 1
    longer = np.log2(cells.steps / cells.steps[front]) + more[front]
    wanted = np.clip(np.ceil(longer), 0, MOST_AT_ONCE).astype(int)
    return np.where(finite, more, wanted)


def _rounding(u: Tensor, t: Tensor) -> float:
    """The rounding error of the times in the precision of the right-hand side."""
    eps = max(torch.finfo(u.dtype).eps, torch.finfo(t.dtype).eps)
    return eps * float(t.abs().max())


def _grid(cells: DyadicGrid, t: Tensor) -> TimeGrid:
    positions = torch.from_numpy(cells.positions)
    left = positions.long().clamp_max(len(t) - 2)
    share = (positions - left).to(t)
    left = left.to(t.device)
    points = torch.where(share == 1.0, t[left + 1], t[left] + share * (t[left + 1] - t[left]))
    asked = torch.arange(len(t), dtype=positions.dtype)
    return TimeGrid(points, torch.searchsorted(positions, asked))


def _estimates(
    integration: Integration, points: Tensor, states: Tensor, order: int, tolerances: Tolerances
) -> np.ndarray:
    """The errors of all pairs of steps, in units of the tolerance."""
    steps = TimeSteps.of(integration.kernel, points[::2], states.dtype)
    kernel, layers = steps.layers(SERIAL_COMMUNICATOR, 1)
    left, right, found = states[:-1:2], states[2::2], list[Tensor]()
    for first in range(0, len(left), TOGETHER):
        some = slice(first, first + TOGETHER)
        lengths = layers.steps[some].reshape(-1, *(1,) * (left.dim() - 1))
        whole = left[some] + lengths * kernel.slope(layers[some], left[some])
        error = (whole - right[some]) / (2.0**order - 1.0)
        found.append(tolerances.sizes(error, left[some], right[some]))
    return torch.cat(found).cpu().numpy()


def _unmet(
    ending: Ending,
    integration: Integration,
    grid: TimeGrid,
    states: Tensor,
    sizes: np.ndarray,
    max_steps: int,
) -> str:
    """The reason why there is no such grid, and a remedy."""
    worst, count = int(np.argmax(sizes > 1.0)), len(grid.points) - 1
    begin, end = (float(grid.points[2 * worst + k]) for k in (0, 2))
    where = f"the first of {int((sizes > 1.0).sum())} intervals above it is from t = {begin:.10g} "
    where += f"to {end:.10g}"
    if ending is Ending.MAX_STEPS:
        told = f"needs more than max_steps = {max_steps} steps for the tolerance ({where})"
        remedy = "give larger rtol and atol, or a larger max_steps"
    else:
        told = (
            f"does not meet the tolerance on {count} steps, and shorter ones do not help: {where}"
        )
        remedy = "look for a blow-up or a jump of func there, or give larger rtol and atol"
        if states.dtype == torch.float32:
            remedy += ", or y0 and func in float64"
    rate = _fastest_rate(integration, grid.points, states)
    span = float((grid.points[-1] - grid.points[0]).abs())
    most = max_steps if ending is Ending.MAX_STEPS else count
    if rate * span > STABLE * most / 4:
        remedy += (
            f"; func changes at rates of about {rate:.1g} per unit of time, for which explicit "
            f"steps longer than {STABLE / rate:.1g} are not stable: if the solution is smooth, the "
            "problem is stiff, so take an implicit method (mgnet.depth.ImplicitStep with adaptive, "
            "or scipy.integrate.solve_ivp with method='Radau')"
        )
    return f"odeint {told}; {remedy}"


def _fastest_rate(integration: Integration, points: Tensor, states: Tensor) -> float:
    """Estimate the largest eigenvalue of the Jacobian by power iteration, as a median over states.

    The median is not affected by the large eigenvalues near a blow-up.
    """
    side: Any = integration.kernel.template
    finite = states.flatten(1).isfinite().all(1).nonzero().ravel()
    which = finite[:: max(len(finite) // PROBES, 1)]
    generator, rates = torch.Generator().manual_seed(0), list[float]()
    for n in which.tolist():
        t, u = points[n].to(states.dtype), states[n]
        slope, size = side(t, u), float(u.norm()) + 1.0
        small = torch.finfo(u.dtype).eps ** 0.5 * size
        direction = torch.randn(u.shape, dtype=u.dtype, generator=generator).to(u.device)
        rate = 0.0
        for _ in range(SWEEPS):
            change = (side(t, u + small * direction / direction.norm()) - slope) / small
            rate = float(change.norm())
            if not 0.0 < rate < float("inf"):
                break
            direction = change
        rates.append(rate if rate < float("inf") else 0.0)
    return float(np.median(rates)) if rates else 0.0
