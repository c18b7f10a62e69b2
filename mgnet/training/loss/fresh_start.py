"""Another random start of a network, drawn by `reset_parameters` of its submodules."""

from __future__ import annotations

import copy
import inspect
import math

import torch

from mgnet.training.loss.parameters import FlatParameters

__all__ = ["fresh_start"]


def fresh_start(owner: str, network: torch.nn.Module, seed: int) -> torch.Tensor:
    """Draw the trained parameters of a network again and return them as a flat vector.

    The submodules draw them with `reset_parameters`, which is PyTorch's convention, or else with
    `_reset_parameters`; a module is reset after its submodules, as in constructors. A method with
    an argument `generator` receives a seeded generator; for all other methods PyTorch's global
    generator is seeded. A parameter that no method draws, such as a coefficient of an equation or a
    frequency, keeps its value, provided that all its entries are equal. The network itself is not
    changed.

    Parameters
    ----------
    owner : str
        Name of the caller in errors.
    network : torch.nn.Module
        Network to draw a start for.
    seed : int
        Seed of the random numbers.

    Raises
    ------
    TypeError
        If there is a trained parameter with unequal entries that no method draws, or if no method
        draws any parameter.

    Examples
    --------
    >>> fresh_start("train", torch.nn.Linear(2, 1), seed=1).shape
    torch.Size([3])
    >>> fresh_start("train", torch.nn.ParameterList([torch.tensor([1.0, 2.0])]), seed=0)
    Traceback (most recent call last):
    TypeError: train cannot draw a new start of the ParameterList: no method draws its parameter \
'0'; give its module a method reset_parameters
    """
    drawn = copy.deepcopy(network)
    trained = {name: p for name, p in drawn.named_parameters() if p.requires_grad}
    before = {name: p.detach().clone() for name, p in trained.items()}
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for p in trained.values():
            p.fill_(math.nan)
        torch.manual_seed(seed)
        _reset(drawn, torch.Generator().manual_seed(seed), set())
        left = [name for name, p in trained.items() if bool(p.isnan().any())]
        for name in left:
            trained[name].copy_(before[name])
    random = [name for name in left if bool((before[name] != before[name].flatten()[0]).any())]
    if random or all(torch.equal(p, before[name]) for name, p in trained.items()):
        raise TypeError(
            f"{owner} cannot draw a new start of the {type(network).__name__}: no method draws its "
            f"parameter {[*random, *left, *trained][0]!r}; give its module a method "
            "reset_parameters"
        )
    return FlatParameters(drawn).start()


def _reset(module: torch.nn.Module, generator: torch.Generator, done: set[torch.nn.Module]) -> None:
    done.add(module)
    for part in module.children():
        if part not in done:
            _reset(part, generator, done)
    methods = [getattr(module, each, None) for each in ("reset_parameters", "_reset_parameters")]
    method = next((each for each in methods if callable(each)), None)
    if method is None:
        return
    named = "generator" in inspect.signature(method).parameters
    method(**({"generator": generator} if named else {}))
