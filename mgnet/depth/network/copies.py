"""Copies of modules, with a clear error for modules that torch cannot copy."""

from __future__ import annotations

import copy
from typing import Any

__all__ = ["copied"]


def copied(modules: Any, owner: str) -> Any:
    """Return a deep copy of a module or of a list of modules.

    Parameters
    ----------
    modules : torch.nn.Module, or list of torch.nn.Module
        The modules to copy.
    owner : str
        Name of the caller, for the error message.

    Raises
    ------
    ValueError
        If torch cannot copy a module because one of its tensors is computed from others.

    Examples
    --------
    >>> import torch
    >>> from torch.nn.utils.prune import l1_unstructured
    >>> copied(l1_unstructured(torch.nn.Linear(2, 2), "weight", 0.5), "ODENet")
    Traceback (most recent call last):
    ValueError: ODENet got a module that torch cannot copy, since one of its tensors is computed \
from others, as after torch.nn.utils.prune; make that permanent (prune.remove), or use \
torch.nn.utils.parametrize
    """
    try:
        return copy.deepcopy(modules)
    except RuntimeError as error:
        if "deepcopy" not in str(error):
            raise
        raise ValueError(
            f"{owner} got a module that torch cannot copy, since one of its tensors is computed "
            "from others, as after torch.nn.utils.prune; make that permanent (prune.remove), "
            "or use torch.nn.utils.parametrize"
        ) from error
