"""Box initialization: the kink of every neuron lies inside the images of the input box.

A neuron `act(k n.(x - p))` bends on the hyperplane through p with the normal n. Cyr et al., arXiv
1912.04862, section 3, draw p uniformly in the box that contains the outputs of the previous layer,
and choose k so that the neuron uses its whole range on that box. However, the images of the inputs
fill less and less of the box with depth. For example, a plain ReLU network of width 32 on one input
had 33 independent features (with the constant) after 1 layer, 13 after 8, 6 after 16, and a
constant output after 50. Therefore only the first layer follows the paper here. From the second
layer on, p is the image of a random point of the box, and all neurons of a layer share one k, the
largest for which no neuron leaves its range at the images of 512 random points. The same network
then keeps 33 independent features after 100 layers. (A separate k for each neuron keeps them too,
but makes deep networks too rough to train well. After 100 steps of LS + Adam on sin(2 pi x), 8
layers, the MSE is 5e-6 instead of 4e-7, and the recipe of the paper gives 4e-6.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch

__all__ = ["Residual", "box_init_"]

_POINTS = 512  # random points of the box whose images are computed in all layers
_MARGIN = 0.01  # smallest distance of a bend from the end of the images, relative to their range
_TANH = 2.0  # largest argument of a tanh: there it bends and is not flat

Bound = torch.Tensor | tuple[float, ...] | list[float] | float


class Residual(torch.nn.Module):
    """A residual block: `x + step * inner(x)`.

    Parameters
    ----------
    inner : torch.nn.Module
        Module that maps a tensor to one of the same shape.
    step : float
        Step size, dimensionless and positive; if the blocks are layers of an ODE net, the step of
        Euler's method.

    Raises
    ------
    ValueError
        If the step is not positive.

    Examples
    --------
    >>> block = Residual(torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU()))
    >>> block(torch.zeros(5, 8)).shape
    torch.Size([5, 8])
    """

    __call__: Callable[..., torch.Tensor]

    def __init__(self, inner: torch.nn.Module, step: float = 1.0):
        super().__init__()
        if step <= 0.0:
            raise ValueError(f"Residual got step {step}; it must be positive")
        self.inner = inner
        self.step = step

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map x of shape (..., width) to an output of the same shape."""
        return x + self.step * self.inner(x)

    def extra_repr(self) -> str:
        return "" if self.step == 1.0 else f"step={self.step:g}"


class _Image(NamedTuple):
    """Image of the input box in a layer: the images of random points and their bounding box."""

    points: torch.Tensor  # (_POINTS, width)
    low: torch.Tensor  # (width,)
    high: torch.Tensor
    exact: bool  # whether the whole box is filled, as for the input box


Layer = tuple[torch.nn.Linear, torch.nn.Module | None]  # None: no activation


def box_init_(
    network: torch.nn.Sequential,
    box: tuple[Bound, Bound],
    generator: torch.Generator | None = None,
) -> torch.nn.Sequential:
    """Draw the weights and biases of all hidden layers so that no neuron is dead or linear.

    Every hyperplane of the first layer cuts the input box, and those of the other layers cut the
    images of the box. ReLU layers then have values in [0, 1], tanh layers in [-0.97, 0.97], and
    each of R residual blocks widens the box of its inputs by a factor of at most 1 + 1/R, so that
    it grows by less than a factor of e at any depth. From the second layer on, this holds for the
    images of 512 random points; those of other points may lie outside these ranges. A last linear
    layer without activation is not changed; `LastLayer` solves for it.

    Parameters
    ----------
    network : torch.nn.Sequential
        Sequence of `Linear`, `ReLU`, `Tanh`, and `Residual` around such a sequence; changed in
        place.
    box : (low, high)
        Box of the inputs: two numbers, or two tensors of shape (inputs,).
    generator : torch.Generator, optional
        Source of random numbers; seed 0 by default.

    Returns
    -------
    torch.nn.Sequential
        The network itself.

    Raises
    ------
    ValueError
        If a layer is not of one of these kinds or has no bias, or if the box is empty.

    Examples
    --------
    >>> layers = [torch.nn.Linear(1, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1)]
    >>> network = box_init_(torch.nn.Sequential(*layers), (-2.0, 3.0))
    >>> bends = -network[0].bias / network[0].weight[:, 0]
    >>> bool((bends > -2.0).all() and (bends < 3.0).all())
    True
    """
    generator = generator or torch.Generator().manual_seed(0)
    parts = list(_parts(network))
    if isinstance(parts[-1], tuple) and parts[-1][1] is None:
        parts.pop()
    if not parts:
        return network
    image = _input_image(_inputs_of(parts[0]), box, generator)
    blocks = sum(isinstance(part, _Block) for part in parts)
    with torch.no_grad():
        for part in parts:
            if isinstance(part, _Block):
                image = _init_block_(part, blocks, image, generator)
            else:
                image = _init_layer_(*part, None, image, generator)
    return network


class _Block(NamedTuple):
    layers: list[Layer]
    step: float


def _parts(network: torch.nn.Module) -> Iterator[Layer | _Block]:
    """The linear layers, each with its activation, and the residual blocks, in order."""
    pending: torch.nn.Linear | None = None
    for module in _flat(network):
        if isinstance(module, torch.nn.ReLU | torch.nn.Tanh):
            if pending is None:
                raise ValueError(
                    f"box_init_ got {module} without a Linear before it; put one there"
                )
            yield pending, module
            pending = None
            continue
        if pending is not None:
            yield pending, None
        pending = None
        if isinstance(module, Residual):
            inner = list(_parts(module.inner))
            if any(isinstance(part, _Block) for part in inner):
                raise ValueError("box_init_ got a Residual inside a Residual; put them in a row")
            yield _Block([part for part in inner if not isinstance(part, _Block)], module.step)
        elif isinstance(module, torch.nn.Linear) and module.bias is not None:
            pending = module
        else:
            raise ValueError(
                f"box_init_ got {module}; it supports Sequential, Linear with bias, ReLU, Tanh and "
                "mgnet.training.Residual"
            )
    if pending is not None:
        yield pending, None


def _flat(module: torch.nn.Module) -> Iterator[torch.nn.Module]:
    if not isinstance(module, torch.nn.Sequential):
        yield module
        return
    for child in module:
        yield from _flat(child)


def _inputs_of(part: Layer | _Block) -> int:
    return (part.layers if isinstance(part, _Block) else [part])[0][0].in_features


def _input_image(inputs: int, box: tuple[Bound, Bound], generator: torch.Generator) -> _Image:
    low, high = (
        torch.as_tensor(side, dtype=torch.float64).expand(inputs).contiguous() for side in box
    )
    if not bool((low < high).all()):
        raise ValueError(f"box_init_ got the box {box}; its low side must be below its high side")
    drawn = torch.rand(_POINTS, inputs, generator=generator, dtype=torch.float64)
    return _Image(low + (high - low) * drawn, low, high, True)


def _init_layer_(
    linear: torch.nn.Linear,
    activation: torch.nn.Module | None,
    bound: torch.Tensor | None,
    image: _Image,
    generator: torch.Generator,
) -> _Image:
    """Draw one layer; its values stay in [0, bound] for ReLU, else in [-bound, bound]."""
    shape = linear.weight.shape
    normal = torch.randn(shape, generator=generator, dtype=torch.float64)
    normal /= image.high - image.low
    pick = torch.randint(_POINTS, shape[:1], generator=generator)
    bend = (normal * image.points[pick]).sum(1)
    if image.exact:  # over the whole box, from corner to corner
        top = torch.maximum(normal * image.low, normal * image.high).sum(1)
        bottom = torch.minimum(normal * image.low, normal * image.high).sum(1)
    else:
        projected = image.points @ normal.T
        top, bottom = projected.max(0).values, projected.min(0).values
    bend = torch.minimum(bend, top - _MARGIN * (top - bottom))
    if isinstance(activation, torch.nn.ReLU):
        reach = top - bend
        argument = torch.ones_like(reach) if bound is None else bound
    else:
        reach = torch.maximum(top - bend, bend - bottom)
        argument = torch.full_like(reach, _TANH) if bound is None else bound
        if isinstance(activation, torch.nn.Tanh) and bound is not None:
            argument = torch.atanh(bound.clamp(max=torch.tanh(torch.tensor(_TANH))))
    if not image.exact:
        reach = reach.max()  # one slope for all neurons, see above
    slope = argument / reach
    weight = slope.unsqueeze(1) * normal
    linear.weight.copy_(weight)
    linear.bias.copy_(-slope * bend)
    values = image.points @ weight.T - slope * bend
    if activation is not None:
        values = activation(values)
    edge = torch.tanh(argument) if isinstance(activation, torch.nn.Tanh) else argument
    low = torch.zeros_like(edge) if isinstance(activation, torch.nn.ReLU) else -edge
    return _Image(values, low, edge, False)


def _init_block_(block: _Block, blocks: int, image: _Image, generator: torch.Generator) -> _Image:
    """Draw a residual block that widens the box by at most 1 / blocks of its width."""
    inner = image
    for number, (linear, activation) in enumerate(block.layers):
        bound = None
        if number == len(block.layers) - 1:
            bound = (image.high - image.low) / (blocks * block.step)
            if not isinstance(activation, torch.nn.ReLU):
                bound = 0.5 * bound  # on both sides
        inner = _init_layer_(linear, activation, bound, inner, generator)
    return _Image(
        image.points + block.step * inner.points,
        image.low + block.step * inner.low,
        image.high + block.step * inner.high,
        False,
    )
