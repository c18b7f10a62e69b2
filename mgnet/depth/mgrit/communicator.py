"""What a process must know of the others, where several hold the layers of one network.

Each holds consecutive layers, and the points 0..n of its own part of a trajectory. The point at
which its layers begin is a copy: it belongs to the process upstream, where it is the last one.
Upstream is left, and right for the adjoint (`reverse`).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Protocol

from torch import Tensor, float64, tensor

__all__ = [
    "SERIAL_COMMUNICATOR",
    "SerialCommunicator",
    "Gathered",
    "Communicator",
    "gathered_norm",
    "largest",
    "of_first",
    "own_points",
    "squares",
]

State = Any


class Gathered(NamedTuple):
    """The place of a process in a level whose layers all processes hold.

    Attributes
    ----------
    first : int
        The first own layer.
    layers : int
        Of all processes.

    Examples
    --------
    >>> Gathered(first=2, layers=6).layers
    6
    """

    first: int
    layers: int


class Communicator(Protocol):
    """The other processes, as one of them sees them.

    All of them call `broadcast_from_last`, `broadcast` and what gathers or scatters, together.

    Attributes
    ----------
    rank : int
        0 is the first.
    ranks : int
        How many there are.
    batches : Communicator, or None
        Those with the same layers as this one, for other microbatches of each batch.
    """

    rank: int
    ranks: int
    batches: Communicator | None

    def gathered(self, layer_bytes: int) -> Gathered | None:
        """The place in a coarsest level that all hold, of so many bytes per layer; None: in parts.

        Each then marches over the whole of it, with the same bits, and waits for nobody.
        """
        ...

    def allgather(self, rows: State) -> list[State]:
        """The rows of each process that has layers, in their order.

        One row for each own layer of the coarsest level, or everywhere equally many more.
        """
        ...

    def is_first(self, reverse: bool) -> bool:
        """Whether the equation begins here: upstream there are no layers."""
        ...

    def receive(self, start: State, reverse: bool) -> State:
        """The first point, from upstream, like `start`; `start` itself where there is none."""
        ...

    def send(self, point: State, reverse: bool) -> None:
        """Give a point to the process downstream."""
        ...

    def shift(self, points: State, reverse: bool) -> State:
        """The same points, the first replaced by what is the last one upstream."""
        ...

    def broadcast_from_last(self, point: State, reverse: bool) -> State:
        """The point where the equation ends, from the process that has it, like `point`."""
        ...

    def gather(self, values: Tensor) -> Tensor:
        """Values (rows, own points) of all processes, in the order of the layers."""
        ...

    def broadcast(self, value: Any) -> Any:
        """The value of the first process."""
        ...

    def gather_layers(self, part: Tensor) -> Tensor | None:
        """Rows, one for each layer, of all processes, on rank 0."""
        ...

    def scatter_layers(self, whole: Tensor | None) -> Tensor:
        """The own rows of what rank 0 gives."""
        ...

    def allgather_layers(self, part: Tensor) -> Tensor:
        """Rows, one for each layer, of all processes, on every one."""
        ...


class SerialCommunicator:
    """One process holds all layers.

    Examples
    --------
    >>> SerialCommunicator().is_first(reverse=True), SerialCommunicator().broadcast("serial")
    (True, 'serial')
    """

    rank, ranks = 0, 1
    batches: Communicator | None = None

    def gathered(self, layer_bytes: int) -> Gathered | None:
        """None: it holds everything anyway."""
        return None

    def allgather(self, rows: State) -> list[State]:
        """`rows`."""
        return [rows]

    def is_first(self, reverse: bool) -> bool:
        """Yes."""
        return True

    def receive(self, start: State, reverse: bool) -> State:
        """`start`."""
        return start

    def send(self, point: State, reverse: bool) -> None:
        """Nobody is there."""

    def shift(self, points: State, reverse: bool) -> State:
        """`points`."""
        return points

    def broadcast_from_last(self, point: State, reverse: bool) -> State:
        """`point`."""
        return point

    def gather(self, values: Tensor) -> Tensor:
        """`values`."""
        return values.cpu()

    def broadcast(self, value: Any) -> Any:
        """`value`."""
        return value

    def gather_layers(self, part: Any) -> Any:
        """`part`."""
        return part

    def scatter_layers(self, whole: Any) -> Any:
        """`whole`."""
        return whole

    def allgather_layers(self, part: Tensor) -> Tensor:
        """`part`."""
        return part


SERIAL_COMMUNICATOR = SerialCommunicator()


def of_first(communicator: Communicator, value: Any) -> Any:
    """The value of the first process of all; all of them call this.

    Examples
    --------
    >>> of_first(SERIAL_COMMUNICATOR, 3)
    3
    """
    value = communicator.broadcast(value)
    return value if communicator.batches is None else communicator.batches.broadcast(value)


def largest(communicator: Communicator, number: int) -> int:
    """The largest number of all processes; all of them call this.

    Examples
    --------
    >>> largest(SERIAL_COMMUNICATOR, 3)
    3
    """
    for others in (communicator, communicator.batches):
        if others is not None:
            number = int(others.gather(tensor([[number]])).max())
    return number


def own_points(points: State, reverse: bool) -> State:
    """All points but the one at which the layers begin.

    Examples
    --------
    >>> own_points([0, 1, 2], reverse=True)
    [0, 1]
    """
    return points[:-1] if reverse else points[1:]


def squares(points: Tensor) -> Tensor:
    """The sum of squares of every point, in float64; the same bits however many points there are.

    Examples
    --------
    >>> import torch
    >>> squares(torch.tensor([[3.0, 4.0], [1.0, 0.0]]))
    tensor([25.,  1.], dtype=torch.float64)
    """
    own = points.detach()
    exact = own.to(float64)
    # In place, where `exact` is a copy.
    squared = exact.square() if exact is own else exact.mul_(exact)
    return squared.flatten(1).sum(1)


def gathered_norm(communicator: Communicator, points: Tensor, reverse: bool) -> float:
    """Of the points of all processes: the same bits on all of them, and for any number of them.

    Examples
    --------
    >>> import torch
    >>> gathered_norm(SERIAL_COMMUNICATOR, torch.tensor([[3.0], [4.0]]), reverse=False)
    5.0
    """
    own = points if communicator.is_first(reverse) else own_points(points, reverse)
    return math.sqrt(communicator.gather(squares(own)[None]).sum())
