"""Optimizers on all levels of every parameter at once, for any training loop."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

import torch

from mgnet.limits import is_count, shown
from mgnet.training.optimizers.coordinate_wise import check_coordinate_wise, decay_of
from mgnet.training.optimizers.generating_system import (
    GeneratingSystem,
    PackedLevels,
    Transfers,
)
from mgnet.training.optimizers.optimizer import check_kind

__all__ = ["HasLevels", "MultilevelGradient", "network_transfers"]

NONE: Mapping[str, Any] = MappingProxyType({})


@runtime_checkable
class HasLevels(Protocol):
    """A module with coarser levels of its parameters, such as KAN and ODENet."""

    def coarser_transfers(
        self, levels: int | None = None
    ) -> Iterable[tuple[torch.nn.Parameter, Transfers]]:
        """Parameters and their transfers: from the next coarser level, from the one below that, ...

        Parameters
        ----------
        levels : int, optional
            Largest number of levels of a parameter, including its own; by default all useful
            levels.
        """
        ...


class MultilevelGradient(torch.optim.Optimizer):
    """Any optimizer that treats coefficients independently, on all levels of a network at once.

    A spline on 256 intervals is written as a sum of splines on 256, 128, ..., 4 intervals,
    `u = sum_l P_l v_l`, and every v_l has its own steps and moments. The gradient is restricted
    through the levels, the optimizer takes a step on each, and the sum of the prolonged steps is
    added to u. The number of calls of the network does not change. Even if each fine spline depends
    on only a few samples of a batch, its coarse parents depend on many, so smooth parts of the
    error decrease first. This is the preconditioner of Bramble, Pasciak and Xu, Math. Comp. 55
    (1990) 1-22, with an optimizer on every level instead of a scaling; `docs/methods.md` has the
    theory.

    Everything else is as in PyTorch's optimizers: schedulers, parameter groups, closures,
    `GradScaler`, hooks, `state_dict`. The state of a parameter contains all its levels,
    concatenated along one axis.

    Parameters
    ----------
    kind : type
        A class such as `torch.optim.Adam`, or your own. It is first tested on small arrays: a class
        is refused if its step for one coefficient depends on other coefficients (L-BFGS, Muon,
        Adafactor).
    network : torch.nn.Module, or mapping
        A network that contains `KAN`s, `ODENet`s, or your own modules with a method
        `coarser_transfers` (see `HasLevels`); other parameters have one level. Alternatively the
        transfers themselves, `{parameter: [AxisTransfer, ...]}`.
    options : mapping
        Keyword arguments of `kind`, such as `{"lr": 3e-3}`. `weight_decay` acts on u, and only
        once. Decoupled decay multiplies u, and coupled decay is added to the gradient before it is
        restricted.
    levels : int, optional
        Largest number of levels of a parameter. By default the number of intervals or layers is
        halved (or divided by three) as long as that is possible and the number exceeds 4.
    groups : iterable, optional
        Parameters or parameter groups, as for `kind`; by default all parameters of the network.

    Attributes
    ----------
    systems : dict of Parameter to GeneratingSystem
        The levels of the parameters that have more than one level.

    Raises
    ------
    TypeError, ValueError
        If the optimizer does not treat coefficients independently, an option is unknown, or the
        network has no levels.

    Examples
    --------
    >>> from mgnet.knots import KAN
    >>> x = torch.linspace(-1, 1, 400).unsqueeze(1)
    >>> kan = KAN([1, 3, 1], intervals=64, dtype=torch.float32)
    >>> optimizer = MultilevelGradient(torch.optim.Adam, kan, {"lr": 1e-2})
    >>> optimizer.systems[kan.coefficients[0]].sizes
    (67, 35, 19, 11, 7)
    >>> for _ in range(200):
    ...     optimizer.zero_grad()
    ...     loss = (kan(x) - torch.sin(9 * x)).square().mean()
    ...     loss.backward()
    ...     optimizer.step()
    >>> float(loss.detach()) < 1e-3
    True
    """

    def __init__(
        self,
        kind: type[torch.optim.Optimizer],
        network: torch.nn.Module | Mapping[torch.nn.Parameter, Transfers],
        options: Mapping[str, Any] = NONE,
        *,
        levels: int | None = None,
        groups: Iterable[Any] | None = None,
    ):
        check_kind("MultilevelGradient", kind, options)
        if levels is not None and not is_count(levels):
            raise ValueError(f"MultilevelGradient got {shown(levels)} levels; give at least 1")
        self.kind: Any = kind
        self.levels = levels
        self.options = dict(options)
        defaults = self.kind([torch.nn.Parameter(torch.zeros(1, 1))], **self.options).defaults
        if defaults.get("differentiable"):
            raise ValueError(
                "MultilevelGradient got differentiable=True, but takes its steps in place; leave "
                "the option out"
            )
        chains = _chains(network, levels)
        self.systems = {
            p: GeneratingSystem(p.shape, chain) for p, chain in chains.items() if len(chain)
        }
        self._inner: Any = None
        own = [*(network.parameters() if isinstance(network, torch.nn.Module) else network)]
        super().__init__(own if groups is None else groups, defaults)
        given = {p for group in self.param_groups for p in group["params"]}
        if given.isdisjoint(own):  # no parameter would have levels
            raise ValueError(
                "MultilevelGradient got groups without any parameter of the "
                f"{type(network).__name__}; give parameters of the network itself, not of a copy"
            )
        self._build()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group as PyTorch does; parameters of the network keep their levels."""
        super().add_param_group(param_group)
        if self._inner is not None:
            self._build()

    def _build(self) -> None:
        """Build the inner optimizer, which acts on levels instead of parameters, and its state."""
        self._levels: dict[torch.Tensor, PackedLevels] = {}
        self._decays: dict[int, str] = {}  # kinds of weight decay of groups, as far as known
        made: list[tuple[dict[str, Any], dict[str, Any], bool]] = []
        for group in self.param_groups:
            deep = [p for p in group["params"] if p in self.systems]
            plain = [p for p in group["params"] if p not in self.systems]
            if deep:
                for p in deep:
                    _check_plain(p)
                check_coordinate_wise(self.kind, {**self.options, **group})
                self._decay(group)
                self._levels |= {p: PackedLevels(self.systems[p], p) for p in deep}
            for params, leveled in ((plain, False), (deep, True)):
                if params:
                    own: dict[str, Any] = {"params": [self._place(p) for p in params]}
                    _hand(group, own, leveled)
                    if leveled and "weight_decay" in group:
                        own["weight_decay"] = 0.0  # applied to u, not to its levels
                    made.append((group, own, leveled))
        self._inner = self.kind([own for _, own, _ in made], **self.options)
        inner = self._inner.param_groups
        self._pairs = [(made[n][0], own, made[n][2]) for n, own in enumerate(inner)]
        for p, entries in self.state.items():
            self._inner.state[self._place(p)] = entries
        self._inner.__setstate__({})  # the class's conversion of states of its older versions
        self._keep_state()

    def _place(self, p: torch.Tensor) -> torch.Tensor:
        """The tensor of the inner optimizer for a parameter."""
        return self._levels[p].steps if p in self._levels else p

    def _give_state(self) -> None:
        """Apply to the inner optimizer what a user cleared or replaced in the state."""
        inner = self._inner.state
        for group in self.param_groups:
            for p in group["params"]:
                if p in self.state:
                    inner[self._place(p)] = self.state[p]
                else:
                    inner.pop(self._place(p), None)

    def _keep_state(self) -> None:
        """Share the inner state: the same dictionaries, with the parameters as keys."""
        inner = self._inner.state
        for group in self.param_groups:
            for p in group["params"]:
                place = self._place(p)
                if place in inner:
                    self.state[p] = inner[place]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Take one step on all levels.

        Parameters
        ----------
        closure : callable, optional
            Function that evaluates the loss and its gradient, and returns the loss.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if not all(levels.fits(p) for p, levels in self._levels.items()):
            self._build()  # the network moved to another device
        for group, own, leveled in self._pairs:
            _hand(group, own, leveled)
        self._give_state()
        for group, p, levels in self._deep():
            levels.steps.grad = self._gradient(group, p, levels)
        self._inner.step()
        for group, p, levels in self._deep():
            if levels.steps.grad is not None:
                if self._decay(group) == "decoupled":
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                levels.move(p)
        for group, own, leveled in self._pairs:  # some classes store step counts in groups
            _hand(own, group, leveled)
        self._keep_state()
        return loss

    def _deep(self) -> Iterator[tuple[dict[str, Any], torch.Tensor, PackedLevels]]:
        for group in self.param_groups:
            for p in group["params"]:
                if p in self._levels:
                    yield group, p, self._levels[p]

    def _decay(self, group: dict[str, Any]) -> str:
        """The kind of weight decay of a group, whose value a schedule may change from 0."""
        if not group.get("weight_decay"):
            return ""
        if id(group) not in self._decays:
            self._decays[id(group)] = decay_of(self.kind, {**self.options, **group})
        return self._decays[id(group)]

    def _gradient(
        self, group: dict[str, Any], p: torch.Tensor, levels: PackedLevels
    ) -> torch.Tensor | None:
        """Gradients of all levels, including a coupled weight decay."""
        g = p.grad
        if g is None:
            return None
        if g.is_sparse:
            raise TypeError(
                f"MultilevelGradient got a sparse gradient of a parameter of shape "
                f"{tuple(p.shape)} with levels; make it dense, or give that parameter one level"
            )
        if self._decay(group) == "coupled":
            decay = group["weight_decay"]
            g = g.add(p, alpha=-decay if group.get("maximize") else decay)
        return levels.restrict(g)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a copy of a state, as PyTorch does.

        Raises
        ------
        ValueError
            If a tensor of the state does not have the shape that the levels require.
        """
        held = [p for group in self.param_groups for p in group["params"]]
        keys = [key for group in state_dict["param_groups"] for key in group["params"]]
        for key, p in zip(keys, held, strict=False):
            deep = p in self._levels
            shape = self.systems[p].packed_shape if deep else tuple(p.shape)  # type: ignore[index]
            for name, value in state_dict["state"].get(key, NONE).items():
                if not isinstance(value, torch.Tensor) or not value.dim():
                    continue
                # The state of a parameter with one level is not checked.
                more = value.dim() == p.dim() and value.numel() > p.numel()
                if value.shape != shape if deep else more:
                    told = "levels together have" if deep else "one level has"
                    raise ValueError(
                        f"MultilevelGradient.load_state_dict got {name!r} of shape "
                        f"{tuple(value.shape)} for a parameter of shape {tuple(p.shape)}, whose "
                        f"{told} {shape}; create the optimizer with the levels that the saved one "
                        "had"
                    )
        super().load_state_dict(copy.deepcopy(state_dict))  # PyTorch shares its tensors

    def __getstate__(self) -> dict[str, Any]:
        kept = {"kind": self.kind, "options": self.options, "systems": self.systems}
        kept["levels"] = self.levels
        return {**super().__getstate__(), **kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._build()


def _hand(source: Mapping[str, Any], target: dict[str, Any], leveled: bool) -> None:
    """Copy the options of one group to another; the inner optimizer does not decay the levels."""
    for name, value in source.items():
        if name not in ("params", "param_names") and not (leveled and name == "weight_decay"):
            target[name] = value


def _check_plain(p: torch.Tensor) -> None:
    if type(p) not in (torch.Tensor, torch.nn.Parameter) or not p.is_floating_point():
        raise TypeError(
            f"MultilevelGradient got a parameter with levels that is a {type(p).__name__} of "
            f"{p.dtype}; it must be a plain real tensor, whole on its device; give levels=1"
        )


def _chains(network: Any, levels: int | None) -> dict[torch.nn.Parameter, Transfers]:
    if isinstance(network, Mapping):
        return {p: chain[: None if levels is None else levels - 1] for p, chain in network.items()}
    if not isinstance(network, torch.nn.Module):
        raise TypeError(
            f"MultilevelGradient got a network of type {type(network).__name__}; give a module, "
            "or a mapping of its parameters to their transfers"
        )
    return network_transfers(network, levels)


def network_transfers(
    network: torch.nn.Module, levels: int | None = None
) -> dict[torch.nn.Parameter, Transfers]:
    """The transfers of all parameters that have coarser levels, in any part of a network.

    Parameters
    ----------
    network : torch.nn.Module
        Network to search.
    levels : int, optional
        Largest number of levels of a parameter.

    Raises
    ------
    TypeError
        If the network contains no module with levels.

    Examples
    --------
    >>> from mgnet.knots import KAN
    >>> two = torch.nn.Sequential(KAN([2, 1], 8), KAN([1, 1], 16))
    >>> [len(chain) for chain in network_transfers(two).values()]
    [1, 2]
    """
    found: dict[torch.nn.Parameter, Transfers] = {}
    parts = [part for part in network.modules() if isinstance(part, HasLevels)]
    if not parts:
        raise TypeError(
            f"MultilevelGradient got a {type(network).__name__} without a KAN, an ODENet or "
            "another module with a method `coarser_transfers`; there are no levels in it"
        )
    for part in parts:
        found |= dict(part.coarser_transfers(levels))
    return found
