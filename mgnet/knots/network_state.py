"""Common parts of spline networks: options in their state, and copies with other splines."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, TypeVar

import torch
from torch.nn.utils.parametrize import is_parametrized

from mgnet.training.extra_state import (
    allow_without_extra_state,
    check_options,
    decode,
    encode,
    refuse_script,
)
from mgnet.training.loss.own_forward import alteration, is_replaced

__all__ = [
    "OptionsInState",
    "check_no_hooks",
    "check_plain",
    "check_plain_tensors",
    "copy_with",
]

Network = TypeVar("Network", bound=torch.nn.Module)


class OptionsInState(torch.nn.Module, ABC):
    """A module whose `state_dict` contains its tensors and the options that change its function.

    If options differ, `load_state_dict` raises an error that names both values, before anything is
    changed; states saved without options are not checked. A subclass may override
    `get_extra_state`.
    """

    @abstractmethod
    def state_options(self) -> dict[str, Any]:
        """The options, keyed by the constructor's argument names, as values that JSON supports.

        A subclass adds its own options.
        """

    def get_extra_state(self) -> torch.Tensor:
        """Encode the options as bytes."""
        return encode(self.state_options())

    def set_extra_state(self, state: torch.Tensor) -> None:
        """Do nothing, because options are compared, not loaded."""

    def __prepare_scriptable__(self) -> None:
        """Refuse `torch.jit.script`, which calls this first."""
        refuse_script(self)

    def _load_from_state_dict(
        self,
        state_dict: Any,
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        *lists: Any,
    ) -> None:
        own = type(self).get_extra_state is OptionsInState.get_extra_state
        saved = state_dict.get(f"{prefix}_extra_state")
        if own and saved is not None:
            check_options(type(self).__name__, decode(saved), self.state_options())
        told = self._other_intervals(state_dict, prefix)
        if told:
            lists[-1].append(told)  # beside torch's sentences about the shapes
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, *lists
        )
        if own:
            allow_without_extra_state(prefix, missing_keys)

    def _other_intervals(self, state: Any, prefix: str) -> str:
        """The advice for a state of the same network on other knots, as after `refine`."""
        own = getattr(self, "coefficients", None)
        degree = self.state_options().get("degree")
        if not isinstance(own, torch.nn.ParameterList) or degree is None:
            return ""
        saved: list[Any] = [
            getattr(state.get(f"{prefix}coefficients.{n}"), "shape", ()) for n in range(len(own))
        ]
        alike = [len(s) == 3 and s[::2] == u.shape[::2] for s, u in zip(saved, own, strict=True)]
        if not all(alike) or all(s == u.shape for s, u in zip(saved, own, strict=True)):
            return ""
        intervals = getattr(self, "intervals", None)
        theirs = tuple(shape[1] - degree for shape in saved)
        return (
            f"{type(self).__name__} got the state of a network with intervals={theirs}, but this "
            f"one has intervals={intervals}; make the network with intervals={theirs}"
        )


def copy_with(
    network: Network, method: str, replaced: Iterable[tuple[torch.nn.Module, torch.nn.Module]]
) -> Network:
    """A deep copy with some submodules replaced, and without gradients.

    Class, attributes, other parameters and hooks are preserved, even for subclasses; the
    constructor is not called.

    Parameters
    ----------
    network : torch.nn.Module
        The network to copy.
    method : str
        Name of the caller, for messages.
    replaced : iterable of (module, module)
        Submodules of the network, each with its replacement in the copy.

    Raises
    ------
    TypeError
        If the copy would be a different function, because splines are parametrized, or because
        `forward` was replaced on the instance and would still use the original.

    Examples
    --------
    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh())
    >>> print(copy_with(network, "wider", [(network[0], torch.nn.Linear(4, 3))])[0])
    Linear(in_features=4, out_features=3, bias=True)
    """
    if is_replaced(network, "forward"):
        raise TypeError(
            f"{method} got a network whose forward was replaced; the new network would still call "
            "that of the old one: write it as the forward of a subclass"
        )
    memo: dict[int, Any] = {}
    for old, new in replaced:
        check_plain_tensors(old, method)
        memo[id(old)] = new.train(old.training)
        made = dict(new.named_parameters(remove_duplicate=False))
        for name, parameter in old.named_parameters(remove_duplicate=False):
            if name in made:  # other attributes may also contain it
                memo[id(parameter)] = made[name]
    copied = copy.deepcopy(network, memo)
    copied.zero_grad()
    return copied


def check_plain(owner: str, network: torch.nn.Module, kind: type[torch.nn.Module]) -> None:
    """Raise an error unless options and splines of a network describe it completely.

    Raises
    ------
    TypeError
        If the network has other parts, which a conversion would lose.
    """
    found = alteration(network, kind, ("forward", "into_domain"))
    if found:
        raise TypeError(
            f"{owner} converts the splines of a {kind.__name__} alone, but {found}, which would be "
            f"lost; give a plain {kind.__name__} with these splines"
        )


def check_no_hooks(owner: str, parameters: torch.nn.Module) -> None:
    """Raise an error if a list of parameters has hooks, such as those of pruning.

    Raises
    ------
    TypeError
        If there is a hook, which would never be called.
    """
    if parameters._forward_pre_hooks:
        raise TypeError(
            f"{owner} got a hook on its coefficients, as torch.nn.utils.prune sets; it would never "
            "run, since they are not called, and old values stay: make it permanent "
            "(prune.remove), or use torch.nn.utils.parametrize"
        )


def check_plain_tensors(part: torch.nn.Module, method: str) -> None:
    """Raise an error unless the tensors of a module are parameters, not computed from others.

    Raises
    ------
    TypeError
        If a tensor is computed from others.
    """
    for each in part.modules():
        if is_parametrized(each) or each._forward_pre_hooks:
            raise TypeError(
                f"{method} got splines that are computed from other parameters; make them plain "
                "first with torch.nn.utils.parametrize.remove_parametrizations (or prune.remove)"
            )
