"""Inputs for tracing a layer: tensors without values, some of whose sizes are unknown.

A trace with symbolic sizes serves many shapes. If the block, or PyTorch, queries a symbolic size
(is the batch larger than 8? are these axes equally long?), the trace contains the answer for the
current shape, and its conditions contain the query: `StandIns.hold` checks whether all answers
would be the same for a different shape. PyTorch's compiler uses the same mechanism.

Some of PyTorch's own rules for `vmap` (of norms, `cat`, `gather`) query all sizes as plain numbers,
to detect empty tensors. Inside `trusting`, such a query does not add a condition. Programs made in
this way are compared at other sizes (see `traces.py`), which reveals numbers that were built in.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._subclasses import FakeTensor, FakeTensorMode

from mgnet.depth.batched.graphs import ShapeError

__all__ = ["StandIns", "mode_for", "quiet", "spare_mode", "trusting"]

SHAPES = 1024  # largest number of shapes whose answers are stored
LOUD = "torch._subclasses.fake_tensor", "torch.fx.experimental.symbolic_shapes"


class _Mode(FakeTensorMode):
    """A mode that, while it trusts the caller, converts sizes to numbers without conditions."""

    trusts = False

    def dispatch(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> object:
        if self.trusts and func is torch.ops.aten.size.default:
            shape = args[0].shape
            return tuple([x.node.hint if isinstance(x, torch.SymInt) else x for x in shape])
        return super().dispatch(func, types, args, kwargs or {})


def _mode(env: Any, static_shapes: bool | None, keeps: bool) -> _Mode:
    import torch._functorch.config as settings

    with settings.patch(fake_tensor_allow_unsafe_data_ptr_access=False):
        mode = _Mode(
            allow_fallback_kernels=True,
            allow_non_fake_inputs=True,
            shape_env=env,
            static_shapes=static_shapes,
        )
    mode.cache_enabled = mode.cache_enabled and keeps
    return mode


def spare_mode(keeps: bool = True) -> FakeTensorMode:
    """A mode for tensors without values, all of whose sizes are known.

    Parameters
    ----------
    keeps : bool
        Whether PyTorch permanently stores the result of each operation for these shapes.

    Examples
    --------
    >>> spare_mode().from_tensor(torch.ones(2)).shape
    torch.Size([2])
    """
    from torch.fx.experimental.symbolic_shapes import ShapeEnv  # imports sympy

    # A number read from a tensor by `item` would be constant in the trace but not in calls.
    return _mode(ShapeEnv(allow_scalar_outputs=False), static_shapes=True, keeps=keeps)


@contextmanager
def trusting(inputs: Sequence[Tensor]) -> Iterator[None]:
    """A context in which sizes of stand-ins may be queried as plain numbers without a condition.

    Examples
    --------
    >>> with trusting([torch.ones(1)]):
    ...     pass
    """
    mode = mode_for(inputs)
    if not isinstance(mode, _Mode):
        yield
        return
    trusted, mode.trusts = mode.trusts, True
    try:
        yield
    finally:
        mode.trusts = trusted


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress PyTorch's messages about operations that do not support symbolic sizes.

    Examples
    --------
    >>> with quiet():
    ...     logging.getLogger("torch._subclasses.fake_tensor").error("never seen")
    """
    loggers = [logging.getLogger(name) for name in LOUD]
    before = [each.disabled for each in loggers]
    for each in loggers:
        each.disabled = True
    try:
        yield
    finally:
        for each, disabled in zip(loggers, before, strict=True):
            each.disabled = disabled


def mode_for(inputs: Sequence[Tensor]) -> FakeTensorMode | None:
    """The mode for tensors without values, if the inputs are such tensors.

    Examples
    --------
    >>> mode_for([torch.ones(2)]) is None
    True
    """
    return next((x.fake_mode for x in inputs if isinstance(x, FakeTensor)), None)


class StandIns:
    """Tensors without values in place of a layer's tensors; some sizes of the state are symbolic.

    Parameters
    ----------
    tensors : sequence of Tensor
        Tensors of one layer.
    state : Tensor
        A state whose shape determines the answers to queries.
    axes : sequence of int
        Axes of the state with symbolic sizes; the sizes are at least 2 here.

    Examples
    --------
    >>> given = StandIns([torch.ones(3)], torch.ones(5, 3), [0])
    >>> _ = given.tensors[0] + given.state
    >>> given.hold((7, 3)), given.hold((7, 4)), bool(given.state.shape[0] > 4)
    (True, False, True)
    >>> given.hold((7, 3)), given.hold((4, 3)), given.hold((1, 3))
    (True, False, False)
    """

    def __init__(self, tensors: Sequence[Tensor], state: Tensor, axes: Sequence[int]):
        from torch._dynamo.source import ConstantSource
        from torch.fx.experimental.symbolic_shapes import (
            DimDynamic,
            ShapeEnv,
            StatelessSymbolicContext,
        )

        self.axes = tuple(axes)
        self.shape = tuple(state.shape)
        self.env = ShapeEnv(duck_shape=False, allow_scalar_outputs=False)
        self.mode = _mode(self.env, static_shapes=None, keeps=False)
        kinds = [
            DimDynamic.DYNAMIC if axis in axes else DimDynamic.STATIC for axis in range(state.dim())
        ]
        self.tensors = [self.mode.from_tensor(x, static_shapes=True) for x in tensors]
        self.state = self.mode.from_tensor(
            state,
            source=ConstantSource("state"),
            symbolic_context=StatelessSymbolicContext(dynamic_sizes=kinds),
        )
        self.unknown: list[Any] = [self.state.shape[axis] for axis in axes]
        self._symbols = [size.node.expr for size in self.unknown]
        self._held: dict[tuple[int, ...], tuple[int, bool]] = {}

    def many(self, count: int) -> list[Tensor]:
        """Stand-ins for the stacked tensors of this many layers, and for their states."""
        with self.mode:
            return [x.new_empty((count, *x.shape)) for x in (*self.tensors, self.state)]

    def sizes(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The symbolic sizes of a state."""
        return tuple([shape[axis] for axis in self.axes])

    def is_open(self) -> bool:
        """Whether any sizes are still open; a size is not if it was queried as a plain number."""
        return any(size.node.expr.is_Symbol for size in self.unknown)

    def hold(self, shape: tuple[int, ...]) -> bool:
        """Whether all queries so far have the same answers for a state of this shape."""
        asked = len(self.env.guards)
        known = self._held.get(shape)
        if known is None or known[0] != asked:
            if len(self._held) >= SHAPES:
                self._held.clear()
            known = self._held[shape] = asked, self._hold(shape)
        return known[1]

    def _hold(self, shape: tuple[int, ...]) -> bool:
        axes = range(len(self.shape))
        if len(shape) != len(self.shape) or any(
            shape[n] < 2 if n in self.axes else shape[n] != self.shape[n] for n in axes
        ):
            return False
        sizes = self.sizes(shape)
        if _equal(sizes) != _equal(self.sizes(self.shape)):
            return False
        values = dict(zip(self._symbols, sizes, strict=True))
        return all(bool(guard.expr.xreplace(values)) for guard in self.env.guards)

    def check(self) -> None:
        """Check that `hold` can evaluate all queries exactly.

        Raises
        ------
        ShapeError
            If it cannot.
        """
        allowed = set(self._symbols)
        for guard in self.env.guards:
            if guard.expr.free_symbols - allowed or any(x.is_Float for x in guard.expr.atoms()):
                raise ShapeError(f"a condition is {guard.expr}")
        if self.env.deferred_runtime_asserts:
            raise ShapeError("a condition depends on numbers of tensors")


def _equal(sizes: tuple[int, ...]) -> list[int]:
    """For each size, the first position with an equal one; trusted code may have compared sizes."""
    return [sizes.index(size) for size in sizes]
