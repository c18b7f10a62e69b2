"""What the networks of splines share: options in their state, and copies with other splines."""

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
    """A module whose `state_dict` holds the options that change its function, not its tensors.

    `load_state_dict` raises an error that names both values where they differ, before anything is
    written; states that were saved without options load unchecked. A subclass with a
    `get_extra_state` of its own takes over.
    """

    @abstractmethod
    def state_options(self) -> dict[str, Any]:
        """By the names of the constructor's arguments, as JSON can hold them.

        A subclass adds those of its own.
        """

    def get_extra_state(self) -> torch.Tensor:
        """The options, as bytes."""
        return encode(self.state_options())

    def set_extra_state(self, state: torch.Tensor) -> None:
        """Nothing: options are compared, not loaded."""

    def __prepare_scriptable__(self) -> None:
        """What `torch.jit.script` asks for first."""
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
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, *lists
        )
        if own:
            allow_without_extra_state(prefix, missing_keys)


def copy_with(
    network: Network, method: str, replaced: Iterable[tuple[torch.nn.Module, torch.nn.Module]]
) -> Network:
    """A deep copy with other submodules in some places, and no gradients.

    Class, attributes, other parameters and hooks are those of the network, so that a subclass
    stays one; its constructor is not called.

    Parameters
    ----------
    network : torch.nn.Module
    method : str
        The caller, for messages.
    replaced : iterable of (module, module)
        Parts of the network, and what the copy has in their place.

    Raises
    ------
    TypeError
        Where the copy would be another function: parametrized splines, or a forward that was
        replaced on the instance and would still call the old one.

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
            if name in made:  # which other attributes may hold, too
                memo[id(parameter)] = made[name]
    copied = copy.deepcopy(network, memo)
    copied.zero_grad()
    return copied


def check_plain(owner: str, network: torch.nn.Module, kind: type[torch.nn.Module]) -> None:
    """Raise unless a network is converted whole by its options and splines: nothing is added to it.

    Raises
    ------
    TypeError
    """
    found = alteration(network, kind, ("forward", "into_domain"))
    if found:
        raise TypeError(
            f"{owner} converts the splines of a {kind.__name__} alone, but {found}, which would be "
            f"lost; give a plain {kind.__name__} with these splines"
        )


def check_no_hooks(owner: str, parameters: torch.nn.Module) -> None:
    """Raise where pruning, or another hook, waits for a call of a list of parameters.

    Raises
    ------
    TypeError
    """
    if parameters._forward_pre_hooks:
        raise TypeError(
            f"{owner} got a hook on its coefficients, as torch.nn.utils.prune sets; it would never "
            "run, since they are not called, and old values stay: make it permanent "
            "(prune.remove), or use torch.nn.utils.parametrize"
        )


def check_plain_tensors(part: torch.nn.Module, method: str) -> None:
    """Raise unless the tensors of a part are parameters themselves, not made from others.

    Raises
    ------
    TypeError
    """
    for each in part.modules():
        if is_parametrized(each) or each._forward_pre_hooks:
            raise TypeError(
                f"{method} got splines that are made of other parameters; make them plain ones "
                "first, by torch.nn.utils.parametrize.remove_parametrizations (or prune.remove)"
            )
