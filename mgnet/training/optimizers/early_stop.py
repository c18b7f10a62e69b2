"""Early stopping: training ends when the held-out loss has not decreased for a while."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch

from mgnet.callbacks import real_function
from mgnet.history import CycleRecord
from mgnet.smoother import Smoother
from mgnet.training.loss.checks import not_finite
from mgnet.training.loss.objective import Objective
from mgnet.training.record import network_of

if TYPE_CHECKING:
    from mgnet.level import Level
    from mgnet.transfer import Transfer

__all__ = ["EarlyStop", "Patience"]


class Search(NamedTuple):
    """Memory of `EarlyStop`: the state of the inner smoother, and the best state found."""

    u: torch.Tensor | None
    inner: Any  # memory of the inner smoother at u
    best: torch.Tensor | None
    best_inner: Any  # memory at the best state
    value: float  # the held-out loss at the best state
    waited: int  # sweeps since the best state


@dataclass(frozen=True)
class EarlyStop(Smoother):
    """Runs another smoother sweep by sweep until the held-out loss stagnates for `patience` sweeps.

    It returns the best state found, so it never raises the held-out loss. In a cascade, a level
    that has stopped skips its remaining sweeps and passes its best state to the next finer level,
    where the count of sweeps without improvement starts again. The count continues from visit to
    visit if nothing else changes the state, so 50 steps of one sweep are equivalent to one step of
    50 sweeps. On levels that solve for a correction, only the inner smoother runs. For cycles,
    whose visits are short, use `Patience`.

    Parameters
    ----------
    inner : Smoother
        Smoother to run.
    held_out : Objective
        The loss on held-out data; `held_out.with_network(network)` is evaluated for the level's
        network. This takes time but does not count as work.
    patience : int
        Number of sweeps without improvement after which the smoother stops, at least 1.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or is out of range.

    Examples
    --------
    >>> from mgnet import cascade, run
    >>> from mgnet.knots import KAN, knot_hierarchy
    >>> from mgnet.training import LeastSquares, LevenbergMarquardt
    >>> x = torch.linspace(-1, 1, 40, dtype=torch.float64).unsqueeze(1)
    >>> y = torch.sin(4 * x) + 0.1 * torch.sin(1e4 * x)  # the second part is noise
    >>> kan = KAN([1, 3, 1], intervals=2)
    >>> problem, held_out = (LeastSquares(kan, (x[k::2], y[k::2])) for k in (0, 1))
    >>> smoother = EarlyStop(LevenbergMarquardt(), held_out, patience=5)
    >>> hierarchy = knot_hierarchy(kan, problem, 3, smoother)
    >>> u, _ = run(cascade([50, 50, 50]), hierarchy, hierarchy[0].operator.start(), None)
    >>> held_out.with_network(hierarchy.network(0, u)).value(u) < 0.01
    True
    """

    inner: Smoother
    held_out: Objective
    patience: int
    fixed_work: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not isinstance(self.inner, Smoother):
            raise TypeError(
                f"EarlyStop got inner of type {type(self.inner).__name__}; it must be a Smoother, "
                "such as LevenbergMarquardt()"
            )
        if not isinstance(self.held_out, Objective):
            raise TypeError(
                f"EarlyStop got held_out of type {type(self.held_out).__name__}; it must be an "
                "Objective, such as LeastSquares(network, data)"
            )
        if not isinstance(self.patience, Integral) or self.patience < 1:
            raise ValueError(f"EarlyStop got patience {self.patience!r}; it needs at least 1 sweep")

    def start(self, level: Level, u: torch.Tensor) -> Search:
        return _new(self.inner.start(level, u))

    def carry(self, memory: Search, transfer: Transfer) -> Search | None:
        inner = memory.best_inner  # None if the smoother has made no step yet
        carried = None if inner is None else self.inner.carry(inner, transfer)
        return None if carried is None else _new(carried)

    def work(self, level: Level, sweeps: int) -> float:
        return self.inner.work(level, sweeps)

    def smooth(
        self, level: Level, u: torch.Tensor, f: torch.Tensor | None, sweeps: int, memory: Search
    ) -> tuple[torch.Tensor, Search]:
        network = network_of(level)
        if network is None:
            u, inner = self.inner.smooth(level, u, f, sweeps, memory.best_inner)
            return u, _new(inner)
        loss = self.held_out.with_network(network).value
        u_now, inner, best, best_inner, value, waited = memory
        if u_now is None or best is None or not torch.equal(u, best):
            u_now, inner, best, value, waited = u, best_inner, u, loss(u), 0
            if math.isnan(value):  # no later loss would compare as lower
                owner = f"{self} on {level}, with held-out data,"
                raise FloatingPointError(not_finite(owner, self.held_out, u))
        for _ in range(sweeps):
            if waited >= self.patience:
                break
            u_now, inner = self.inner.smooth(level, u_now, f, 1, inner)
            waited += 1
            now = loss(u_now)
            if now < value:
                best, best_inner, value, waited = u_now, inner, now, 0
        return best, Search(u_now, inner, best, best_inner, value, waited)

    def __str__(self) -> str:
        return f"EarlyStop({self.inner}, patience={self.patience})"


def _new(inner: Any) -> Search:
    return Search(None, inner, None, inner, math.inf, 0)


class Patience:
    """A monitor that ends a solve when the held-out loss has not decreased for some cycles.

    Parameters
    ----------
    held_out : callable
        `state of level 0 -> loss`, such as the `value` of an `Objective` on held-out data.
    patience : int
        Number of cycles without improvement after which the solve ends, at least 1.

    Attributes
    ----------
    best : state
        The state with the lowest held-out loss among the start and the states after each cycle.
    cycle : int
        The cycle after which the best state was found.
    values : list of float
        The held-out loss at the start and after each cycle.

    Raises
    ------
    ValueError
        If the patience is not a positive integer.

    Examples
    --------
    >>> from mgnet import Hierarchy, Level, Solver
    >>> from mgnet.training import TorchOptimizer
    >>> u = torch.tensor([2.0])
    >>> level = Level(lambda u: u, TorchOptimizer(torch.optim.SGD, {"lr": 0.5}), size=1)
    >>> patience = Patience(lambda u: float((u - 0.5).abs()), 2)
    >>> solver = Solver(Hierarchy([level]), "V(0,0,1)", monitor=patience)
    >>> solver.solve(u=u).reason.name, patience.best.tolist(), patience.values
    ('MONITOR', [0.5], [1.5, 0.5, 0.0, 0.25, 0.375])
    """

    def __init__(self, held_out: Callable[[Any], float], patience: int):
        if not isinstance(patience, Integral) or patience < 1:
            raise ValueError(f"Patience got {patience!r} cycles; it needs at least 1")
        self.held_out: Callable[[Any], float] = real_function("Patience", "a loss", held_out)
        self.patience: int = patience
        self.values: list[float] = []
        self.best: Any = None
        self.cycle: int = 0

    def __call__(self, entry: CycleRecord, u: Any) -> bool:
        """Evaluate the state after a cycle; returns True if the solve should end.

        Raises
        ------
        FloatingPointError
            If the held-out loss is not finite.
        """
        cycle = entry.cycle
        if cycle == 0:  # a new solve
            self.values, self.best = [], None
        self.values.append(self.held_out(u))
        if cycle == 0 and math.isnan(self.values[0]):
            problem = getattr(self.held_out, "__self__", None)
            raise FloatingPointError(not_finite("Patience, with held-out data,", problem, u))
        if self.best is None or self.values[-1] < self.values[self.cycle]:
            self.best, self.cycle = u, cycle
        return cycle - self.cycle >= self.patience
