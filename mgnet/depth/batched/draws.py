"""Random numbers inside a block: masks are functions of a key, and all other draws are refused.

An iteration over the layers has a solution only if every evaluation of a layer is the same. Each
random number of dropout is therefore a hash of the key of the layer, the number of the draw within
the layer, and the number of the entry, so it is the same in serial and batched evaluation, in the
adjoint and on every device. `torch.nn.functional.dropout` and its variants, attention and
stochastic depth all use the few random operations that are replaced here.
"""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mgnet.depth.batched.surroundings import innermost

__all__ = ["BITS", "KEY", "Draws", "FusedAttentionError", "KeyedDraws", "mixed"]

BITS = 31
KEY = "dropout_key"  # name of a stacked block's buffer with a key for each layer
CHECKPOINT = "torch.utils.checkpoint"
MASKS = "aten::bernoulli", "aten::bernoulli_", "aten::native_dropout"


class Draws:
    """A record of the random numbers that a block draws.

    Attributes
    ----------
    seen : bool
        Whether the block was observed to draw masks.
    recomputes : bool
        Whether the block was observed to use `torch.utils.checkpoint`.
    calls : int
        Number of passes with masks so far; whether a pass has masks may become known only while it
        runs.

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

    def __init__(self, seen: bool = False) -> None:
        self.seen = seen
        self.recomputes = False
        self.remedy = ""  # remedy in the message if numbers are drawn without a key
        self.calls = 0
        self.made: Any = None, None  # the origin of the last keys, and these keys
        self._counted = True

    def begin(self, sure: bool) -> None:
        """Begin a pass; if `sure`, it is known to have masks."""
        self._counted = sure
        self.calls += sure

    def note(self) -> None:
        """Note that the block draws a mask."""
        self.calls += not self._counted
        self._counted = self.seen = True


class CheckpointFoundError(RuntimeError):
    """Raised if the block itself uses `torch.utils.checkpoint`."""


class FusedAttentionError(RuntimeError):
    """Raised if attention with dropout is a single operation, which draws its own mask."""


class KeyedDraws(TorchDispatchMode):
    """One call of a block whose masks are functions of a key.

    Parameters
    ----------
    key : Tensor of no axes, or None
        The key of the layer. If it is None, masks are refused as well.
    draws : Draws
        The record in which masks are noted.
    training : bool
        The mode of the block, for messages.
    strict : bool
        Whether random numbers without a key are refused; otherwise PyTorch's generator draws them.
    looks : bool
        Whether it is an error if the block records a graph with checkpoints.
    repeats : bool
        Whether the number of a draw is stored in PyTorch's generator, whose state a checkpoint
        restores when it calls part of the block again.

    Raises
    ------
    ValueError
        If the block draws random numbers that no key determines.
    CheckpointFoundError
        If `looks` is set and the block records a graph with checkpoints.
    FusedAttentionError
        If attention draws its own mask. Repeat the call with `sdpa_kernel(SDPBackend.MATH)`.

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
        self,
        key: Tensor | None,
        draws: Draws,
        training: bool = True,
        strict: bool = True,
        looks: bool = True,
        repeats: bool = False,
    ):
        super().__init__()
        self.key = None if key is None else innermost(key)
        self.draws = draws
        self.training = training
        self.strict = strict
        self.outside = _hooks() if looks else None
        self.looks, self.graph = looks, torch.is_grad_enabled()
        self.repeats = repeats
        self.number = 0
        self.last: int | None = None

    def __enter__(self) -> KeyedDraws:
        if self.repeats:
            self.state = torch.default_generator.get_state()
            torch.default_generator.manual_seed(0)
        return super().__enter__()

    def __exit__(self, *told: Any) -> None:
        super().__exit__(*told)
        if self.repeats:
            torch.default_generator.set_state(self.state)

    def end(self) -> None:
        """End the call; later operations repeat parts of it."""
        self.last = torch.default_generator.initial_seed()

    def _next(self) -> int:
        """The number of the next draw."""
        if not self.repeats:
            self.number += 1
            return self.number - 1
        number = torch.default_generator.initial_seed()
        if self.last is not None and number >= self.last:
            raise RuntimeError(
                "the block draws masks in a torch.utils.checkpoint with preserve_rng_state=False, "
                "so that they differ in the backward pass; omit that argument"
            )
        torch.default_generator.manual_seed(number + 1)
        return number

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # PyTorch ends the process if an operation that only queries a tensor ("prim") raises.
        if self.looks and func.namespace == "aten":
            self._look(func)
        if torch.Tag.nondeterministic_seeded in func.tags:
            schema = func._schema.arguments
            given = {x.name: x.default_value for x in schema} | (kwargs or {})
            given |= {x.name: value for x, value in zip(schema, args, strict=False)}
            if not _is_idle(given):
                return self._drawn(func, given, args, kwargs or {})
        return func(*args, **(kwargs or {}))

    def _look(self, func: Any) -> None:
        if _hooks() not in (None, self.outside):
            raise CheckpointFoundError(str(func))
        if self.graph and not torch.is_grad_enabled() and _is_reentrant(sys._getframe()):
            raise ValueError(
                "the block uses torch.utils.checkpoint with use_reentrant=True, which calls it "
                "again with the weights of all layers in it; give use_reentrant=False"
            )

    def _drawn(self, func: Any, given: dict[str, Any], args: Any, kwargs: Any) -> Any:
        masks = func._schema.name in MASKS and given.get("generator") is None
        fused = "dropout_p" in given and self.key is not None
        if not self.strict and (self.key is None or not (masks or fused)):
            return func(*args, **kwargs)
        if fused:
            self.draws.note()
            raise FusedAttentionError(str(func))
        if not masks or self.key is None:
            raise ValueError(self._refusal(func, masks))
        self.draws.note()
        if "train" in given:
            x, keep = given["input"], 1.0 - given["p"]
            mask = self._mask(self.key, x, keep)
            return x * (mask.to(x.dtype) * (1.0 / keep if keep else 0.0)), mask
        target = given["self"]
        mask = self._mask(self.key, target, given.get("p", target)).to(target.dtype)
        return target.copy_(mask) if func._schema.is_mutable else mask

    def _refusal(self, func: Any, masks: bool) -> str:
        what = f"the block draws random numbers by {func}, so two evaluations of a layer differ; "
        if self.draws.remedy:
            return what + self.draws.remedy
        if not masks:
            return what + (
                "dropout and torch.bernoulli without a generator are the only random functions "
                "whose numbers an ODENet keeps: use these, or draw before the layers"
            )
        if not self.training:
            return what + "give the function training=self.training, as it is in evaluation mode"
        return what + "use nn.Dropout modules, whose masks an ODENet keeps"

    def _mask(self, layer: Tensor, like: Tensor, keep: Any) -> Tensor:
        """Whether each entry is kept."""
        key = mixed(layer.to(like.device) + 0x9E3779B * (1 + self._next()))
        if isinstance(keep, Tensor):
            bound: Any = keep.double() * 2.0**BITS
        elif 0.0 <= keep <= 1.0:
            bound = round(keep * 2**BITS)
        else:
            raise ValueError(f"the block draws by the probability {keep}; it must be in [0, 1]")
        entries = torch.arange(like.numel(), device=like.device).reshape(like.shape)
        return mixed(mixed(entries) + key) < bound


def _hooks() -> Any:
    """The hooks of the innermost `torch.utils.checkpoint`, if it intercepts saved tensors."""
    found = torch._C._autograd._top_saved_tensors_default_hooks(False)  # type: ignore[attr-defined]
    if found is None or getattr(found[0], "__module__", "") != CHECKPOINT:
        return None
    return found[0]


def _is_reentrant(frame: FrameType | None) -> bool:
    """Whether a frame was called from the forward pass of a reentrant checkpoint."""
    while frame is not None and frame.f_code.co_name != "keyed_call":
        code = frame.f_code
        if code.co_name == "forward" and frame.f_globals.get("__name__") == CHECKPOINT:
            return True
        frame = frame.f_back
    return False


def _is_idle(given: dict[str, Any]) -> bool:
    """Whether an operation that can draw random numbers draws none with these arguments."""
    never = given.get("dropout_p", given.get("dropout")) == 0.0
    return never or given.get("training", given.get("train")) is False


def mixed(x: Tensor) -> Tensor:
    """Compute 31 random-looking bits from an integer; after a hash of Wellons (lowbias32).

    Examples
    --------
    >>> mixed(torch.tensor([0, 1, 2]))
    tensor([        0, 138048333, 666882385])
    """
    x = x & 0x7FFFFFFF
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & 0x7FFFFFFF
    x = ((x ^ (x >> 15)) * 0x46CA68B5) & 0x7FFFFFFF
    return x ^ (x >> 16)
