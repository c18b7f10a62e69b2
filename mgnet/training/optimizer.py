"""PyTorch's optimizers as smoothers: any of `torch.optim`, and L-BFGS with a Wolfe line search."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from mgnet.smoother import Smoother

if TYPE_CHECKING:
    from mgnet.level import Level
    from mgnet.transfer import Transfer

__all__ = ["LBFGS", "TorchOptimizer"]


@dataclass(frozen=True)
class TorchOptimizer(Smoother):
    """Any optimizer of `torch.optim`; one sweep is one step with one gradient evaluation.

    The memory is the optimizer's state, carried to a finer level by the prolongation.

    Parameters
    ----------
    kind : type
        `torch.optim.Adam`, say.
    options : mapping
        Its keyword arguments, as `{"lr": 1e-3}`.

    Examples
    --------
    >>> from mgnet import Hierarchy, Level, Solver
    >>> smoother = TorchOptimizer(torch.optim.SGD, {"lr": 0.5})
    >>> level = Level(lambda u: u, smoother, size=1)
    >>> solver = Solver(Hierarchy([level]), "V(0,0,3)", max_cycles=1)
    >>> solver.solve(u=torch.ones(1)).value.tolist()
    [0.125]
    """

    kind: type[torch.optim.Optimizer]
    options: Mapping[str, Any] = field(default_factory=dict)

    def smooth(
        self, level: Level, u: torch.Tensor, f: torch.Tensor | None, sweeps: int, memory: Any
    ) -> tuple[torch.Tensor, Any]:
        parameter = torch.nn.Parameter(u.detach().clone())
        optimizer = self.kind([parameter], **self.options)
        if memory is not None:
            optimizer.load_state_dict(copy.deepcopy(memory))
        for _ in range(sweeps):
            parameter.grad = -level.residual_at(parameter.detach(), f)
            optimizer.step()
        return parameter.detach(), optimizer.state_dict()

    def carry(self, memory: Any, transfer: Transfer) -> Any:
        state = copy.deepcopy(memory)
        for entries in state["state"].values():
            for name, value in entries.items():
                if isinstance(value, torch.Tensor) and value.dim():
                    entries[name] = transfer.prolong(value)
        return state

    def __str__(self) -> str:
        options = ", ".join(f"{name}={value}" for name, value in self.options.items())
        return f"{self.kind.__name__}({options})"


@dataclass(frozen=True)
class LBFGS(Smoother):
    """L-BFGS with a strong Wolfe line search (PyTorch's), for levels with an objective.

    One sweep is one iteration. The pairs survive between visits while f stays the same.

    Parameters
    ----------
    history : int
        Number of pairs.

    Examples
    --------
    >>> from mgnet import Hierarchy, Level, Solver
    >>> H = torch.tensor([1.0, 10.0], dtype=torch.float64)
    >>> energy = lambda u: float((u * H * u).sum()) / 2
    >>> level = Level(lambda u: H * u, LBFGS(), objective=energy, size=2)
    >>> solver = Solver(Hierarchy([level]), "V(0,0,10)", max_cycles=1)
    >>> float(solver.solve(u=torch.ones(2, dtype=torch.float64)).value.norm()) < 1e-6
    True
    """

    history: int = 100
    fixed_work: ClassVar[bool] = False

    def smooth(
        self, level: Level, u: torch.Tensor, f: torch.Tensor | None, sweeps: int, memory: Any
    ) -> tuple[torch.Tensor, Any]:
        parameter = torch.nn.Parameter(u.detach().clone())
        optimizer = torch.optim.LBFGS(
            [parameter],
            lr=1.0,
            max_iter=sweeps,
            max_eval=25 * sweeps,
            history_size=self.history,
            tolerance_grad=0.0,
            tolerance_change=0.0,
            line_search_fn="strong_wolfe",
        )
        if memory is not None and memory[1] is f:
            optimizer.load_state_dict(copy.deepcopy(memory[0]))

        def closure() -> float:
            point = parameter.detach()
            parameter.grad = -level.residual_at(point, f)
            # The value of the same point comes with the gradient for a third of its price; it is
            # not counted again.
            return float(level.objective(point)) - (0.0 if f is None else float(f @ point))  # type: ignore

        optimizer.step(closure)  # type: ignore[arg-type]
        return parameter.detach(), (optimizer.state_dict(), f)

    def work(self, level: Level, sweeps: int) -> float:
        return 1.25 * sweeps
