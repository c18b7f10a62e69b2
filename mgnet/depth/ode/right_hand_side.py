"""A user's right-hand side as a block whose layers are time steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mgnet.depth.batched.block import StackedBlock
from mgnet.depth.batched.surroundings import check_gradients, surroundings
from mgnet.depth.ode.state_tree import StateTree

__all__ = ["METHODS", "Kept", "RightHandSide", "kept_of", "needs_autograd"]

# torchdiffeq's names, and the corresponding schemes of `ODENet`.
METHODS = {
    "euler": "euler",
    "midpoint": "midpoint",
    "heun2": "heun",
    "heun": "heun",
    "heun3": "heun3",
    "rk4": "rk4_38",
    "rk4_classic": "rk4",
}
PLACE = "_mgnet_odeint"  # attribute in which a function keeps the objects made from it
REMEDY = (
    "in odeint dy/dt must be a function of t and y alone: put the module in evaluation mode, as "
    "with func.eval()"
)


class RightHandSide(nn.Module):
    """`func(t, y)` as a block F(t, u) for states in one tensor.

    Parameters
    ----------
    func : callable
        The function `(t, y) -> dy/dt`; if it is a module, its parameters are those of the block.
    tree : StateTree
        The layout of the states.

    Examples
    --------
    >>> def func(t, y):
    ...     return t * y
    >>> RightHandSide(func, StateTree.of(torch.ones(2)))(torch.tensor(3.0), torch.ones(2))
    tensor([3., 3.])
    """

    def __init__(self, func: Callable[[Tensor, Any], Any], tree: StateTree):
        super().__init__()
        self.func, self.tree = func, tree

    def forward(self, t: Tensor, u: Tensor, shift: Tensor | None = None) -> Tensor:
        """Compute the slope at the time t, or t + shift."""
        value = self.func(t if shift is None else t + shift, self.tree.unpack(u))
        self.tree.check_slope(value)
        return self.tree.pack(value)


class Kept:
    """Objects made from a function and stored with it, because tracing costs more than solving.

    Copies of the function, by `copy` or pickle, start without these.

    Examples
    --------
    >>> import copy
    >>> linear = nn.Linear(1, 1)
    >>> kept = kept_of(linear)
    >>> kept_of(linear) is kept, kept_of(copy.deepcopy(linear)) is kept
    (True, False)
    """

    def __init__(self) -> None:
        self.blocks: dict[tuple[StateTree, str], StackedBlock] = {}
        self.faster: dict[Any, str] = {}  # choices of mode "auto"

    def __reduce__(self) -> Any:
        return dict, ()

    def block(self, func: Callable[..., Any], tree: StateTree, scheme: str) -> StackedBlock:
        """The block of a right-hand side, created once per layout, scheme and set of tensors."""
        found = self.blocks.get((tree, scheme))
        if found is None or _names(found.template) != (found.names, found.buffer_names):
            side = RightHandSide(func, tree)
            found = StackedBlock(side, scheme, shared_buffers=_names(side)[1])
            found.fixed.remedy = found.draws.remedy = REMEDY
            self.blocks[tree, scheme] = found
        return found


def _names(module: nn.Module) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The current names of parameters and buffers."""
    found = module.named_parameters(), module.named_buffers()
    return tuple([name for name, _ in found[0]]), tuple([name for name, _ in found[1]])


def kept_of(func: Callable[..., Any]) -> Kept:
    """Return the objects stored with a module or a function; new ones for other callables.

    Examples
    --------
    >>> kept_of(torch.sin).blocks
    {}
    """
    if not isinstance(func, nn.Module) and type(func) is not type(kept_of):
        return Kept()
    found = vars(func).get(PLACE)
    if not isinstance(found, Kept):
        found = vars(func)[PLACE] = Kept()
    return found


def needs_autograd(func: Callable[..., Any], block: RightHandSide, t: Tensor, u: Tensor) -> bool:
    """Whether a plain function can use tensors that require gradients, for example in a closure.

    Compiled loops and cycles would lose such a gradient, so autograd must record every step. All
    tensors that its code can access count, because it may use them later than in the first step.

    Examples
    --------
    >>> rate = torch.ones(1, requires_grad=True)
    >>> func = lambda t, y: -rate * y
    >>> side = RightHandSide(func, StateTree.of(torch.ones(1)))
    >>> needs_autograd(func, side, torch.tensor(0.0), torch.ones(1))
    True
    """
    if isinstance(func, nn.Module) or not torch.is_grad_enabled():
        return False
    if any(x.requires_grad for x in surroundings(func)[1]):
        return True
    try:
        check_gradients(block(t, u.detach()), [])
    except ValueError:
        return True
    return False
