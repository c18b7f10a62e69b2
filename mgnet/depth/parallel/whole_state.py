"""The whole state of a network, and of its optimizer, if its layers are on several processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from mgnet.depth.mgrit.communicator import SerialCommunicator
from mgnet.depth.parallel.layer_parallel import LayerParallel
from mgnet.depth.parallel.local_layers import layered_names

__all__ = ["distributed_parts", "gather_state", "load_state"]

State = dict[str, Any]
Path = tuple[Any, ...]


def distributed_parts(module: torch.nn.Module) -> list[LayerParallel]:
    """The submodules whose layers were distributed, even if over only one process.

    Examples
    --------
    >>> from mgnet.depth import ODENet
    >>> distributed_parts(LayerParallel(ODENet(torch.nn.Linear(2, 2), 8)))
    []
    """
    parts = (part for part in module.modules() if isinstance(part, LayerParallel))
    return [part for part in parts if not isinstance(part.communicator, SerialCommunicator)]


def gather_state(
    parallel: LayerParallel, optimizer: torch.optim.Optimizer | None = None
) -> State | None:
    """Gather the state of the whole module, or of its optimizer, on rank 0; all ranks must call it.

    The result is the state that the module has without `distribute`: save it with `torch.save` on
    rank 0, and load it anywhere, or on any number of ranks with `load_state`.

    Parameters
    ----------
    parallel : LayerParallel
        The distributed module.
    optimizer : torch.optim.Optimizer, optional
        An optimizer of the module's parameters; if it is given, its state is gathered instead.

    Returns
    -------
    dict, or None
        The state on rank 0, and None on all other ranks.

    Raises
    ------
    ValueError
        If the optimizer's state for a parameter contains values other than single numbers and
        tensors with the shape of the parameter.
    TypeError
        If `parallel` is not a `LayerParallel` module.

    Examples
    --------
    >>> from mgnet.depth import ODENet
    >>> from mgnet.petsc import distribute_layers
    >>> parallel = distribute_layers(LayerParallel(ODENet(torch.nn.Linear(2, 2), 8)))
    >>> gather_state(parallel)["net.block.weight"].shape
    torch.Size([8, 2, 2])
    """
    _check("gather_state", parallel)
    ranks, state = parallel.communicator, _state(parallel, optimizer)
    for path in _layered(parallel, optimizer, state, len(parallel.net.kept)):
        holder = _holder(state, path)
        holder[path[-1]] = ranks.gather_layers(holder[path[-1]])
    return state if ranks.rank == 0 else None


def load_state(
    parallel: LayerParallel, state: State | None, optimizer: torch.optim.Optimizer | None = None
) -> None:
    """Load the state of a whole module, or of its optimizer, from rank 0; all ranks must call it.

    Parameters
    ----------
    parallel : LayerParallel
        The module, distributed over any number of ranks.
    state : dict, or None
        The state from `gather_state`, or the `state_dict` of a module that is not distributed. Only
        the state on rank 0 is read.
    optimizer : torch.optim.Optimizer, optional
        An optimizer of the module's parameters; if it is given, its state is loaded instead.

    Raises
    ------
    RuntimeError, ValueError
        If the state belongs to a different network, or is None on rank 0.
    TypeError
        If `parallel` is not a `LayerParallel` module.

    Examples
    --------
    >>> from mgnet.depth import ODENet
    >>> from mgnet.petsc import distribute_layers
    >>> block = torch.nn.Linear(2, 2)
    >>> one, other = (LayerParallel(ODENet(block, 8)) for _ in range(2))
    >>> load_state(distribute_layers(one), other.state_dict())
    >>> bool((one(torch.ones(1, 2)) == other(torch.ones(1, 2))).all())
    True
    """
    _check("load_state", parallel)
    ranks: Any = parallel.communicator
    whole, paths, cut = None, [], []
    if ranks.rank == 0:
        if state is None:
            raise ValueError("load_state got None on rank 0; give the whole state there")
        whole = _copied(state)
        paths = list(_layered(parallel, optimizer, whole, parallel.net.depth))
        cut = [_take(whole, path) for path in paths]
    if ranks.batches is not None and ranks.place == 0:  # the first rank of each network
        whole, paths, cut = ranks.batches.broadcast((whole, paths, cut))
    whole, paths = ranks.broadcast((whole, paths))
    for number, path in enumerate(paths):
        given = cut[number] if cut else None
        _holder(whole, path)[path[-1]] = ranks.scatter_layers(given)
    (parallel if optimizer is None else optimizer).load_state_dict(whole)


def _check(owner: str, parallel: Any) -> None:
    if not hasattr(parallel, "net"):
        raise TypeError(
            f"{owner} got a {type(parallel).__name__}; it is for LayerParallel, whose ranks hold "
            "layers: for other modules every rank has the whole state_dict(), which rank 0 may save"
        )


def _state(parallel: LayerParallel, optimizer: torch.optim.Optimizer | None) -> State:
    return _copied((parallel if optimizer is None else optimizer).state_dict())


def _copied(state: State) -> State:
    """The same values in new dictionaries and tensors, which later steps do not edit."""
    copied = {key: _cloned(value) for key, value in state.items()}
    if "param_groups" in copied:
        held = copied["state"].items()
        copied["state"] = {n: {k: _cloned(v) for k, v in value.items()} for n, value in held}
    return copied


def _cloned(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def _layered(
    parallel: LayerParallel, optimizer: torch.optim.Optimizer | None, state: State, rows: int
) -> Iterator[Path]:
    """The keys under which a state has tensors with this number of layers on axis 0."""
    names = {f"net.{name}" for name in layered_names(parallel.net)}
    if optimizer is None:
        yield from ((name,) for name in state if name in names)
        return
    own = {id(parameter) for name, parameter in parallel.named_parameters() if name in names}
    groups = zip(optimizer.param_groups, state["param_groups"], strict=True)
    pairs = [pair for a, b in groups for pair in zip(a["params"], b["params"], strict=True)]
    for parameter, number in pairs:
        if id(parameter) in own:
            for key, value in state["state"].get(number, {}).items():
                if _is_like(parameter, value, rows, f"{type(optimizer).__name__} keeps '{key}'"):
                    yield "state", number, key


def _is_like(parameter: Tensor, value: Any, rows: int, what: str) -> bool:
    """Whether an optimizer's value has an entry per entry of a parameter, not just one number."""
    if isinstance(value, Tensor) and value.shape == (rows, *parameter.shape[1:]):
        return True
    if (
        value is None
        or isinstance(value, bool | int | float)
        or (isinstance(value, Tensor) and value.dim() == 0)
    ):
        return False
    raise ValueError(
        f"{what}, which is neither one number nor of the shape of the parameter; the state of such "
        "an optimizer cannot be distributed: use one such as Adam"
    )


def _holder(state: State, path: Path) -> dict[Any, Any]:
    for key in path[:-1]:
        state = state[key]
    return state


def _take(state: State, path: Path) -> Tensor:
    holder = _holder(state, path)
    value, holder[path[-1]] = holder[path[-1]], None
    return value
