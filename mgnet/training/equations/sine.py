"""Networks of sines: smooth, with derivatives that are networks of the same kind.

Source: Sitzmann et al., arXiv 2006.09661 (SIREN), section 3.2 and the supplement.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from mgnet.limits import is_count, is_number, shown

__all__ = ["Sine", "sine_network"]

LEAST, MOST = 1e-6, 1e6  # frequencies


class Sine(torch.nn.Module):
    """The activation `sin(frequency x)` with one frequency for the whole layer.

    Parameters
    ----------
    frequency : float
        Frequency, positive and dimensionless: radians per unit of the layer's values.
    learn : bool
        Whether the frequency is a trainable parameter, with `frequency` as its initial value.
    dtype : torch.dtype
        Type of the parameter.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or is out of range.

    Examples
    --------
    >>> Sine(torch.pi)(torch.tensor([0.0, 0.5]))
    tensor([0., 1.])
    >>> [name for name, _ in Sine(2.0, learn=True).named_parameters()]
    ['frequency']
    """

    __call__: Callable[..., torch.Tensor]
    frequency: float | torch.nn.Parameter

    def __init__(
        self, frequency: float = 1.0, learn: bool = False, *, dtype: torch.dtype = torch.float64
    ):
        super().__init__()
        _check_frequency("Sine", frequency)
        if not isinstance(learn, bool):
            raise TypeError(f"Sine got learn {shown(learn)}; it must be True or False")
        # A number works in any precision, and so does a parameter of shape ().
        number = torch.tensor(float(frequency), dtype=dtype)
        self.frequency = torch.nn.Parameter(number) if learn else float(frequency)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., width) to (..., width)."""
        return torch.sin(self.frequency * x)

    def extra_repr(self) -> str:
        learnt = isinstance(self.frequency, torch.nn.Parameter)
        number = float(torch.as_tensor(self.frequency).detach())
        return f"{number:g}" + (", learn=True" if learnt else "")


def sine_network(
    widths: Sequence[int],
    frequency: float = 1.0,
    *,
    learn: bool = False,
    dtype: torch.dtype = torch.float64,
    generator: torch.Generator | None = None,
) -> torch.nn.Sequential:
    """Linear layers and sines, initialized so that values have the same scale at any depth.

    Weights are uniform in `[-1, 1] / inputs` for the first layer and in `[-1, 1] sqrt(6 / inputs) /
    frequency` for all other layers; biases are uniform in `[-1, 1] / sqrt(inputs)`, as in the
    authors' code. Inputs should lie in [-1, 1].

    Parameters
    ----------
    widths : sequence of int
        Numbers of inputs, of neurons in the hidden layers, and of outputs.
    frequency : float
        Frequency of all sines. The first layer has waves of up to `frequency / inputs` radians per
        unit of its inputs. Use about 1 for smooth solutions, and 30 for pictures (the authors'
        choice).
    learn : bool
        Whether the frequency of each hidden layer is a trainable parameter.
    dtype : torch.dtype
        Type of all parameters, float64 or float32.
    generator : torch.Generator, optional
        Source of random numbers; seed 0 by default.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or is out of range.

    Examples
    --------
    >>> network = sine_network([2, 16, 16, 1], learn=True)
    >>> network(torch.zeros(5, 2, dtype=torch.float64)).shape
    torch.Size([5, 1])
    >>> sum(p.numel() for p in network.parameters())  # 2 of them are frequencies
    339
    """
    if not _are_widths(widths):
        raise ValueError(
            f"sine_network got widths {shown(widths)}; give at least two positive integers, such "
            "as [2, 20, 20, 1]"
        )
    _check_frequency("sine_network", frequency)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise TypeError(
            f"sine_network got dtype {shown(dtype)}; give torch.float64 or torch.float32"
        )
    generator = generator or torch.Generator().manual_seed(0)
    layers: list[torch.nn.Module] = []
    with torch.no_grad():
        for inputs, outputs in zip(widths[:-1], widths[1:], strict=True):
            if layers:
                layers.append(Sine(frequency, learn, dtype=dtype))
            linear = torch.nn.Linear(int(inputs), int(outputs), dtype=dtype)
            reach = math.sqrt(6.0 / inputs) / frequency if layers else 1.0 / inputs
            linear.weight.copy_(_even(linear.weight, reach, generator))
            linear.bias.copy_(_even(linear.bias, 1.0 / math.sqrt(inputs), generator))
            layers.append(linear)
    return torch.nn.Sequential(*layers)


def _even(like: torch.Tensor, reach: float, generator: torch.Generator) -> torch.Tensor:
    """Uniform in [-reach, reach]; drawn in float64, so that the seed fixes the values."""
    drawn = torch.rand(
        like.shape, generator=generator, dtype=torch.float64, device=generator.device
    )
    return (2.0 * drawn - 1.0) * reach


def _are_widths(widths: Any) -> bool:
    listed = isinstance(widths, Sequence) and not isinstance(widths, str)
    return listed and len(widths) > 1 and all(map(is_count, widths))


def _check_frequency(owner: str, frequency: Any) -> None:
    if not is_number(frequency, LEAST, MOST):
        raise ValueError(
            f"{owner} got frequency {shown(frequency)}; it must be a number from {LEAST:g} to "
            f"{MOST:g}: scale the inputs"
        )
