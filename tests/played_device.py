"""A device without the device: tensors that hold others of the CPU and say they are elsewhere.

PyTorch counts them as tensors of an accelerator: products with tensors of the CPU are refused, and
numbers have to be read from them. It takes such a device once for a process, so what uses this file
runs in one of its own. With a GPU, and MGNET_CASES=cuda, that is the device.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

PLAYED = os.environ.get("MGNET_CASES") != "cuda"
if PLAYED:
    _setup_privateuseone_for_python_backend("played")
DEVICE = torch.device("played" if PLAYED else "cuda", 0)

# What gives the host a number, or a size that depends on one.
READS = {"_local_scalar_dense", "equal", "is_nonzero", "nonzero", "masked_select", "allclose"}
READS |= {"_unique2", "repeat_interleave.Tensor", "_linalg_eigh", "_linalg_check_errors"}
ALSO_HERE = {"index", "index_put", "index_put_", "_index_put_impl_", "copy_", "_to_copy"}


class Far(torch.Tensor):
    """One of them."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held):
        told = {"strides": held.stride(), "storage_offset": held.storage_offset()}
        made = torch.Tensor._make_wrapper_subclass(
            cls, held.size(), **told, dtype=held.dtype, device=DEVICE
        )
        made.held = held
        return made

    @property
    def data(self):
        return self.detach()

    @data.setter
    def data(self, value):
        self.held = held(value)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return played(func, args, kwargs or {})


def is_far(x) -> bool:
    return isinstance(x, torch.Tensor) and x.device.type == DEVICE.type


def held(x):
    return x.held if isinstance(x, Far) else x


def played(func, args, kwargs):
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    name = func.overloadpacket.__name__
    far = [x for x in tensors if is_far(x)]
    # A number on the host is taken by operations on single entries alone.
    single = torch.Tag.pointwise in func.tags
    here = [x for x in tensors if not is_far(x) and (x.dim() or not single)]
    if far and here and name not in ALSO_HERE:
        raise RuntimeError(f"{name}: tensors on {DEVICE} and on the CPU")
    goes_far = bool(far)
    if kwargs.get("device") is not None:
        goes_far = torch.device(kwargs["device"]).type == DEVICE.type
        kwargs = {**kwargs, "device": torch.device("cpu")}
    if name == "copy_":
        goes_far = is_far(args[0])
    made = func(*tree_map(held, args), **tree_map(held, kwargs))
    if not goes_far:
        return made
    same = {id(held(x)): x for x in tensors}
    return tree_map(
        lambda x: same.get(id(x), Far(x)) if isinstance(x, torch.Tensor) else x,
        made,
    )


def reads(func, args, kwargs) -> bool:
    """Whether the host waits for a number of the device."""
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    if not any(map(is_far, tensors)):
        return False
    name = func.overloadpacket.__name__
    if name in READS or func.name().removeprefix("aten::") in READS:
        return True
    if name == "_to_copy":
        return torch.device(kwargs.get("device") or DEVICE).type == "cpu"
    if name == "copy_":
        return not is_far(args[0])
    masks = (torch.bool, torch.uint8)
    return name.startswith("index") and any(
        isinstance(x, torch.Tensor) and x.dtype in masks and is_far(x)
        for x in tree_leaves(args[1:2])
    )


class _Mode(TorchDispatchMode):
    def __init__(self, seen: list[str]):
        super().__init__()
        self.seen = seen

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if reads(func, args, kwargs):
            self.seen.append(func.name())
        return played(func, args, kwargs) if PLAYED else func(*args, **kwargs)


if PLAYED:  # what PyTorch makes of numbers comes here without asking a mode or a class
    _library = torch.library.Library("aten", "IMPL")

    @torch.library.impl(_library, "empty_strided", "PrivateUse1")
    def _empty(size, stride, *, dtype=None, layout=None, device=None, pin_memory=None):
        return Far(torch.empty_strided(size, stride, dtype=dtype))

    @torch.library.impl(_library, "copy_", "PrivateUse1")
    def _copy(there, source, non_blocking=False):
        held(there).copy_(held(source))
        return there


@contextmanager
def watched() -> Iterator[list[str]]:
    """What the host reads; tensors are made and moved inside."""
    seen: list[str] = []
    with _Mode(seen):
        yield seen
