"""Training that Ctrl-C, SIGTERM or a fault ends, and the same command goes on with."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import is_zipfile

import torch

from mgnet.depth import LayerParallel
from mgnet.depth.parallel.local_layers import first_not_finite
from mgnet.petsc.distribution import gather_state, load_state
from mgnet.petsc.launcher import finishing, is_gone

__all__ = ["resumable_steps"]

KEYS = {"step", "net", "optimizer", "scheduler", "random"}


def resumable_steps(
    count: int,
    path: str | Path,
    parallel: LayerParallel,
    optimizer: torch.optim.Optimizer,
    *,
    every: int = 100,
    scheduler: Any = None,
) -> Iterator[int]:
    """Numbers of training steps, with a checkpoint after every few of them.

    It begins where the checkpoint in `path` ends, if there is one, and goes on with the same bits
    on any number of ranks, or alone. At Ctrl-C or SIGTERM, on whichever rank, the step under way is
    finished and saved, and all ranks exit with 130 or 143; so do ranks whose launcher was killed. A
    file is replaced only by a complete one, and only by finite numbers.

    Parameters
    ----------
    count : int
        Steps in all, those of earlier runs included.
    path : str or Path
        Rank 0 reads and writes it.
    parallel : LayerParallel
        Distributed or not. States for warm starts are not saved: the next step begins cold.
    optimizer : torch.optim.Optimizer
        Of its parameters.
    every : int
        Steps between checkpoints.
    scheduler : optional
        Of the learning rate, or anything else with `state_dict` and `load_state_dict` that all
        ranks hold. PyTorch's default generator is saved without asking.

    Yields
    ------
    int
        The number of the next step, from 0.

    Raises
    ------
    FloatingPointError
        If there are NaN or infinite weights when a checkpoint is due; on all ranks, with the layer.
    ValueError
        If `path` holds something else, or `scheduler` is missing or new.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from mgnet.depth import ODENet
    >>> parallel = LayerParallel(ODENet(torch.nn.Linear(2, 2), 8))
    >>> optimizer, file = torch.optim.Adam(parallel.parameters()), Path(mkdtemp(), "run.pt")
    >>> for step in resumable_steps(3, file, parallel, optimizer):
    ...     parallel(torch.ones(1, 2)).sum().backward()
    ...     optimizer.step()
    >>> list(resumable_steps(5, file, parallel, optimizer))
    [3, 4]
    """
    if not isinstance(every, Integral) or every < 1:
        raise ValueError(f"resumable_steps got every = {every!r}; it must be at least 1 step")
    file, ranks = _File(Path(path), parallel, optimizer, scheduler), parallel.communicator
    saved, stop = file.load(), 0
    received: list[int] = []
    former = {
        number: signal.signal(number, lambda got, _: received.append(got))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        with finishing():
            for step in range(saved, count):
                yield step
                # A signal may have come to one rank alone.
                own = max([*received, signal.SIGTERM * is_gone()])
                stop = int(ranks.gather(torch.tensor([[own]])).max())
                if stop or (step + 1) % every == 0 or step + 1 == count:
                    file.save(step + 1, f"{path} holds step {saved}")
                    saved = step + 1
                if stop:
                    if ranks.rank == 0:
                        _tell(f"{signal.Signals(stop).name}: {saved} steps are saved in {path}")
                    sys.exit(128 + stop)
    finally:
        if not stop:  # a launcher may send more signals to ranks that are about to exit
            for number, handler in former.items():
                signal.signal(number, handler or signal.SIG_DFL)
    if received:  # while the last step was saved
        signal.raise_signal(received[0])


def _tell(line: str) -> None:
    with suppress(OSError):  # a launcher that is gone reads nothing
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


@dataclass(frozen=True)
class _File:
    path: Path
    parallel: LayerParallel
    optimizer: torch.optim.Optimizer
    scheduler: Any

    def load(self) -> int:
        """Take over what rank 0 reads, if there is a file; the number of steps done."""
        ranks = self.parallel.communicator
        whole = self._read() if ranks.rank == 0 and self.path.exists() else {}
        net, moments = whole.pop("net", None), whole.pop("optimizer", None)
        common = ranks.broadcast(whole)
        if not common:
            return 0
        load_state(self.parallel, net)
        load_state(self.parallel, moments, self.optimizer)
        if self.scheduler is not None:
            self.scheduler.load_state_dict(common["scheduler"])
        torch.set_rng_state(common["random"])
        return common["step"]

    def _read(self) -> dict[str, Any]:
        try:
            whole = torch.load(self.path, weights_only=True) if is_zipfile(self.path) else None
        except (RuntimeError, UnpicklingError):
            whole = None
        if not isinstance(whole, dict) or set(whole) != KEYS:
            raise ValueError(
                f"resumable_steps got {self.path}, which is not a checkpoint of its own; give "
                "another path, or remove the file"
            )
        if (self.scheduler is None) != (whole["scheduler"] is None):
            raise ValueError(
                f"resumable_steps got {self.path}, saved with{'out' * (self.scheduler is not None)}"
                " a scheduler; give what it was given then"
            )
        return whole

    def save(self, step: int, former: str) -> None:
        """Replace the file, if all numbers are finite."""
        self._check_finite(step, former)
        net, moments = (gather_state(self.parallel, each) for each in (None, self.optimizer))
        if self.parallel.communicator.rank == 0:
            scheduler = None if self.scheduler is None else self.scheduler.state_dict()
            states = {"net": net, "optimizer": moments, "scheduler": scheduler}
            self.path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = self.path.with_name(f".unfinished-{self.path.name}")
            with open(unfinished, "wb") as stream:
                torch.save({"step": step, "random": torch.get_rng_state(), **states}, stream)
                stream.flush()
                os.fsync(stream.fileno())
            unfinished.replace(self.path)
        self.parallel.communicator.broadcast(None)  # who exits earlier may end the rank that writes

    def _check_finite(self, step: int, former: str) -> None:
        own = first_not_finite(self.parallel.net, self.optimizer)
        found = torch.tensor([[-2 if own is None else own]])
        for rank, layer in enumerate(self.parallel.communicator.gather(found)[0].tolist()):
            if layer > -2:
                others = "before, after or shared by the layers"
                where = f"of layer {layer} on rank {rank}" if layer >= 0 else others
                raise FloatingPointError(
                    f"the weights {where}, or what the optimizer keeps of them, are not finite "
                    f"after step {step}, which is not saved; {former}"
                )
