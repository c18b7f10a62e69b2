"""Check the arguments of `levenberg_marquardt`: problem, memory and `refresh` functions."""

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

#: `(cycle, problem, u) -> problem`: the problem for the next cycle, or the same one.
Refresh = Callable[[int, Any, torch.Tensor], LeastSquares]


def problem_of(
    residual: Residual | LeastSquares,
    module: torch.nn.Module | None,
    chunk_size: int | None,
    loss: str,
    f_scale: float,
) -> LeastSquares:
    """The given problem, or one built from the arguments.

    Raises
    ------
    TypeError
        If the arguments do not describe one problem.
    """
    if isinstance(residual, LeastSquares):
        there = module is not None, chunk_size is not None, loss != "linear", f_scale != 1.0
        names = "module", "chunk_size", "loss", "f_scale"
        given = [name for name, is_there in zip(names, there, strict=True) if is_there]
        if given:
            raise TypeError(
                f"levenberg_marquardt got a {type(residual).__name__} and {given[0]}; give the "
                "problem alone, built with its own options"
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
    """The damping in the memory of an earlier solution.

    Raises
    ------
    TypeError
        If the memory belongs to another smoother.
    """
    kept = memory.get((0, "pre")) if isinstance(memory, dict) else memory
    if kept is not None and not isinstance(kept, Damping):
        raise TypeError(
            f"levenberg_marquardt got memory of a {type(kept).__name__}; give that of its Solution"
        )
    return kept


def check_alike(r: torch.Tensor, told: Told, history: Sequence[Any], level: Level) -> None:
    """Check that repeated evaluations give the same number of residuals and the same values.

    Raises
    ------
    ValueError
        If the residuals change from call to call.
    """
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
            "dropout, and draw samples in advance"
        )


def check_usable(
    r: torch.Tensor, told: Told, gradient: float, level: Level, cycle: int = 0
) -> None:
    """Check that residuals, parameters and the norm of the gradient are finite.

    Raises
    ------
    ValueError
        If any of these is not finite.
    """
    # Their squares may overflow.
    if math.isfinite(gradient) and bool(torch.isfinite(torch.cat([r, told.u])).all()):
        return
    told_of = not_finite(str(level), level.operator, told.u)
    if cycle:
        told_of = told_of.replace(
            "at the start", f"at cycle {cycle}, with the problem that was new then"
        )
    wrong = (~torch.isfinite(r)).nonzero()[:, 0]
    if len(wrong):
        told_of += f"; {len(wrong)} of {len(r)} residuals are NaN or Inf, first {int(wrong[0])}"
    raise ValueError(told_of)


def refreshers(refresh: Refresh | Sequence[Refresh] | None) -> tuple[Refresh, ...]:
    """The `refresh` functions as a tuple.

    Raises
    ------
    TypeError
        If one of them is not a function.
    """
    if refresh is None:
        return ()
    given: Any = [refresh] if callable(refresh) and not isinstance(refresh, type) else refresh
    listed = isinstance(given, Sequence) and not isinstance(given, str)
    if not listed or not all(callable(each) and not isinstance(each, type) for each in given):
        raise TypeError(
            f"levenberg_marquardt got refresh of type {type(refresh).__name__}; give a function "
            "(cycle, problem, u) -> problem, such as NewPoints(domain, 2000), or a list of "
            "functions"
        )
    return tuple(given)


def refreshed(
    refresh: Sequence[Refresh], cycle: int, problem: LeastSquares, u: torch.Tensor
) -> LeastSquares:
    """Apply all `refresh` functions to the problem, one after the other.

    Raises
    ------
    TypeError, ValueError
        If one of them does not return a problem, or returns a problem of another network.
    """
    for each in refresh:
        new = each(cycle, problem, u.clone())
        if not isinstance(new, LeastSquares):
            raise TypeError(
                f"the refresh {each!r} gave {type(new).__name__}; it must return a LeastSquares, "
                "such as problem.with_data(...), or the problem itself if nothing changes"
            )
        if new.network is not problem.network:
            raise ValueError(
                f"the refresh {each!r} gave a problem of another network; other points and weights "
                "are allowed, such as problem.with_data(...), but the network must not change"
            )
        problem = new
    return problem
