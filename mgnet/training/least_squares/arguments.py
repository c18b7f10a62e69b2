"""What `levenberg_marquardt` is given: problems, memory and refreshers, checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from mgnet.interpreter import Memory
from mgnet.level import Level
from mgnet.training.least_squares.device_steps import DeviceTold
from mgnet.training.least_squares.linearization import Residual, residuals_of
from mgnet.training.least_squares.problem import LeastSquares
from mgnet.training.least_squares.step_rules import Damping
from mgnet.training.least_squares.sweep import Linearized
from mgnet.training.loss.checks import not_finite

__all__ = [
    "Refresh",
    "Told",
    "check_alike",
    "check_usable",
    "damping_of",
    "problem_of",
    "refreshed",
    "refreshers",
]

Told = Linearized | DeviceTold

#: `(cycle, problem, u) -> problem`: the problem to go on with, or the same one.
Refresh = Callable[[int, Any, torch.Tensor], LeastSquares]


def problem_of(
    residual: Residual | LeastSquares,
    module: torch.nn.Module | None,
    chunk_size: int | None,
    loss: str,
    f_scale: float,
) -> LeastSquares:
    """What was given, or made of it."""
    if isinstance(residual, LeastSquares):
        there = module is not None, chunk_size is not None, loss != "linear", f_scale != 1.0
        names = "module", "chunk_size", "loss", "f_scale"
        given = [name for name, is_there in zip(names, there, strict=True) if is_there]
        if given:
            raise TypeError(
                f"levenberg_marquardt got a {type(residual).__name__} and {given[0]}; give the "
                "problem alone, made with those of its own"
            )
        return residual
    if not callable(residual) or isinstance(residual, torch.nn.Module | torch.Tensor):
        raise TypeError(
            f"levenberg_marquardt got a residual of type {type(residual).__name__}; give a "
            "function first, then the module, such as (lambda module: module(x) - y, module)"
        )
    if module is None:
        raise TypeError(
            "levenberg_marquardt got a residual function without a module; give the module to "
            "train, too, or a LeastSquares or Collocation problem alone"
        )
    made = partial(residuals_of, residual)
    return LeastSquares.from_torch(module, made, chunk_size, loss, f_scale)


def damping_of(memory: Memory | None) -> Damping | None:
    """What an earlier solution remembers."""
    kept = memory.get((0, "pre")) if isinstance(memory, dict) else memory
    if kept is not None and not isinstance(kept, Damping):
        raise TypeError(
            f"levenberg_marquardt got memory of a {type(kept).__name__}; give that of its Solution"
        )
    return kept


def check_alike(r: torch.Tensor, told: Told, history: Sequence[Any], level: Level) -> None:
    """Raise unless residuals are as many as at first; at the start, finite and the same again."""
    if len(told.r) != len(r):
        raise ValueError(f"residual(module) gave {len(r)} residuals, then {len(told.r)}")
    if len(history) > 1:
        return
    check_usable(r, told, history[0].residual_norm, level)
    again, value = level.operator.half_square(r), told.half
    if abs(again - value) > 1e-3 * max(again, value):
        raise ValueError(
            f"levenberg_marquardt got residuals with 1/2 |r|^2 = {value:.4g} and, for the same "
            f"parameters, {again:.4g}; they must not be random: call module.eval() where there is "
            "dropout, and draw samples before"
        )


def check_usable(
    r: torch.Tensor, told: Told, gradient: float, level: Level, cycle: int = 0
) -> None:
    """Raise unless residuals, parameters and the norm of the gradient are finite."""
    # Their squares may overflow.
    if math.isfinite(gradient) and bool(torch.isfinite(torch.cat([r, told.u])).all()):
        return
    told_of = not_finite(str(level), level.operator, told.u)
    if cycle:
        told_of = told_of.replace(
            "at the start", f"at cycle {cycle}, of the problem that came then"
        )
    wrong = (~torch.isfinite(r)).nonzero()[:, 0]
    if len(wrong):
        told_of += f"; {len(wrong)} of {len(r)} residuals are, first number {int(wrong[0])}"
    raise ValueError(told_of)


def refreshers(refresh: Refresh | Sequence[Refresh] | None) -> tuple[Refresh, ...]:
    """Those that were given, as a tuple."""
    if refresh is None:
        return ()
    given: Any = [refresh] if callable(refresh) and not isinstance(refresh, type) else refresh
    listed = isinstance(given, Sequence) and not isinstance(given, str)
    if not listed or not all(callable(each) and not isinstance(each, type) for each in given):
        raise TypeError(
            f"levenberg_marquardt got refresh of type {type(refresh).__name__}; give a function "
            "(cycle, problem, u) -> problem, such as NewPoints(domain, 2000), or a list of such"
        )
    return tuple(given)


def refreshed(
    refresh: Sequence[Refresh], cycle: int, problem: LeastSquares, u: torch.Tensor
) -> LeastSquares:
    """The problem after all of them, one after the other."""
    for each in refresh:
        new = each(cycle, problem, u.clone())
        if not isinstance(new, LeastSquares):
            raise TypeError(
                f"the refresh {each!r} gave {type(new).__name__}; it must give a LeastSquares, as "
                "problem.with_data(...), or the problem itself where nothing is to change"
            )
        if new.network is not problem.network:
            raise ValueError(
                f"the refresh {each!r} gave a problem of another network; other points and weights "
                "may come, as problem.with_data(...), but the network stays"
            )
        problem = new
    return problem
