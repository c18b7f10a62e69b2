"""`odeint`: initial-value problems with torchdiffeq's arguments, on the solvers of ODE nets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mgnet.depth.ode.arguments import check_options, check_times, scheme_of
from mgnet.depth.ode.fixed_grid import TimeGrid, check_count
from mgnet.depth.ode.integration import Integration, StepRanks
from mgnet.depth.ode.right_hand_side import Kept, kept_of, needs_autograd
from mgnet.depth.ode.state_tree import StateTree
from mgnet.depth.ode.step_doubling import Tolerances, fitted_grid
from mgnet.depth.parallel.control import Control
from mgnet.depth.parallel.evaluation import least_seconds, preferred
from mgnet.depth.parallel.transforms import not_compiled, transform_of

__all__ = ["odeint"]


def odeint(
    func: Callable[[Tensor, Any], Any],
    y0: Any,
    t: Tensor,
    *,
    method: str = "rk4",
    step_size: float | None = None,
    interp: str | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    max_steps: int = 10**5,
    mode: str = "serial",
    levels: int = 2,
    coarsening: int | Sequence[int] = 4,
    control: Control | None = None,
    ranks: StepRanks | None = None,
) -> Any:
    """Solve `dy/dt = func(t, y)`, `y(t[0]) = y0`, and give y at all times of t, with gradients.

    The gradients are those of the steps that were taken (discretize, then optimize): to the last
    digit what autograd gives through the same steps, whichever method and mode. Each step is a
    layer of an ODE net with shared weights.

    Parameters
    ----------
    func : torch.nn.Module, or callable
        `(t, y) -> dy/dt`, t a tensor without axes. Gradients go to the parameters of a module. Of a
        function that can reach tensors with a gradient, as a closure, autograd records the steps,
        in `mode="serial"`.
    y0 : tensor, or tuple, list or dictionary of tensors
        Of any shapes, float32 or float64; func gets and gives the same structure.
    t : tensor of shape (K,)
        Increasing or decreasing. Gradients go to it where it requires them.
    method : str
        "euler", "midpoint", "heun2" (or "heun"), "heun3", "rk4": torchdiffeq's methods of these
        names, so "rk4" is the 3/8 rule. "rk4_classic" is the classic Runge-Kutta method.
    step_size : float, optional
        By default one step from each time to the next. With a step size every interval of t is cut
        into equal steps of at most this length.
    interp : "linear", optional
        With a step size: torchdiffeq's grid instead, which steps over asked times and is linear
        between its points.
    rtol, atol : float, optional
        Choose the steps: the grid is refined until the error of each of its intervals, estimated by
        step doubling as a root mean square over y, is at most 1 in units of atol + rtol |y|. One
        that is left out is 0. It is the local error that is controlled, as in torchdiffeq.
    max_steps : int
        A grid of more steps is refused.
    mode : "serial", "mgrit" or "auto"
        One step after another, in a compiled loop where it knows the operations of func; all steps
        at once by multigrid; or the faster one, measured once for each kind of call.
    levels, coarsening, control : as in `LayerParallel`
        Of "mgrit". By default cycles go on until states and gradients are the serial ones but for
        1e-11 (1e-5 in float32); where they do not get there, a warning says so and the steps are
        taken one after another. Levels for which there are too few steps are left out.
    ranks : StepRanks, optional
        `mgnet.petsc.steps_over_ranks()`: MPI ranks share out the steps. All make the same call, and
        all get the whole solution and all gradients.

    Returns
    -------
    tensor of shape (K, ...), or the structure of y0 with such tensors
        y0 itself is the first row.

    Raises
    ------
    TypeError, ValueError

    Examples
    --------
    >>> class Decay(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.rate = torch.nn.Parameter(torch.tensor(2.0, dtype=torch.float64))
    ...     def forward(self, t, y):
    ...         return -self.rate * y
    >>> decay, y0 = Decay(), torch.ones(1, dtype=torch.float64)
    >>> t = torch.linspace(0.0, 1.0, 5, dtype=torch.float64)
    >>> y = odeint(decay, y0, t, rtol=1e-8)
    >>> bool((y[:, 0] - torch.exp(-2.0 * t)).abs().max() < 1e-7)
    True
    >>> y[-1].sum().backward()
    >>> bool(abs(decay.rate.grad + torch.exp(torch.tensor(-2.0))) < 1e-7)
    True
    """
    scheme, tree = scheme_of(method), StateTree.of(y0)
    u = tree.pack(y0)
    check_options(func, step_size, interp, rtol, atol, max_steps, mode, control, u)
    t = check_times(t, u)
    kept = kept_of(func)
    kernel = kept.block(func, tree, scheme)
    cycles = Integration.of(kernel, levels, coarsening, control, ranks)
    if ranks is not None and t.requires_grad:
        raise ValueError(
            "odeint got ranks and t with a gradient, which only one process gives; detach t"
        )

    def solved(u: Tensor) -> Tensor:
        return _solved(u, t, func, cycles, mode, kept, grid_of)

    def grid_of(integration: Integration) -> TimeGrid:
        if len(t) > 1 and (rtol is not None or atol is not None):
            tolerances = Tolerances(float(rtol or 0.0), float(atol or 0.0))
            return fitted_grid(integration, u, t, tolerances, max_steps)
        if step_size is None or len(t) < 2:
            check_count(len(t) - 1, max_steps)
            return TimeGrid.of_times(t)
        make = TimeGrid.at_most if interp is None else TimeGrid.interpolated
        return make(t, float(step_size), max_steps)

    return tree.unpack(not_compiled(solved, u))


def _solved(
    u: Tensor,
    t: Tensor,
    func: Callable[..., Any],
    cycles: Integration,
    mode: str,
    kept: Kept,
    grid_of: Callable[[Integration], TimeGrid],
) -> Tensor:
    """The states at the asked times."""
    side: Any = cycles.kernel.template
    transform = transform_of(side, u, {"t": t})
    closure = needs_autograd(func, side, t[0].detach().to(u.dtype), u)
    if transform is not None or closure:
        if mode == "mgrit" or cycles.ranks is not None:
            reach = "a func that can reach tensors with a gradient beside its parameters"
            what = transform or reach
            raise ValueError(
                f"odeint was called with {what}, which cycles and ranks do not know; use "
                "mode='serial' in one process, or make such tensors parameters of a module"
            )
        grid = grid_of(cycles.serial())
        return grid.at_asked(cycles.by_autograd(u, grid.points))
    serial = mode == "serial" or not cycles.factors
    grid = grid_of(cycles.serial() if serial else cycles)
    if mode == "auto" and not serial:
        serial = _faster(cycles, u, grid.points, kept) == "serial"
    chosen = cycles.serial() if serial else cycles
    return grid.at_asked(chosen.states(u, grid.points))


def _faster(cycles: Integration, u: Tensor, points: Tensor, kept: Kept) -> str:
    """The faster mode for such a call, with gradients if it has them; all ranks agree."""
    needs = torch.is_grad_enabled() and (u.requires_grad or points.requires_grad)
    shape = tuple(u.shape), u.dtype, u.device, len(points), needs, cycles.factors, cycles.control
    about = cycles.kernel.scheme, cycles.ranks is None, torch.is_grad_enabled()
    key = *about, torch.get_num_threads(), *shape
    if key not in kept.faster:
        parameters = [x for x in cycles.kernel.template.parameters() if x.requires_grad]
        ways = {"mgrit": cycles, "serial": cycles.serial()}
        runs = {name: partial(_run, each, points.detach()) for name, each in ways.items()}
        best = preferred(least_seconds(runs, u, {}, parameters, cycles.ranks is None))
        if cycles.ranks is not None:
            best = cycles.ranks.place(len(points) - 1, 1)[1].broadcast(best)
        kept.faster[key] = best
    return kept.faster[key]


def _run(integration: Integration, points: Tensor, u: Tensor, side: Any) -> Tensor:
    return integration.states(u, points)
