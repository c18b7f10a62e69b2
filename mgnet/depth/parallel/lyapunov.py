"""`lyapunov`: a prediction of whether methods that are parallel in layers or steps converge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mgnet.depth.batched.autocast import cast_of
from mgnet.depth.batched.lending import lending
from mgnet.depth.mgrit.communicator import SERIAL_COMMUNICATOR
from mgnet.depth.mgrit.layer_equation import LayerEquation
from mgnet.depth.mgrit.lyapunov_exponent import MOST_LAYERS, Lyapunov, exponents_along
from mgnet.depth.mgrit.marching import march_by_advance
from mgnet.depth.mgrit.one_step import OneStep
from mgnet.depth.network.ode_net import ODENet
from mgnet.depth.parallel.method import SERIAL_METHOD
from mgnet.depth.parallel.propagation_setup import PropagationSetup, detached
from mgnet.depth.parallel.shared_weights import with_side_inputs
from mgnet.limits import is_whole, shown

__all__ = ["lyapunov", "told_of"]

HALF = torch.float16, torch.bfloat16


def lyapunov(
    model: ODENet | nn.Module | OneStep | Callable[..., Any],
    x: Tensor | None = None,
    *,
    state: Tensor | tuple[Tensor, ...] | None = None,
    directions: int = 2,
    **side: Any,
) -> Lyapunov:
    """Estimate the largest Lyapunov exponent per layer or step, with a verdict on parallel methods.

    Small perturbations of a state are propagated along the layers by products of the Jacobians with
    vectors, which are renormalized after each layer. If they shrink, Newton's method with dense
    Jacobians can converge in few iterations, and so can MGRIT if its coarse layers are accurate. If
    they grow, for example by a factor of a thousand or more over all layers, both methods take
    about as many iterations as there are layers. The estimate is for the serial trajectory; along
    the iterates of a parallel method, perturbations may grow faster. The cost is a serial march and
    `4 directions` evaluations of each layer.

    Parameters
    ----------
    model : ODENet, LayerParallel, OneStep, or cell
        The network, problem or recurrent cell. A cell is a `torch.nn.RNNCell`, `GRUCell` or
        `LSTMCell`, or a function or module `(input, state) -> state`.
    x : Tensor, optional
        For a net, a batch of inputs; for a cell, a sequence of shape (steps, batch, ...), or
        (steps, inputs) for PyTorch's cells.
    state : Tensor of shape (batch, ...), or a tuple of such, optional
        Initial state of a cell; by default zeros for PyTorch's cells. For an LSTM, it is the tuple
        (h, c), or both concatenated.
    directions : int
        Number of random vectors to propagate.
    **side : Tensor
        Side inputs of a net.

    Returns
    -------
    Lyapunov
        The estimate, in `.exponent`, and the verdict, in `.verdict`, which `print` shows.

    Raises
    ------
    TypeError, ValueError
        If the model and its input do not match, or an argument is invalid.

    Notes
    -----
    Source: Gonzalez et al. (arXiv 2508.16817); renormalizing the vectors is Benettin's method.

    Examples
    --------
    >>> import numpy as np
    >>> logistic = OneStep(lambda t, dt, u: 4.0 * u * (1.0 - u), np.array([0.3]), np.ones(4000))
    >>> found = lyapunov(logistic)
    >>> print(f"{found.exponent:.2f}, ln 2 is {np.log(2):.2f}")
    0.69, ln 2 is 0.69
    >>> generator = torch.manual_seed(0)
    >>> print(lyapunov(torch.nn.GRUCell(3, 8), torch.randn(100, 2, 3)))
    exponent -0.5... per step: errors shrink along the steps, so parallel methods can converge in
    few iterations
    """
    if not is_whole(directions, 1):
        raise ValueError(
            f"lyapunov got directions = {shown(directions)}; give an integer of at least 1"
        )
    if isinstance(model, OneStep):
        equation: LayerEquation = model.hierarchy(levels=1)[0].operator
        points = equation.march(None)
        found = exponents_along(equation.propagator, points, False, directions)
        time = float(model.times[-1] - model.times[0])
        return Lyapunov(tuple(found), equation.layers, "step", time)
    net = getattr(model, "net", model)
    if not isinstance(x, Tensor):
        raise TypeError(
            f"lyapunov got a {type(model).__name__} and the input {shown(x)}; give a batch of "
            "inputs, such as lyapunov(net, x), or the sequence of a cell, (steps, batch, inputs)"
        )
    if isinstance(net, ODENet):
        net.check_whole()
        with torch.no_grad():
            kernel, layers = net.kernel, net.layers()
            if side:
                with lending():
                    kernel, layers = with_side_inputs(net, side, SERIAL_COMMUNICATOR, 1)
            setup = PropagationSetup.of(kernel, detached(layers), SERIAL_METHOD)
            return _along(setup, setup.count, net.encode(x, **side), "layer", directions)
    if callable(model) and not isinstance(model, nn.RNNBase):
        cell = _Cell(model, x)
        with torch.no_grad():
            return _along(cell, len(x), cell.start(state), "step", directions)
    raise TypeError(
        f"lyapunov got a {type(model).__name__}; give an ODENet, a LayerParallel, a OneStep, or a "
        "cell, such as torch.nn.GRUCell, with a sequence"
    )


def told_of(setup: PropagationSetup, u: Tensor) -> str:
    """The verdict on the layers of a call, for a message; "" if it cannot be computed.

    The verdict cannot be computed if other processes hold some layers, or in half precision, in
    which differences are meaningless.

    Parameters
    ----------
    setup : PropagationSetup
        The layers.
    u : Tensor of shape (batch, ...)
        The state before the layers.
    """
    half = u.dtype in HALF or cast_of(u.device.type) is not None
    if setup.communicator.ranks > 1 or not u.numel() or half:
        return ""
    kernel = setup.kernel
    counted = kernel.evaluations
    with torch.no_grad():
        found = _along(setup, min(setup.count, MOST_LAYERS), u.detach(), "layer", 1)
    kernel.evaluations = counted  # the cost of a message does not count as work of the call
    return found.verdict


def _along(propagator: Any, layers: int, u: Tensor, unit: str, directions: int) -> Lyapunov:
    if u.dtype in HALF:
        raise TypeError(
            f"lyapunov got states of {u.dtype}, whose differences are meaningless; give a model "
            "and inputs in float32 or float64"
        )
    points = torch.cat(march_by_advance(propagator, 0, layers, u[None], None, False))
    found = exponents_along(propagator, points, True, directions)
    return Lyapunov(tuple(found), layers, unit)


class _Cell:
    """The steps of a recurrent cell over a sequence (`Propagator`)."""

    def __init__(self, cell: Callable[..., Any], x: Tensor):
        self.cell = cell
        self.x = x[:, None] if x.dim() == 2 and isinstance(cell, nn.RNNCellBase) else x
        self.widths: tuple[int, ...] = ()  # of the parts of a state if it is a tuple
        if self.x.dim() < 2 or not len(x):
            raise ValueError(
                f"lyapunov got the sequence {tuple(x.shape)} for a cell; give one of shape (steps, "
                "batch, inputs)"
            )

    def start(self, state: Tensor | tuple[Tensor, ...] | None) -> Tensor:
        if isinstance(self.cell, nn.LSTMCell):
            self.widths = (self.cell.hidden_size,) * 2
        if isinstance(state, tuple | list) and state:
            self.widths = tuple([part.shape[-1] for part in state])
            state = torch.cat([*state], -1)
        if isinstance(state, Tensor):
            unbatched = isinstance(self.cell, nn.RNNCellBase) and state.dim() == 1
            return state[None] if unbatched else state
        if state is not None:
            raise TypeError(
                f"lyapunov got a state of type {type(state).__name__}; give a tensor of shape "
                "(batch, hidden), or a tuple of such"
            )
        if not isinstance(self.cell, nn.RNNCellBase):
            raise TypeError(
                f"lyapunov got a {type(self.cell).__name__} and no state; give the initial state, "
                "such as lyapunov(cell, x, state=torch.zeros(batch, hidden))"
            )
        return self.x.new_zeros((self.x.shape[1], sum(self.widths) or self.cell.hidden_size))

    def advance(self, level: int, which: slice, states: Tensor) -> Tensor:
        """Compute one step."""
        x, state = self.x[which.start], states[0]
        if self.widths:
            return torch.cat(self.cell(x, state.split(list(self.widths), -1)), -1)[None]
        return self.cell(x, state)[None]
