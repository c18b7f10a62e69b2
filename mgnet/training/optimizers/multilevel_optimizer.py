"""`MultilevelGradient` as a smoother, for levels that have their own networks."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import scipy.sparse as sp
import torch

from mgnet.limits import is_count, shown
from mgnet.smoother import Smoother
from mgnet.training.loss.checks import check_finite
from mgnet.training.loss.objective import Objective
from mgnet.training.optimizers.carried_levels import carried_levels, refined_transfers
from mgnet.training.optimizers.generating_system import GeneratingSystem, Transfers, sparse
from mgnet.training.optimizers.multilevel_gradient import (
    MultilevelGradient,
    network_transfers,
)
from mgnet.training.optimizers.optimizer import carried_moments, check_kind, recall
from mgnet.transfer import AxisTransfer, PackedTransfer

if TYPE_CHECKING:
    from mgnet.level import Level
    from mgnet.transfer import Transfer

__all__ = ["MultilevelOptimizer"]


class Matrix(NamedTuple):
    """A transfer, split into parts that a checkpoint can store."""

    axis: int
    shape: tuple[int, ...]
    places: torch.Tensor
    entries: torch.Tensor


class Memory(NamedTuple):
    """Memory between visits: the optimizer's state, and the transfers of each parameter."""

    state: Mapping[str, Any]
    matrices: tuple[tuple[Matrix, ...], ...]

    @classmethod
    def of(cls, state: Mapping[str, Any], chains: Iterable[Transfers]) -> Memory:
        """The memory with the transfers of each parameter."""
        return cls(state, tuple(tuple(map(_parts, chain)) for chain in chains))

    @property
    def transfers(self) -> tuple[Transfers, ...]:
        """The transfers of each parameter."""
        return tuple(tuple(map(_transfer, chain)) for chain in self.matrices)


def _parts(transfer: AxisTransfer) -> Matrix:
    P: Any = sparse(transfer.P)
    axis: Any = transfer.axis
    return Matrix(axis, tuple(P.shape), P.indices(), P.values())


def _transfer(matrix: Matrix) -> AxisTransfer:
    entries = matrix.entries.numpy(), tuple(matrix.places.numpy())
    return AxisTransfer(sp.csr_matrix(entries, matrix.shape), axis=matrix.axis)


@dataclass(frozen=True)
class MultilevelOptimizer(Smoother):
    """`MultilevelGradient` as a smoother; one sweep is one step with one gradient evaluation.

    Use it in schedules that only go upward (`cascade`), or on the finest level of other schedules.
    When a level is refined, each level of its parameters keeps its memory.

    Parameters
    ----------
    kind : type
        Class such as `torch.optim.Adam`; see `MultilevelGradient`.
    options : mapping
        Keyword arguments of the class, such as `{"lr": 1e-3}`.
    levels : int, optional
        Largest number of levels of a parameter; the default is that of `MultilevelGradient`.

    Raises
    ------
    TypeError, ValueError
        If the class or its options are not suitable, or `levels` is not positive.

    Examples
    --------
    >>> from mgnet import cascade, run
    >>> from mgnet.knots import KAN, knot_hierarchy
    >>> from mgnet.training import LeastSquares
    >>> x = torch.linspace(-1, 1, 200, dtype=torch.float64).unsqueeze(1)
    >>> kan = KAN([1, 3, 1], intervals=4)
    >>> problem = LeastSquares(kan, (x, torch.sin(8 * x)))
    >>> adam = MultilevelOptimizer(torch.optim.Adam, {"lr": 1e-2})
    >>> hierarchy = knot_hierarchy(kan, problem, 4, adam)
    >>> u, _ = run(cascade([50] * 4), hierarchy, hierarchy[0].operator.start(), None)
    >>> hierarchy[0].operator.value(u) < 1e-3
    True
    """

    kind: type[torch.optim.Optimizer]
    options: Mapping[str, Any] = field(default_factory=dict)
    levels: int | None = None
    monotone: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_kind("MultilevelOptimizer", self.kind, self.options)
        if self.levels is not None and not is_count(self.levels):
            raise ValueError(
                f"MultilevelOptimizer got {shown(self.levels)} levels; give at least 1"
            )

    def smooth(
        self, level: Level, u: torch.Tensor, f: torch.Tensor | None, sweeps: int, memory: Any
    ) -> tuple[torch.Tensor, Any]:
        objective = level.operator
        # The coarse problem of a descent has the corrections of a finer network as its unknowns.
        if not isinstance(objective, Objective) or len(u) != len(objective.flat.start()):
            raise TypeError(
                f"MultilevelOptimizer got {level}, which has no network of its own; use it in a "
                "cascade, on the finest level, or with form='injected'"
            )
        parts = [torch.nn.Parameter(p.clone()) for p in objective.flat.named(u.detach()).values()]
        if memory is None:
            known = network_transfers(objective.network, self.levels)
            chains = tuple(known.get(p, ()) for p in objective.flat.own.values())
        else:
            chains = memory.transfers
        of_parts = dict(zip(parts, chains, strict=True))
        optimizer = MultilevelGradient(self.kind, of_parts, self.options)
        if memory is not None:
            recall(optimizer, memory.state)
        sizes = [p.numel() for p in parts]
        for number in range(sweeps):
            gradient = -level.residual_at(torch.cat([p.detach().flatten() for p in parts]), f)
            if number == 0:
                check_finite(self, level, u, gradient)
            for p, g in zip(parts, gradient.split(sizes), strict=True):
                p.grad = g.view(p.shape).to(p.dtype)
            optimizer.step()
        flat = torch.cat([p.detach().flatten() for p in parts]).to(u.dtype)
        return flat, Memory.of(optimizer.state_dict(), chains)

    def carry(self, memory: Any, transfer: Transfer) -> Any:
        if not isinstance(transfer, PackedTransfer):
            return None
        state, chains = {}, []
        for number, ((shape, up), chain) in enumerate(
            zip(transfer.parts, memory.transfers, strict=True)
        ):
            entries = memory.state["state"].get(number, {})
            old = GeneratingSystem(shape, chain) if len(chain) else None
            if up is None:
                state[number], refined = copy.deepcopy(entries), chain
            elif self.levels == 1:
                state[number], refined = carried_moments(entries, up), ()
            else:
                refined = refined_transfers(old, up, self.levels)
                new = GeneratingSystem(up.fine_shape(shape), refined)
                state[number] = carried_levels(entries, old, new)
            chains.append(refined)
        return Memory.of({**copy.deepcopy(memory.state), "state": state}, chains)

    def __str__(self) -> str:
        options = ", ".join(f"{name}={value}" for name, value in self.options.items())
        return f"multilevel {self.kind.__name__}({options})"
