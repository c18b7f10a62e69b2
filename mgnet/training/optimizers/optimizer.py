"""PyTorch's optimizers as smoothers: any class of `torch.optim`, and L-BFGS with a line search."""

from __future__ import annotations

import copy
import difflib
import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch

from mgnet.smoother import Smoother
from mgnet.training.loss.checks import check_finite, check_range
from mgnet.training.optimizers.broyden import value_and_gradient

if TYPE_CHECKING:
    from mgnet.level import Level
    from mgnet.transfer import Transfer

__all__ = ["LBFGS", "TorchOptimizer"]

# Entries of optimizer states that depend on gradients, and on which power of them; all other
# entries are steps or numbers of steps.
POWERS = {"exp_avg": 1, "exp_inf": 1, "grad_avg": 1}
POWERS |= {"exp_avg_sq": 2, "max_exp_avg_sq": 2, "square_avg": 2, "sum": 2}


def check_kind(owner: str, kind: Any, options: Mapping[str, Any]) -> None:
    """Check that `kind` is a class of optimizers that has these options.

    Raises
    ------
    TypeError, ValueError
        If `kind` is not such a class, or an option is unknown.
    """
    if not (isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)):
        made = isinstance(kind, torch.optim.Optimizer)  # whose repr has many lines
        got = f"an instance of {type(kind).__name__}" if made else repr(kind)
        raise TypeError(
            f"{owner} got {got}; give a class of optimizers and its options, "
            f'such as {owner}(torch.optim.Adam, {{"lr": 1e-3}})'
        )
    if not isinstance(options, Mapping):
        raise TypeError(
            f"{owner} got options of type {type(options).__name__}; give a mapping of keyword "
            f'arguments of {kind.__name__}, such as {{"lr": 1e-3}}'
        )
    known = inspect.signature(kind).parameters
    wrong = [name for name in options if name not in known]
    if wrong:
        nearest = difflib.get_close_matches(wrong[0], known, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"{owner} got the option {wrong[0]!r}, which {kind.__name__} does not have; "
            f"the nearest is {nearest!r}"
        )


@dataclass(frozen=True)
class TorchOptimizer(Smoother):
    """Any optimizer of `torch.optim`; one sweep is one step with one gradient evaluation.

    The memory is the optimizer's state, which `carried_moments` moves to a finer level.

    Parameters
    ----------
    kind : type
        Class such as `torch.optim.Adam`.
    options : mapping
        Keyword arguments of the class, such as `{"lr": 1e-3}`.

    Raises
    ------
    TypeError, ValueError
        If the class or its options are not suitable.

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
    monotone: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_kind("TorchOptimizer", self.kind, self.options)

    def smooth(
        self, level: Level, u: torch.Tensor, f: torch.Tensor | None, sweeps: int, memory: Any
    ) -> tuple[torch.Tensor, Any]:
        parameter = torch.nn.Parameter(u.detach().clone())
        optimizer = self.kind([parameter], **self.options)
        if memory is not None:
            recall(optimizer, copy.deepcopy(memory))
        for number in range(sweeps):
            parameter.grad = -level.residual_at(parameter.detach(), f)
            if number == 0:
                check_finite(self, level, u, parameter.grad)
            optimizer.step()
        return parameter.detach(), optimizer.state_dict()

    def carry(self, memory: Any, transfer: Transfer) -> Any:
        entries = memory["state"]
        state = {number: carried_moments(each, transfer) for number, each in entries.items()}
        return {**copy.deepcopy(memory), "state": state}

    def __str__(self) -> str:
        options = ", ".join(f"{name}={value}" for name, value in self.options.items())
        return f"{self.kind.__name__}({options})"


class Pairs(NamedTuple):
    """Memory of L-BFGS: the optimizer's state, its right-hand side, and its last state u."""

    state: Mapping[str, Any]
    f: torch.Tensor | None
    u: torch.Tensor | None


@dataclass(frozen=True)
class LBFGS(Smoother):
    """L-BFGS with a strong Wolfe line search (PyTorch's), for levels with an objective.

    One sweep is one iteration. The pairs of steps and gradient differences are kept between visits
    as long as f does not change, and are carried to a finer level if there is no f.

    Parameters
    ----------
    history : int
        Largest number of stored pairs.

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
        if memory is not None and memory.f is f:
            moved = memory.u is not u  # by a coarse correction, for example
            known = _without_last_step(memory.state) if moved else memory.state
            recall(optimizer, copy.deepcopy(known))

        values = list[float]()

        def closure() -> float:
            value, parameter.grad = value_and_gradient(level, parameter.detach(), f)
            if not values:
                check_finite(self, level, u, value, parameter.grad)
                if memory is None:
                    check_range(self, level, parameter.grad)
            values.append(value)
            return value

        optimizer.step(closure)  # type: ignore[arg-type]
        u = parameter.detach()
        if not all(map(math.isfinite, values)) and not math.isfinite(closure()):
            raise FloatingPointError(
                f"{self} on {level} went from a finite loss to one that is not (NaN or Inf), which "
                "PyTorch's line search accepts as a step; use Broyden() or LevenbergMarquardt(), "
                "or keep the loss finite for all parameters"
            )
        return u, Pairs(optimizer.state_dict(), f, u)

    def work(self, level: Level, sweeps: int) -> float:
        return 1.25 * sweeps

    def carry(self, memory: Any, transfer: Transfer) -> Any:
        if memory.f is not None or transfer.inject is None:
            return None
        entries = memory.state["state"]
        carried = {k: carried_pairs(v, transfer) for k, v in entries.items()}
        return Pairs({**memory.state, "state": carried}, None, None)


def _without_last_step(memory: Mapping[str, Any]) -> dict[str, Any]:
    """The state of an L-BFGS optimizer, changed to ignore that its parameters were moved elsewhere.

    The optimizer would form a pair from its last step d and the change of the gradient; with d = 0
    it skips this pair.
    """
    state = {
        k: {**v, "d": torch.zeros_like(v["d"])} if "d" in v else v
        for k, v in memory["state"].items()
    }
    return {**memory, "state": state}


def recall(optimizer: torch.optim.Optimizer, memory: Mapping[str, Any]) -> None:
    """Give an optimizer the state of another optimizer, but keep its own options (lr, max_iter).

    PyTorch's optimizers change the given tensors in place, so pass a copy.
    """
    options = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": memory["state"], "param_groups": options})


def carried_moments(state: Mapping[str, Any], transfer: Transfer) -> dict[str, Any]:
    """The optimizer state of one parameter on the finer level.

    Steps (momentum) are prolonged with P. The gradient on the finer level has smaller entries,
    since each fine unknown has less effect, so averages of gradients and of their squares are
    carried by `transfer.carry_gradient`, `P D^-1` and `P D^-2`, where D contains the column sums of
    P. If P were used for all of them, Adam's steps would be too short by the refinement factor
    until its memory has decayed. In a test, fits in cascades of 4 levels then ended with a 1.5 to
    25 times higher loss.

    Parameters
    ----------
    state : mapping
        Tensors that the transfer can prolong, and numbers, which remain the same.
    transfer : Transfer
        Transfer from the coarse to the fine parameter.

    Examples
    --------
    >>> from mgnet import MatrixTransfer
    >>> state = {"step": 3, "exp_avg": torch.tensor([4.0]), "exp_avg_sq": torch.tensor([16.0])}
    >>> carried_moments(state, MatrixTransfer(torch.tensor([[1.0], [1.0]])))
    {'step': 3, 'exp_avg': tensor([2., 2.]), 'exp_avg_sq': tensor([4., 4.])}
    """
    carried = {}
    for name, value in state.items():
        if not isinstance(value, torch.Tensor) or not value.dim():
            carried[name] = copy.deepcopy(value)
            continue
        if name in POWERS:
            carried[name] = transfer.carry_gradient(value, POWERS[name])
        else:
            carried[name] = transfer.prolong(value)
    return carried


def carried_pairs(state: Mapping[str, Any], transfer: Transfer) -> dict[str, Any]:
    """The state of `torch.optim.LBFGS` on the finer level; empty if there are no pairs.

    Steps s are prolonged with P. Differences y of gradients are dual vectors: they are carried by
    the transpose of `transfer.inject`, a left inverse of P, which preserves all <y, s> and with
    them the curvature of the objective in the coarse space. In fits of three functions in cascades
    of 4 levels with 20 iterations on each finer one, the final loss was 2 to 5 times lower than
    without the pairs.

    Parameters
    ----------
    state : mapping
        State of the optimizer's only or first parameter.
    transfer : Transfer
        Transfer of flat states, with `inject`.

    Examples
    --------
    >>> from mgnet import MatrixTransfer
    >>> P, R = torch.tensor([[1.0], [1.0]]), torch.tensor([[0.5, 0.5]])
    >>> pair = {"old_stps": [torch.tensor([1.0])], "old_dirs": [torch.tensor([4.0])], "t": 1.0}
    >>> pair |= {"ro": [0.25], "n_iter": 2, "func_evals": 3, "prev_loss": 1.0}
    >>> carried_pairs(pair, MatrixTransfer(P, injection=R))["old_dirs"]
    [tensor([2., 2.])]
    """
    if not state.get("old_stps") or transfer.inject is None:
        return {}
    steps = [transfer.prolong(s) for s in state["old_stps"]]
    transpose = torch.func.vjp(transfer.inject, steps[0])[1]
    differences = [transpose(y)[0] for y in state["old_dirs"]]
    kept = {name: state[name] for name in ("n_iter", "func_evals", "prev_loss", "t")}
    return kept | {
        "old_stps": steps,
        "old_dirs": differences,
        "ro": list(state["ro"]),
        "H_diag": 1.0 / (state["ro"][-1] * differences[-1].dot(differences[-1])),
        # The optimizer will form a pair from its last step d and its last gradient. That gradient
        # has no counterpart on the finer level; with d = 0 it skips this pair.
        "d": torch.zeros_like(steps[0]),
        "prev_flat_grad": torch.zeros_like(steps[0]),
    }
