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
    """Solve `dy/dt = func(t, y)`, `y(t[0]) = y0`, and return y at all times t, with gradients.

    The gradients are those of the computed steps (discretize, then optimize): they agree with
    autograd through the same steps up to rounding, for each method and mode. Each step is a layer
    of an ODE net with shared weights.

    Parameters
    ----------
    func : torch.nn.Module, or callable
        The function `(t, y) -> dy/dt`, where t is a tensor without axes. A module gets gradients
        with respect to its parameters. If a plain function can access tensors with gradients, as a
        closure can, autograd records the steps, in `mode="serial"`.
    y0 : tensor, or tuple, list or dictionary of tensors
        Initial state of any shape, in float32 or float64; func gets and returns the same structure.
    t : tensor of shape (K,)
        Times, increasing or decreasing. Gradients with respect to them are computed if required.
    method : str
        "euler", "midpoint", "heun2" (or "heun"), "heun3", "rk4": torchdiffeq's methods with these
        names, so "rk4" is the 3/8 rule. "rk4_classic" is the classic Runge-Kutta method.
    step_size : float, optional
        By default, one step leads from each time to the next. With a step size, every interval of t
        is divided into equal steps of at most this length.
    interp : "linear", optional
        Use torchdiffeq's grid instead, which requires a step size. Its points need not include t;
        states between its points are interpolated linearly.
    rtol, atol : float, optional
        Tolerances from which the steps are chosen: the grid is refined until the error of each of
        its intervals, estimated by step doubling as a root mean square over y, is at most 1 in
        units of atol + rtol |y|. A tolerance that is not given is 0. As in torchdiffeq, this is the
        local error.
    max_steps : int
        Largest number of steps of a grid.
    mode : "serial", "mgrit" or "auto"
        Compute one step after another, in a compiled loop if the operations of func are supported;
        compute all steps at once by multigrid; or use the faster of the two, measured once per kind
        of call.
    levels, coarsening, control
        The arguments of `LayerParallel`, for "mgrit". By default, cycles continue until states and
        gradients agree with serial ones up to 1e-11 (1e-5 in float32). If the cycles do not reach
        this accuracy, there is a warning, and the steps are computed one after another. Levels with
        too few steps are left out.
    ranks : StepRanks, optional
        The value of `mgnet.petsc.steps_over_ranks()`: MPI ranks share the steps. All ranks make the
        same call, and all get the whole solution and all gradients.

    Returns
    -------
    tensor of shape (K, ...), or the structure of y0 with such tensors
        The states; the first row is y0 itself.

    Raises
    ------
    TypeError, ValueError
        If an argument is invalid, or two of them exclude each other.

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
    """The states at the requested times."""
    side: Any = cycles.kernel.template
    transform = transform_of(side, u, {"t": t})
    closure = needs_autograd(func, side, t[0].detach().to(u.dtype), u)
    if transform is not None or closure:
        if mode == "mgrit" or cycles.ranks is not None:
            reach = "a func that can reach tensors with a gradient besides its parameters"
            what = transform or reach
            raise ValueError(
                f"odeint was called with {what}, which cycles and ranks do not support; use "
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
    """The faster mode for such a call, with any backward pass included; the same on all ranks."""
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
