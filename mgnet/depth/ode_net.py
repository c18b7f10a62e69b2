"""Residual networks whose layers are the steps of an ordinary differential equation."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from mgnet.depth.block import Layers, StackedBlock
from mgnet.depth.layer_stack import LayerSlots, draw_layers, layer_of, stack, takes_time
from mgnet.depth.spline_weights import DepthSpline

__all__ = ["ODENet", "ResidualBlock"]

SCHEMES = ("euler", "heun", "rk4")


class ResidualBlock(torch.nn.Module):
    """One layer on its own: `u + s F(u)`, or `u + s F(t, u)`, or a step of Heun or RK4.

    Parameters
    ----------
    block : torch.nn.Module
        F.
    step : float or torch.nn.Parameter
        s; a parameter is an output gate and is trained.
    time : float
        t.
    scheme : "euler", "heun" or "rk4"

    Examples
    --------
    >>> layer = ResidualBlock(torch.nn.Identity(), 0.5)
    >>> layer(torch.tensor([2.0])).tolist()
    [3.0]
    """

    def __init__(
        self,
        block: torch.nn.Module,
        step: float | torch.nn.Parameter = 1.0,
        time: float = 0.0,
        scheme: str = "euler",
    ):
        super().__init__()
        _check_scheme(scheme)
        self.block = block
        self.step = step if isinstance(step, torch.nn.Parameter) else float(step)
        self.time = float(time)
        self.scheme = scheme
        self.timed = takes_time(block)

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        """The state after the layer."""
        F = self.block if self.timed else lambda t, u: self.block(u)
        return advance(self.scheme, F, self.time, u, self.step)

    def extra_repr(self) -> str:
        return f"step={float(self.step):.6g}, time={self.time:.6g}, scheme={self.scheme!r}"


class ODENet(torch.nn.Module):
    """`u' = F(t, u; theta(t))` in N layers: `u[n+1] = u[n] + s_n F(t_n, u[n]; theta_n)`, s_n = T/N.

    Every parameter of the block is kept for all layers at once, the layers on axis 0, so that
    `net.block` is the block with parameters of shape (layers, ...). Source: Guenther et al., SIAM
    J. Math. Data Sci. 2 (2020), section 2; gates: `docs/design.md`.

    Parameters
    ----------
    block : torch.nn.Module, or function `n -> module`
        F(u) or F(t, u), of a state of any shape (batch, ...), which it keeps. A module is a
        template: each layer draws parameters of its own by the submodules' `reset_parameters`;
        submodules without it begin with copies of the template's. A function is called for every
        layer, those of `buffer_layers` included, in the order of depth.
    layers : int
        N.
    final_time : float
        T, dimensionless.
    scheme : "euler", "heun" or "rk4"
        1, 2 or 4 evaluations of F per layer.
    gates : bool
        Whether the steps s_n are parameters, `net.gates`. Refinement is then exact.
    weights : "per layer", "shared" or DepthSpline
        "shared": one theta for all layers.
    before, after : torch.nn.Module, optional
        From the input to the state, and from the state to the output.
    buffer_layers : (int, int)
        Layers of step 1 from the same block, before and after the N others, with weights of their
        own; they are never solved in parallel. Source: Jiang et al., arXiv 2601.09026.

    Raises
    ------
    ValueError, TypeError
        In forward too, if the block does not keep the shape of the state.

    Examples
    --------
    >>> block = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Tanh())
    >>> net = ODENet(block, 16, 5.0, before=torch.nn.Linear(2, 8), after=torch.nn.Linear(8, 5))
    >>> net(torch.rand(10, 2)).shape, net.block[0].weight.shape
    (torch.Size([10, 5]), torch.Size([16, 8, 8]))
    """

    block: Any  # of whatever type the template has

    def __init__(
        self,
        block: torch.nn.Module | Callable[[int], torch.nn.Module],
        layers: int,
        final_time: float = 1.0,
        *,
        scheme: str = "euler",
        gates: bool = False,
        weights: str | DepthSpline = "per layer",
        before: torch.nn.Module | None = None,
        after: torch.nn.Module | None = None,
        buffer_layers: tuple[int, int] = (0, 0),
    ):
        super().__init__()
        _check(layers, final_time, scheme, weights, buffer_layers)
        first, last = buffer_layers
        modules = draw_layers(block, first + layers + last)
        middle = modules[first : first + layers]
        self.depth = layers
        self.final_time = float(final_time)
        self.scheme = scheme
        self.weights = weights
        self.before = before
        self.opening = _buffers(modules[:first], 0.0, scheme)
        self.block = stack(middle)
        self.closing = _buffers(modules[first + layers :], self.final_time, scheme)
        self.after = after
        self.timed = takes_time(self.block)
        if weights != "per layer":
            self._share(1 if weights == "shared" else weights.control_points)  # type: ignore[union-attr]
        self.gates = None
        if gates:
            self.gates = torch.nn.Parameter(self.steps)
        self.kernel = StackedBlock(self.block, scheme)

    def _share(self, count: int) -> None:
        """Keep the parameters of the first layers alone; control points may outnumber layers."""
        for name, parameter in list(self.block.named_parameters()):
            chosen = torch.arange(count, device=parameter.device) % self.depth
            kept = torch.nn.Parameter(parameter.detach()[chosen], parameter.requires_grad)
            for holder, key in LayerSlots(self.block).parameters[name]:
                holder[key] = kept

    def _like(self, values: torch.Tensor) -> torch.Tensor:
        """In the precision and on the device of the weights."""
        for parameter in self.block.parameters():
            if parameter.is_floating_point():
                return values.to(parameter.detach())
        return values.to(torch.get_default_dtype())

    @property
    def steps(self) -> torch.Tensor:
        """s_n of all layers: the gates, or T / N."""
        if self.gates is not None:
            return self.gates
        equal = torch.full((self.depth,), self.final_time / self.depth, dtype=torch.float64)
        return self._like(equal)

    @property
    def times(self) -> torch.Tensor:
        """The time at the left of each layer: n T / N, with gates too."""
        steps = torch.arange(self.depth, dtype=torch.float64) / self.depth
        return self._like(self.final_time * steps)

    def layers(self) -> Layers:
        """All N layers, differentiable functions of the parameters of this module."""
        parameters, buffers = LayerSlots(self.block).tensors()
        if self.weights == "shared":
            parameters = [p.expand(self.depth, *p.shape[1:]) for p in parameters]
        elif isinstance(self.weights, DepthSpline):
            B = self.weights.matrix(self.depth)
            parameters = [_combined(B, c) for c in parameters]
        return Layers(tuple(parameters), tuple(buffers), self.times, self.steps)

    def open(self, x: torch.Tensor) -> torch.Tensor:
        """The state u[0]: `before`, and the first buffer layers."""
        u = x if self.before is None else self.before(x)
        return self.opening(u)

    def close(self, u: torch.Tensor) -> torch.Tensor:
        """The output from the state u[N]: the last buffer layers, and `after`."""
        u = self.closing(u)
        return u if self.after is None else self.after(u)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The output, layer by layer."""
        u = self.open(x)
        for state in self._states(u, self.layers()):
            u = state
        return self.close(u)

    def trajectory(
        self, x: torch.Tensor, times: Sequence[float] | torch.Tensor | None = None
    ) -> torch.Tensor:
        """The states at the asked times, linear between layers.

        Parameters
        ----------
        x : tensor
        times : sequence of float in [0, T], optional
            Where layer n begins at `n T / N`; all N + 1 layer times by default.

        Returns
        -------
        tensor of shape (times, batch, ...)
        """
        u = self.open(x)
        states = torch.stack([u, *self._states(u, self.layers())])
        if times is None:
            return states
        asked = torch.as_tensor(times, dtype=torch.float64, device=states.device)
        T = self.final_time
        if asked.numel() and not 0.0 <= float(asked.min()) <= float(asked.max()) <= T:
            raise ValueError(
                f"ODENet.trajectory got times from {float(asked.min()):g} to "
                f"{float(asked.max()):g}; they must lie in [0, {T:g}]"
            )
        position = asked * (self.depth / T)
        nearest = position.round()  # rounding must not blend two states where one is meant
        position = torch.where((position - nearest).abs() < 1e-9, nearest, position)
        left = position.floor().clamp(max=self.depth - 1).long()
        share = (position - left).to(states).view(-1, *[1] * (states.dim() - 1))
        return torch.lerp(states[left], states[left + 1], share)

    def _states(self, u: torch.Tensor, layers: Layers) -> Iterator[torch.Tensor]:
        """The states after layer 0, 1, ..., one module call per stage."""
        count = len(layers)
        parameters = _per_layer(layers.parameters, count)
        buffers = _per_layer(layers.buffers, count)
        # Numbers are cheaper than tensors, where nothing differentiates by them.
        steps = layers.steps.tolist() if self.gates is None else layers.steps.unbind()
        times = layers.times.unbind() if self.timed else [0.0] * count
        F = self.block if self.timed else lambda t, u: self.block(u)
        slots = LayerSlots(self.block)
        for n in range(count):
            with slots.lent():
                slots.put(parameters[n], buffers[n])
                u = advance(self.scheme, F, times[n], u, steps[n])
            yield u

    def regularization(self, tikhonov: float = 0.0, smoothness: float = 0.0) -> torch.Tensor:
        """A penalty on the weights of the layers, differentiable.

        `h/2 sum_n (tikhonov |theta_n|^2 + smoothness |(theta_n - theta_{n-1}) / h|^2)`, h = T / N:
        integrals over [0, T], so that the first does not change when layers are copied. Source:
        Guenther et al., SIAM J. Math. Data Sci. 2 (2020), eq. (2.6), whose sums lack the h.

        Examples
        --------
        >>> net = ODENet(torch.nn.Linear(1, 1, bias=False), 2, final_time=1.0)
        >>> with torch.no_grad():
        ...     net.block.weight.copy_(torch.tensor([[[1.0]], [[3.0]]])).numel()
        2
        >>> float(net.regularization(tikhonov=1.0)), float(net.regularization(smoothness=1.0))
        (2.5, 4.0)
        """
        h = self.final_time / self.depth
        total = self._like(torch.zeros(()))
        for theta in self.layers().parameters:
            if tikhonov:
                total = total + 0.5 * h * tikhonov * theta.square().sum()
            if smoothness:
                total = total + 0.5 / h * smoothness * theta.diff(dim=0).square().sum()
        return total

    def layer(self, n: int) -> ResidualBlock:
        """Layer n as an ordinary module, a copy."""
        layers = self.layers()
        parameters = [p[n] for p in layers.parameters]
        block = layer_of(self.block, parameters, [b[n] for b in layers.buffers])
        step: Any = float(layers.steps[n].detach())
        if self.gates is not None:
            step = torch.nn.Parameter(self.gates.detach()[n].clone(), self.gates.requires_grad)
        return ResidualBlock(block, step, float(layers.times[n]), self.scheme)

    def extra_repr(self) -> str:
        return (
            f"layers={self.depth}, final_time={self.final_time:g}, scheme={self.scheme!r}, "
            f"gates={self.gates is not None}, weights={self.weights!r}"
        )

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "kernel"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.kernel = StackedBlock(self.block, self.scheme)


def advance(scheme: str, F: Callable, t: Any, u: torch.Tensor, s: Any) -> torch.Tensor:
    """One step of a scheme; s is a number or a tensor without axes.

    Examples
    --------
    >>> advance("heun", lambda t, u: u, 0.0, torch.ones(1), 1.0).tolist()
    [2.5]
    """
    k = F(t, u)
    if k.shape != u.shape:
        raise ValueError(
            f"the block gave a tensor of shape {tuple(k.shape)} for a state of shape "
            f"{tuple(u.shape)}; it must keep the shape: change sizes in `before` and `after`"
        )
    if scheme == "heun":
        k = 0.5 * (k + F(t + s, u + s * k))
    elif scheme == "rk4":
        second = F(t + 0.5 * s, u + 0.5 * s * k)
        third = F(t + 0.5 * s, u + 0.5 * s * second)
        k = (k + 2.0 * (second + third) + F(t + s, u + s * third)) / 6.0
    return u + s * k if isinstance(s, torch.Tensor) else torch.add(u, k, alpha=s)


def _per_layer(tensors: Sequence[torch.Tensor], count: int) -> list[tuple[torch.Tensor, ...]]:
    """Per layer the tensors of it; one unbind, whose gradient is one stack."""
    return list(zip(*(tensor.unbind() for tensor in tensors), strict=True)) or [()] * count


def _combined(B: Any, c: torch.Tensor) -> torch.Tensor:
    matrix = torch.as_tensor(B.copy()).to(c)
    return (matrix @ c.reshape(len(c), -1)).reshape(len(matrix), *c.shape[1:])


def _buffers(modules: Sequence[torch.nn.Module], time: float, scheme: str) -> torch.nn.Sequential:
    return torch.nn.Sequential(*(ResidualBlock(each, 1.0, time, scheme) for each in modules))


def _check_scheme(scheme: str) -> None:
    if scheme not in SCHEMES:
        near = difflib.get_close_matches(str(scheme), SCHEMES, 1, 0.0)[0]
        raise ValueError(
            f"got scheme {scheme!r}; it must be one of {', '.join(SCHEMES)} (did you mean {near}?)"
        )


def _check(layers: Any, final_time: Any, scheme: str, weights: Any, buffer_layers: Any) -> None:
    if not isinstance(layers, int) or layers < 1:
        raise ValueError(f"ODENet got {layers} layers; it needs at least 1")
    if not final_time > 0.0:
        raise ValueError(f"ODENet got final_time {final_time}; it must be positive")
    _check_scheme(scheme)
    if weights not in ("per layer", "shared") and not isinstance(weights, DepthSpline):
        raise ValueError(
            f"ODENet got weights {weights!r}; give 'per layer', 'shared' or a DepthSpline"
        )
    if len(buffer_layers) != 2 or min(buffer_layers) < 0:
        raise ValueError(
            f"ODENet got buffer_layers {buffer_layers}; give two numbers, of layers before and "
            "after, 0 or more"
        )
