"""Rates of dropout that differ between layers, as code that expects plain numbers meets them.

A block is one module for all layers, so a plain number in it is the same for all. A rate that is
not, as in stochastic depth, is a buffer; in the place of the number stands an object that is
computed with as the buffer of the layer at hand, and compared as a number between 0 and 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

__all__ = ["LayerRate", "give_rates", "has_rates", "plain_number"]

# Rates are kept as integers, which `.half()` leaves alone, in units so small that a rate of .001
# and more comes back as it was.
UNIT = 2.0**-62


class LayerRate:
    """A rate of dropout, or what is kept, of the layer whose tensors are in a module.

    Parameters
    ----------
    holder : nn.Module
    name : str
        Of its attribute; the buffer is called `name_of_layers`.
    kept : bool
        Whether this is 1 less the rate.

    Raises
    ------
    TypeError
        If it is used as a plain number: compared with others than 0 and 1, or converted.

    Examples
    --------
    >>> dropout = nn.Dropout(0.0)
    >>> give_rates(dropout, "p", [0.0, 0.25])
    >>> dropout.p, dropout.p > 0.0
    (0.0 to 0.25, True)
    >>> dropout.p * 0.5
    Traceback (most recent call last):
    TypeError: Dropout.p has a rate for each layer, which is computed with inside of a call only; \
assign one number for all, as 0.1, or make the network anew
    """

    def __init__(self, holder: nn.Module, name: str, kept: bool = False):
        self.holder = holder
        self.name = name
        self.kept = kept

    @property
    def buffer(self) -> str:
        """The name of the buffer."""
        return f"{self.name}_of_layers"

    def rates(self) -> Tensor:
        """Of the layer at hand or, outside of a call, of all layers, in double precision."""
        rate = self.holder._buffers[self.buffer].double() * UNIT  # type: ignore[union-attr]
        return 1.0 - rate if self.kept else rate

    def tensor(self) -> Tensor:
        """That of the layer at hand."""
        rate = self.rates()
        if rate.dim():
            raise TypeError(
                f"{type(self.holder).__name__}.{self.name} has a rate for each layer, which is "
                "computed with inside of a call only; assign one number for all, as 0.1, or make "
                "the network anew"
            )
        return rate

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        given = tree_map_only(cls, cls.tensor, (args, kwargs or {}))
        return func(*given[0], **given[1])

    def __rsub__(self, other: Any) -> Any:
        if isinstance(other, int | float) and other == 1:
            return LayerRate(self.holder, self.name, not self.kept)
        return other - self.tensor()

    def __sub__(self, other: Any) -> Any:
        return self.tensor() - other

    def __add__(self, other: Any) -> Any:
        return self.tensor() + other

    __radd__ = __add__

    def __mul__(self, other: Any) -> Any:
        return self.tensor() * other

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Any:
        return self.tensor() / other

    def __rtruediv__(self, other: Any) -> Any:
        return other / self.tensor()

    def __pow__(self, other: Any) -> Any:
        return self.tensor() ** other

    def __rpow__(self, other: Any) -> Any:
        return other ** self.tensor()

    def __neg__(self) -> Any:
        return -self.tensor()

    def __abs__(self) -> Any:
        return self.tensor()

    def _compared(self, other: Any, with_zero: bool, with_one: bool) -> Any:
        """As of a number between 0 and 1, also where the rate is 0: dropout then keeps all."""
        if not isinstance(other, int | float):
            return NotImplemented
        if 0.0 < other < 1.0:
            raise TypeError(self._refusal())
        return with_zero if other <= 0.0 else with_one

    def __eq__(self, other: object) -> Any:
        return self is other or self._compared(other, False, False)

    def __lt__(self, other: Any) -> Any:
        return self._compared(other, False, True)

    def __gt__(self, other: Any) -> Any:
        return self._compared(other, True, False)

    __le__, __ge__ = __lt__, __gt__
    __hash__ = object.__hash__

    def __bool__(self) -> bool:
        return True

    def __float__(self) -> float:
        raise TypeError(self._refusal())

    def _refusal(self) -> str:
        return (
            f"the block uses {self.name} of its {type(self.holder).__name__}, which differs "
            "between layers, as a plain number; give all layers the same rate, or use it in "
            "dropout, in bernoulli_(1 - rate) and in arithmetic with tensors only"
        )

    def __round__(self, digits: int = 0) -> LayerRate:  # for the pictures of modules
        return self

    def __format__(self, spec: str) -> str:
        rates = self.rates().detach()
        if rates.is_meta or not rates.numel():
            return "..."
        return " to ".join(format(float(x), spec) for x in (rates.min(), rates.max()))

    def __repr__(self) -> str:
        return format(self)


def give_rates(module: nn.Module, name: str, rates: Sequence[float] | Tensor) -> None:
    """Make an attribute of a module a rate for each layer.

    Parameters
    ----------
    module : nn.Module
        Changed in place; its new buffer is not saved, as rates never are.
    name : str
    rates : sequence of float in [0, 1), or the buffer of another module

    Examples
    --------
    >>> dropout = nn.Dropout(0.0)
    >>> give_rates(dropout, "p", [0.0, 0.25])
    >>> dropout
    Dropout(p=0.0 to 0.25, inplace=False)
    """
    if not isinstance(rates, Tensor):
        rates = torch.tensor([round(rate / UNIT) for rate in rates], dtype=torch.int64)
    rate = LayerRate(module, name)
    module.register_buffer(rate.buffer, rates, persistent=False)
    setattr(module, name, rate)


def plain_number(rate: Any) -> Any:
    """A rate of a module that is that of one layer, as a float; all else as it is.

    Examples
    --------
    >>> dropout = nn.Dropout(0.0)
    >>> give_rates(dropout, "p", [0.25])
    >>> plain_number(dropout.p), plain_number(0.5)
    (0.25, 0.5)
    """
    return float(rate.rates()) if isinstance(rate, LayerRate) else rate


def has_rates(block: nn.Module) -> bool:
    """Whether rates in a block differ between layers.

    Examples
    --------
    >>> has_rates(nn.Sequential(nn.Dropout(0.5)))
    False
    """
    return any(isinstance(x, LayerRate) for part in block.modules() for x in vars(part).values())
