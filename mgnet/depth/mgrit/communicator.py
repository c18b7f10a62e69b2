"""Communication between processes if several of them hold the layers of one network.

Each process holds consecutive layers and the points 0..n of its part of a trajectory. The point at
which its layers start is a copy: it belongs to the process upstream, where it is the last point.
Upstream means left, or right for the adjoint (`reverse`).
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
    """The position of a process in a level whose layers are gathered on all processes.

    Attributes
    ----------
    first : int
        Number of the first layer of this process.
    layers : int
        Total number of layers on all processes.

    Examples
    --------
    >>> Gathered(first=2, layers=6).layers
    6
    """

    first: int
    layers: int


class Communicator(Protocol):
    """The other processes, as seen by one of them.

    All processes must call `broadcast_from_last`, `broadcast` and all gather and scatter methods
    together.

    Attributes
    ----------
    rank : int
        Number of this process; 0 is the first one.
    ranks : int
        Number of processes.
    batches : Communicator, or None
        The processes that hold the same layers and process other microbatches of each batch.
    """

    rank: int
    ranks: int
    batches: Communicator | None

    def gathered(self, layer_bytes: int) -> Gathered | None:
        """The position in the coarsest level if that is small enough for all to hold, else None.

        Each process then marches over the whole level with the same bits, without waiting.
        """
        ...

    def allgather(self, rows: State) -> list[State]:
        """The rows of each process that has layers, in the order of the processes.

        Each process has one row per layer of the coarsest level, plus a fixed number of further
        rows.
        """
        ...

    def is_first(self, reverse: bool) -> bool:
        """Whether the equation starts on this process, with no layers upstream."""
        ...

    def receive(self, start: State, reverse: bool) -> State:
        """Receive the first point (like `start`) from upstream; the first process gets `start`."""
        ...

    def send(self, point: State, reverse: bool) -> None:
        """Send a point to the process downstream."""
        ...

    def shift(self, points: State, reverse: bool) -> State:
        """The points, with the first one replaced by the last one of the process upstream."""
        ...

    def broadcast_from_last(self, point: State, reverse: bool) -> State:
        """The end point of the equation, shaped like `point`, from the process that has it."""
        ...

    def gather(self, values: Tensor) -> Tensor:
        """The values (rows, points of a process) from all processes, in the order of the layers."""
        ...

    def broadcast(self, value: Any) -> Any:
        """The value of the first process."""
        ...

    def gather_layers(self, part: Tensor) -> Tensor | None:
        """The rows of all processes, one per layer, on rank 0."""
        ...

    def scatter_layers(self, whole: Tensor | None) -> Tensor:
        """The rows of this process, from the tensor that rank 0 passes."""
        ...

    def allgather_layers(self, part: Tensor) -> Tensor:
        """The rows of all processes, one per layer, on every process."""
        ...


class SerialCommunicator:
    """A communicator for one process, which holds all layers.

    Examples
    --------
    >>> SerialCommunicator().is_first(reverse=True), SerialCommunicator().broadcast("serial")
    (True, 'serial')
    """

    rank, ranks = 0, 1
    batches: Communicator | None = None

    def gathered(self, layer_bytes: int) -> Gathered | None:
        """Return None, because this process holds all layers anyway."""
        return None

    def allgather(self, rows: State) -> list[State]:
        """Return `[rows]`."""
        return [rows]

    def is_first(self, reverse: bool) -> bool:
        """Return True."""
        return True

    def receive(self, start: State, reverse: bool) -> State:
        """Return `start`."""
        return start

    def send(self, point: State, reverse: bool) -> None:
        """Do nothing, because there is no other process."""

    def shift(self, points: State, reverse: bool) -> State:
        """Return `points`."""
        return points

    def broadcast_from_last(self, point: State, reverse: bool) -> State:
        """Return `point`."""
        return point

    def gather(self, values: Tensor) -> Tensor:
        """Return `values`."""
        return values.cpu()

    def broadcast(self, value: Any) -> Any:
        """Return `value`."""
        return value

    def gather_layers(self, part: Any) -> Any:
        """Return `part`."""
        return part

    def scatter_layers(self, whole: Any) -> Any:
        """Return `whole`."""
        return whole

    def allgather_layers(self, part: Tensor) -> Tensor:
        """Return `part`."""
        return part


SERIAL_COMMUNICATOR = SerialCommunicator()


def of_first(communicator: Communicator, value: Any) -> Any:
    """The value of the first process; all processes must call this.

    Examples
    --------
    >>> of_first(SERIAL_COMMUNICATOR, 3)
    3
    """
    value = communicator.broadcast(value)
    return value if communicator.batches is None else communicator.batches.broadcast(value)


def largest(communicator: Communicator, number: int) -> int:
    """The largest number on any process; all processes must call this.

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
    """All points except the one at which the layers start.

    Examples
    --------
    >>> own_points([0, 1, 2], reverse=True)
    [0, 1]
    """
    return points[:-1] if reverse else points[1:]


def squares(points: Tensor) -> Tensor:
    """The sum of squares of every point, in float64, with bits independent of the number of points.

    Examples
    --------
    >>> import torch
    >>> squares(torch.tensor([[3.0, 4.0], [1.0, 0.0]]))
    tensor([25.,  1.], dtype=torch.float64)
    """
    own = points.detach()
    exact = own.to(float64)
    # In place if `exact` is a copy.
    squared = exact.square() if exact is own else exact.mul_(exact)
    return squared.flatten(1).sum(1)


def gathered_norm(communicator: Communicator, points: Tensor, reverse: bool) -> float:
    """The norm of the points of all processes, bitwise the same for any number of processes.

    Examples
    --------
    >>> import torch
    >>> gathered_norm(SERIAL_COMMUNICATOR, torch.tensor([[3.0], [4.0]]), reverse=False)
    5.0
    """
    own = points if communicator.is_first(reverse) else own_points(points, reverse)
    return math.sqrt(communicator.gather(squares(own)[None]).sum())
