"""The data that a block reads besides its input, parameters and buffers.

A traced block is a list of tensor operations, in which all other data are fixed as they were during
tracing. A trace is therefore used only as long as the `fingerprint` of the block is unchanged: the
plain values of its modules, and those in globals, closures and objects that its code accesses. A
tensor from outside would be in the trace with its old values and without its gradient, so `Watch`
ends the trace of a block that uses such a tensor, and the block is then evaluated as written.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from itertools import islice
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor
from torch._subclasses.fake_tensor import DataDependentOutputException
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

__all__ = [
    "OutsideTensorError",
    "Watch",
    "check_gradients",
    "fingerprint",
    "innermost",
    "surroundings",
    "why_not_traced",
]

PLAIN = int, float, complex, bool, str, bytes, type(None), np.generic, torch.dtype, torch.device
KINDS = "forward", "forward_pre", "backward", "backward_pre"
GLOBAL_HOOKS = [f"_global_{kind}_hooks" for kind in KINDS]
# Attributes that PyTorch stores in a module, and that `odeint` stores in a right-hand side.
INTERNAL = (frozenset(vars(nn.Module())) - {"training"}) | {"_mgnet_odeint"}
KNOWN = {"torch", "numpy", "scipy", "mgnet"} | sys.stdlib_module_names  # code that is not read
MOST = 2000  # largest number of values to examine: a block may refer to the whole program
HOOKED = Tensor.register_hook, Tensor.grad_fn.__get__  # type: ignore[attr-defined]
LARGE = 2**20  # bytes of an array above which its content is not examined


WRAPPED = "fget", "func", "__func__", "__wrapped__"  # of properties, static methods, caches


class OutsideTensorError(RuntimeError):
    """Raised if a block uses a tensor or an array that is not one of its parameters or buffers.

    Parameters
    ----------
    value : Tensor or ndarray
        The tensor or array.
    """

    def __init__(self, value: Any):
        super().__init__(value)
        self.value = value

    def told(self, block: nn.Module) -> str:
        """The message, with the name of the tensor if it is an attribute of the block.

        Examples
        --------
        >>> block = nn.Linear(1, 1)
        >>> block.masks = [torch.ones(2)]
        >>> OutsideTensorError(block.masks[0]).told(block)
        'it uses the tensor masks[0], torch.float32 of shape (2,), which is not a parameter or \
buffer of its own, so that another one may take its place; keep it by register_buffer'
        """
        name = next((path for path, each in _held(block) if each is self.value), "")
        kind = "tensor" if isinstance(self.value, Tensor) else "array"
        return (
            f"it uses {f'the {kind} {name}' if name else f'{_article(kind)} {kind} from outside'}, "
            f"{self.value.dtype} of shape {tuple(self.value.shape)}, which is not a parameter or "
            "buffer of its own, so that another one may take its place; keep it by register_buffer"
        )


def why_not_traced(error: Exception, block: nn.Module) -> str:
    """Describe why tracing a block failed.

    Examples
    --------
    >>> why_not_traced(ValueError("no such shape"), nn.Tanh())
    'no such shape'
    """
    if isinstance(error, OutsideTensorError):
        return error.told(block)
    if isinstance(error, DataDependentOutputException):
        return "it reads numbers from tensors, as item() does"
    return str(error).strip().split("\n")[0]


def _article(kind: str) -> str:
    return "an" if kind == "array" else "a"


def _held(block: nn.Module) -> Iterator[tuple[str, Any]]:
    """Plain attributes of a block and its submodules, and the contents of their containers."""
    for prefix, part in block.named_modules():
        for name, value in vars(part).items():
            path = f"{prefix}.{name}" if prefix else name
            yield path, value
            if isinstance(value, list | tuple):
                yield from ((f"{path}[{n}]", each) for n, each in enumerate(value))
            elif isinstance(value, dict) and name not in INTERNAL:
                yield from ((f"{path}[{key!r}]", each) for key, each in value.items())


class Watch(TorchFunctionMode):
    """While a layer is traced, detects effects that a graph of operations would lose.

    Attributes
    ----------
    hidden : bool
        Whether there was `no_grad`, a hook of a tensor or, after `look`, a custom backward pass of
        the block.

    Raises
    ------
    OutsideTensorError
        If the block uses a tensor from outside.

    Examples
    --------
    >>> with Watch():
    ...     torch.ones(3) * torch.ones(2, 3)
    Traceback (most recent call last):
    mgnet.depth.batched.surroundings.OutsideTensorError: tensor([1., 1., 1.])
    """

    hidden = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for value in tree_leaves((args, kwargs)):
            if isinstance(value, np.ndarray) or (
                isinstance(value, Tensor) and not isinstance(innermost(value), FakeTensor)
            ):
                raise OutsideTensorError(value)
        off = func is torch._C._set_grad_enabled and not args[0]
        self.hidden = self.hidden or off or func in HOOKED
        return func(*args, **(kwargs or {}))

    def look(self, value: Tensor) -> None:
        """Look for custom backward passes of the block in the autograd graph of its value."""
        kind = torch.autograd.function.BackwardCFunction
        self.hidden = self.hidden or any(isinstance(node, kind) for node in _graph(value))


def innermost(value: Tensor) -> Tensor:
    """The tensor inside the wrappers with which `torch.func` differentiates or maps layers.

    Examples
    --------
    >>> innermost(torch.ones(1))
    tensor([1.])
    """
    while torch._C._functorch.is_functorch_wrapped_tensor(value):  # type: ignore[attr-defined]
        value = torch._C._functorch.get_unwrapped(value)  # type: ignore[attr-defined]
    return value


def check_gradients(value: Tensor, leaves: Sequence[Tensor]) -> None:
    """Raise an error if the graph of a slope ends in leaves other than these.

    Raises
    ------
    ValueError
        If it does.

    Examples
    --------
    >>> u, scale = torch.ones(3).requires_grad_(), torch.ones(()).requires_grad_()
    >>> check_gradients(2 * u, [u])
    >>> check_gradients(scale * u, [u])
    Traceback (most recent call last):
    ValueError: the block uses a tensor of shape () that requires a gradient and is not its \
parameter; a LayerParallel module would lose that gradient: make it a parameter of the block, \
detach it, or call the ODENet itself
    """
    own = {id(leaf) for leaf in leaves}
    for node in _graph(value):
        leaf = getattr(node, "variable", None)
        if leaf is not None and id(leaf) not in own:
            raise ValueError(
                f"the block uses a tensor of shape {tuple(leaf.shape)} that requires a gradient "
                "and is not its parameter; a LayerParallel module would lose that gradient: "
                "make it a parameter of the block, detach it, or call the ODENet itself"
            )


def _graph(value: Tensor) -> set[Any]:
    left, seen = [value.grad_fn], set()
    while left:
        node = left.pop()
        if node is not None and node not in seen:
            seen.add(node)
            left += [parent for parent, _ in node.next_functions]
    return seen


def fingerprint(block: nn.Module) -> Any:
    """All plain values that the code of a block may read now; results are equal if none changed.

    These are the block's attributes, the attributes of objects that it contains, and the globals
    and closures of its code and of the functions that it calls, except for functions of Python's
    standard library, PyTorch, NumPy, SciPy and mgnet. At most 2000 values are read.

    Parameters
    ----------
    block : nn.Module
        The block.

    Examples
    --------
    >>> block = nn.Sequential(nn.Linear(1, 1), nn.Dropout(0.1))
    >>> before = fingerprint(block)
    >>> block[1].p = 0.2
    >>> fingerprint(block) == before
    False
    """
    return surroundings(block)[0]


def surroundings(code: Any) -> tuple[Any, list[Tensor]]:
    """The `fingerprint` of a block, or of a function, and the tensors that its code may read.

    Parameters
    ----------
    code : callable
        The block or function.

    Examples
    --------
    >>> block = nn.Tanh()
    >>> block.shift = torch.ones(1)
    >>> surroundings(block)[1]
    [tensor([1.])]
    """
    reader = _Reader()
    if isinstance(code, nn.Module):
        # PyTorch's own code is not read, but it may have been replaced.
        parts = [(id(part), type(part).forward, reader.module(part)) for part in code.modules()]
    else:
        parts = [reader.value(code)]
    hooks = [list(map(id, vars(nn.modules.module)[kind].values())) for kind in GLOBAL_HOOKS]
    return (torch.get_default_dtype(), str(hooks), *parts), reader.tensors


class _Reader:
    """Describes values by the data that code can read from them, each object only once."""

    def __init__(self) -> None:
        self.seen: dict[Any, int] = {}
        self.left = MOST
        self.tensors: list[Tensor] = []

    def value(self, value: Any) -> Any:
        if isinstance(value, PLAIN):
            return value
        kind = type(value)
        if isinstance(value, Tensor):
            self.tensors.append(value)
        if isinstance(value, Tensor) or self.left <= 0:
            return kind
        key = value if isinstance(value, type) else id(value)
        if key in self.seen:
            return kind, self.seen[key]
        if not isinstance(value, type):  # `_class` describes types
            self.seen[key] = len(self.seen)
        self.left -= 1
        return kind, self._content(value)

    def values(self, values: Iterable[Any]) -> Any:
        return tuple([self.value(each) for each in values])

    def named(self, values: Mapping[Any, Any]) -> Any:
        return tuple([(name, self.value(each)) for name, each in list(values.items())])

    def module(self, module: nn.Module) -> Any:
        """One module without its submodules, which are described separately."""
        self.seen.setdefault(id(module), len(self.seen))
        own = (*module._parameters.values(), *module._buffers.values())
        self.tensors += [x for x in own if x is not None]
        values = [
            (name, value if isinstance(value, PLAIN) else self.value(value))
            for name, value in vars(module).items()
            if name not in INTERNAL
        ]
        hooks = [
            (name, self.value(hook))
            for kind in (
                module._forward_hooks,
                module._forward_pre_hooks,
                module._backward_hooks,
                module._backward_pre_hooks,
            )
            for name, hook in kind.items()
        ]
        return tuple(values), tuple(hooks), self._class(type(module))

    def _content(self, value: Any) -> Any:
        if isinstance(value, FunctionType):
            return self._function(value)
        if isinstance(value, list | tuple):
            return self.values(value[: self.left])
        if isinstance(value, dict):
            return self.named(dict(islice(value.items(), self.left)))
        if isinstance(value, set | frozenset):
            return frozenset(value)
        if isinstance(value, np.ndarray):
            return value.shape, hash(value.tobytes()) if value.nbytes <= LARGE else id(value)
        if isinstance(value, MethodType):
            return self.values((value.__func__, value.__self__))
        if isinstance(value, partial):
            return self.values((value.func, value.args, value.keywords))
        if isinstance(value, nn.Module):
            return self.values(value.modules()), self.module(value)
        if isinstance(value, type):
            return self._class(value)
        slots = [name for each in type(value).__mro__ for name in getattr(each, "__slots__", ())]
        if not slots and not hasattr(value, "__dict__"):
            return id(value)
        read = {name: getattr(value, name, None) for name in slots} | getattr(value, "__dict__", {})
        return self.named(read), self._class(type(value))

    def _class(self, kind: type) -> Any:
        """The data that methods of a class and its base classes read, and its attributes."""
        found = []
        for each in kind.__mro__:
            if each.__module__.partition(".")[0] in KNOWN or each in self.seen:
                continue
            self.seen[each] = len(self.seen)
            for name, value in vars(each).items():
                if isinstance(value, FunctionType):
                    if name != "__init__":
                        found.append(self._function(value))
                elif name[:2] != "__":
                    inner = [getattr(value, each, None) for each in WRAPPED]
                    found.append((name, self.value(value), self.values(inner)))
        return tuple(found)

    def _function(self, function: FunctionType) -> Any:
        if _is_known(function):
            return id(function)
        read = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
        for cell in function.__closure__ or ():
            try:
                read.append(cell.cell_contents)
            except ValueError:  # the cell is still empty
                continue
        names, known = _names(function.__code__), function.__globals__
        for name in names:
            value = known.get(name)
            if not isinstance(value, ModuleType):
                read.append(value)
            elif not _is_known(value):
                read += [vars(value).get(part) for part in names]
        return function.__code__, self.values(read)


@lru_cache(maxsize=4096)
def _names(code: CodeType) -> tuple[str, ...]:
    """The globals and attributes that a function uses, including nested functions."""
    inner = [each for each in code.co_consts if isinstance(each, CodeType)]
    return tuple(dict.fromkeys([*code.co_names, *[x for each in inner for x in _names(each)]]))


def _is_known(thing: Any) -> bool:
    name = thing.__name__ if isinstance(thing, ModuleType) else getattr(thing, "__module__", None)
    return isinstance(name, str) and name.partition(".")[0] in KNOWN
