"""Side inputs with one row per layer, such as a different input for each time step.

Such a tensor has the shape (layers, batch, ...). The user names these side inputs, because they
cannot be recognized by their shapes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from mgnet.limits import shown

__all__ = ["check_layer_inputs", "input_names", "inputs_of_layer"]

TAKEN = "self", "x", "times"  # arguments of `ODENet.forward` and `trajectory`


def input_names(names: Any) -> tuple[str, ...]:
    """Return the names after checking that they can be names of side inputs.

    Raises
    ------
    TypeError, ValueError
        If the names are not a list of names, or if one of them is already an argument.

    Examples
    --------
    >>> input_names(["inputs"])
    ('inputs',)
    """
    listed = isinstance(names, Sequence) and not isinstance(names, str)
    if not listed or not all(isinstance(name, str) and name.isidentifier() for name in names):
        raise TypeError(
            f"ODENet got layer_inputs={shown(names)}; give a list of the names by which the block "
            "takes them"
        )
    for name in names:
        if name in TAKEN:
            raise ValueError(
                f"ODENet got layer_inputs with {name}, which is an argument of its own calls; give "
                "the block's argument another name, such as inputs"
            )
    return tuple(dict.fromkeys(names))


def check_layer_inputs(
    owner: str, names: Sequence[str], side: Mapping[str, Any], layers: int
) -> None:
    """Raise an error unless the side inputs with these names have one row per layer.

    Parameters
    ----------
    owner : str
        Name of the caller, for messages.
    names : sequence of str
        Names of the side inputs with rows.
    side : mapping
        All side inputs of a call; for those that are omitted, the block has defaults.
    layers : int
        Total number of layers on all processes, including boundary layers.

    Raises
    ------
    TypeError, ValueError
        If a side input is not a tensor or has a different number of rows.

    Examples
    --------
    >>> import torch
    >>> check_layer_inputs("ODENet", ["inputs"], {"inputs": torch.ones(3, 2)}, 4)
    Traceback (most recent call last):
    ValueError: ODENet got the layer input inputs of shape (3, 2) for 4 layers; give it a row for \
each layer, boundary layers included: shape (4, batch, ...)
    """
    for name in names:
        for leaf in tree_leaves(side.get(name)):
            if leaf is None:  # the block's default
                continue
            if not isinstance(leaf, Tensor):
                raise TypeError(
                    f"{owner} got the layer input {name} with {shown(leaf)}; give tensors of shape "
                    "(layers, batch, ...), also in tuples, lists and dictionaries"
                )
            if not leaf.dim() or len(leaf) != layers:
                raise ValueError(
                    f"{owner} got the layer input {name} of shape {tuple(leaf.shape)} for {layers} "
                    "layers; give it a row for each layer, boundary layers included: shape "
                    f"({layers}, batch, ...)"
                )


def inputs_of_layer(side: Mapping[str, Any], names: Sequence[str], n: int) -> dict[str, Any]:
    """The side inputs of layer n: row n of those with these names, and the other ones unchanged.

    Examples
    --------
    >>> import torch
    >>> inputs_of_layer({"inputs": torch.arange(3.0), "scale": 2.0}, ["inputs"], 1)
    {'inputs': tensor(1.), 'scale': 2.0}
    """
    return {
        name: tree_map_only(Tensor, lambda x: x[n], value) if name in names else value
        for name, value in side.items()
    }
