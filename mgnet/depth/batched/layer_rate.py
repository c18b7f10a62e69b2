"""Dropout rates that differ between layers, as objects for code that expects plain numbers.

A block is one module for all layers, so plain numbers in it are the same for all layers. A rate
that differs between layers, as in stochastic depth, is therefore stored as a buffer, and an object
replaces the plain number. In arithmetic, the object acts as the buffer of the current layer; in
comparisons, as a number between 0 and 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

__all__ = ["LayerRate", "give_rates", "has_rates", "plain_number"]

# Rates are stored as integers, which `.half()` does not change, in units so small that rates of
# 0.001 and more are restored exactly.
UNIT = 2.0**-62


class LayerRate:
    """A rate of dropout, or of retention, for the layer whose tensors are in a module.

    Parameters
    ----------
    holder : nn.Module
        The module with the rate.
    name : str
        Name of the module's attribute; the buffer is called `name_of_layers`.
    kept : bool
        Whether this is 1 minus the rate.

    Raises
    ------
    TypeError
        If it is used as a plain number: converted, or compared with numbers other than 0 and 1.

    Examples
    --------
    >>> dropout = nn.Dropout(0.0)
    >>> give_rates(dropout, "p", [0.0, 0.25])
    >>> dropout.p, dropout.p > 0.0
    (0.0 to 0.25, True)
    >>> dropout.p * 0.5
    Traceback (most recent call last):
    TypeError: Dropout.p has a rate for each layer, which is computed with inside a call only; \
assign one number for all, such as 0.1, or create the network again
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
        """The rate of the current layer or, outside a call, of all layers, in double precision."""
        rate = self.holder._buffers[self.buffer].double() * UNIT  # type: ignore[union-attr]
        return 1.0 - rate if self.kept else rate

    def tensor(self) -> Tensor:
        """The rate of the current layer as a tensor.

        Raises
        ------
        TypeError
            If the rate is used outside a call.
        """
        rate = self.rates()
        if rate.dim():
            raise TypeError(
                f"{type(self.holder).__name__}.{self.name} has a rate for each layer, which is "
                "computed with inside a call only; assign one number for all, such as 0.1, or "
                "create the network again"
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
        """Compare as a number strictly between 0 and 1, even if the rate of a layer is 0."""
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

    def __round__(self, digits: int = 0) -> LayerRate:  # used when modules are printed
        return self

    def __format__(self, spec: str) -> str:
        rates = self.rates().detach()
        if rates.is_meta or not rates.numel():
            return "..."
        return " to ".join(format(float(x), spec) for x in (rates.min(), rates.max()))

    def __repr__(self) -> str:
        return format(self)


def give_rates(module: nn.Module, name: str, rates: Sequence[float] | Tensor) -> None:
    """Give an attribute of a module a rate for each layer.

    Parameters
    ----------
    module : nn.Module
        The module, changed in place; its new buffer is not saved, just as plain rates are not
        saved.
    name : str
        Name of the attribute.
    rates : sequence of float in [0, 1), or the buffer of another module
        The rates.

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
    """Convert a module's rate for one layer to a float; other values are unchanged.

    Examples
    --------
    >>> dropout = nn.Dropout(0.0)
    >>> give_rates(dropout, "p", [0.25])
    >>> plain_number(dropout.p), plain_number(0.5)
    (0.25, 0.5)
    """
    return float(rate.rates()) if isinstance(rate, LayerRate) else rate


def has_rates(block: nn.Module) -> bool:
    """Whether dropout rates in a block differ between layers.

    Examples
    --------
    >>> has_rates(nn.Sequential(nn.Dropout(0.5)))
    False
    """
    return any(isinstance(x, LayerRate) for part in block.modules() for x in vars(part).values())
