"""Random numbers inside a block: masks are functions of a key, all else is refused.

An iteration over the layers has a solution only if a layer is the same in all its evaluations. So
what dropout draws, wherever it is called, is a hash of the key of the layer, the number of the draw
in it, and the number of the entry: the same in serial and batched evaluation, in the adjoint and on
every device. `torch.nn.functional.dropout` and its kin, attention and stochastic depth all draw by
the few operations that are replaced here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["BITS", "KEY", "Draws", "FusedAttentionError", "KeyedDraws", "mixed"]

BITS = 31
KEY = "dropout_key"  # the buffer of a stacked block with a key for each layer
MASKS = "aten::bernoulli", "aten::bernoulli_", "aten::native_dropout"


class Draws:
    """What is known of the random numbers that a block draws.

    Attributes
    ----------
    seen : bool
        Whether the block was seen to draw masks.
    calls : int
        Passes with masks so far. That a pass has masks may turn out while it is under way.

    Examples
    --------
    >>> draws = Draws()
    >>> draws.begin(sure=False)
    >>> draws.note()
    >>> draws.note()
    >>> draws.begin(sure=draws.seen)
    >>> draws.calls
    2
    """

    def __init__(self) -> None:
        self.seen = False
        self.calls = 0
        self.made: Any = None  # seed, call and tensor of the keys that wait for a first draw
        self._counted = True

    def begin(self, sure: bool) -> None:
        """A pass begins, which is sure to have masks or not."""
        self._counted = sure
        self.calls += sure

    def note(self) -> None:
        """The block draws a mask."""
        self.calls += not self._counted
        self._counted = self.seen = True


class FusedAttentionError(RuntimeError):
    """Attention with dropout in one operation, which makes its own mask."""


class KeyedDraws(TorchDispatchMode):
    """One call of a block, whose masks are functions of a key.

    Parameters
    ----------
    key : Tensor of no axes, or None
        Of the layer. Without one masks are refused, too.
    draws : Draws
        Where masks are noted.
    training : bool
        Of the block, for messages.
    strict : bool
        Whether random numbers that are not masks are refused, or left to PyTorch's generator.

    Raises
    ------
    ValueError
    FusedAttentionError
        Then call the block again with `sdpa_kernel(SDPBackend.MATH)`.

    Examples
    --------
    >>> x = torch.ones(1000)
    >>> def dropped(key):
    ...     with KeyedDraws(torch.tensor(key), Draws()):
    ...         return torch.nn.functional.dropout(x, 0.25)
    >>> bool((dropped(1) == dropped(1)).all()), bool((dropped(1) == dropped(2)).all())
    (True, False)
    """

    def __init__(
        self, key: Tensor | None, draws: Draws, training: bool = True, strict: bool = True
    ):
        super().__init__()
        self.key = key
        self.draws = draws
        self.training = training
        self.strict = strict
        self.number = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags:
            schema = func._schema.arguments
            given = {x.name: x.default_value for x in schema} | (kwargs or {})
            given |= {x.name: value for x, value in zip(schema, args, strict=False)}
            if not _is_idle(given):
                return self._drawn(func, given, args, kwargs or {})
        return func(*args, **(kwargs or {}))

    def _drawn(self, func: Any, given: dict[str, Any], args: Any, kwargs: Any) -> Any:
        masks = func._schema.name in MASKS and given.get("generator") is None
        if not masks and not self.strict and "dropout_p" not in given:
            return func(*args, **kwargs)
        if not masks and "dropout_p" in given and self.key is not None:
            self.draws.note()
            raise FusedAttentionError(str(func))
        if not masks or self.key is None:
            raise ValueError(self._refusal(func, masks))
        self.draws.note()
        if "train" in given:
            x, keep = given["input"], 1.0 - given["p"]
            mask = self._mask(x, keep)
            return x * (mask.to(x.dtype) * (1.0 / keep if keep else 0.0)), mask
        target = given["self"]
        mask = self._mask(target, given.get("p", target)).to(target.dtype)
        return target.copy_(mask) if func._schema.is_mutable else mask

    def _refusal(self, func: Any, masks: bool) -> str:
        what = f"the block draws random numbers by {func}, so two evaluations of a layer differ; "
        if not masks:
            return what + (
                "dropout and torch.bernoulli without a generator are the only random functions "
                "whose numbers an ODENet keeps: use these, or draw before the layers"
            )
        if not self.training:
            return what + "give the function training=self.training, as it is in evaluation mode"
        return what + "use nn.Dropout modules, whose masks an ODENet keeps"

    def _mask(self, like: Tensor, keep: Any) -> Tensor:
        """Whether each entry is kept."""
        assert self.key is not None
        key = mixed(mixed(self.key.to(like.device)) + (0x9E3779B + self.number))
        self.number += 1
        if isinstance(keep, Tensor):
            bound: Any = keep.double() * 2.0**BITS
        elif 0.0 <= keep <= 1.0:
            bound = round(keep * 2**BITS)
        else:
            raise ValueError(f"the block draws by the probability {keep}; it must be in [0, 1]")
        entries = torch.arange(like.numel(), device=like.device).reshape(like.shape)
        return mixed(mixed(entries) + key) < bound


def _is_idle(given: dict[str, Any]) -> bool:
    """Whether an operation that may draw does not."""
    never = given.get("dropout_p", given.get("dropout")) == 0.0
    return never or given.get("training", given.get("train")) is False


def mixed(x: Tensor) -> Tensor:
    """31 bits that look random from an integer; after a hash of Wellons (lowbias32).

    Examples
    --------
    >>> mixed(torch.tensor([0, 1, 2]))
    tensor([         0, 1753845952,  507741184])
    """
    x = x & 0x7FFFFFFF
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & 0x7FFFFFFF
    x = ((x ^ (x >> 15)) * 0x46CA68B5) & 0x7FFFFFFF
    return x ^ (x >> 16)
