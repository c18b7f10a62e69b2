"""Training that Ctrl-C, SIGTERM or a fault ends, and the same command goes on with."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import is_zipfile

import torch

from mgnet.depth import LayerParallel
from mgnet.depth.kept_layers import first_not_finite
from mgnet.petsc.distribution import gather_state, load_state

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
    finished and saved, and all ranks exit with 130 or 143. A file is replaced only by a complete
    one, and only by finite numbers.

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
        If `path` holds something else.

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
    if not isinstance(every, int) or every < 1:
        raise ValueError(f"resumable_steps got every = {every!r}; it must be at least 1 step")
    path, ranks = Path(path), parallel.neighbours
    saved = _load(path, parallel, optimizer, scheduler)
    received: list[int] = []
    stop = 0
    former = {
        number: signal.signal(number, lambda got, _: received.append(got))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        for step in range(saved, count):
            yield step
            # A signal may have come to one rank alone.
            stop = int(ranks.gather(torch.tensor([[max(received, default=0)]])).max())
            if stop or (step + 1) % every == 0 or step + 1 == count:
                _check_finite(parallel, optimizer, step + 1, f"{path} holds step {saved}")
                saved = step + 1
                _save(path, saved, parallel, optimizer, scheduler)
            if stop:
                if ranks.rank == 0:
                    name = signal.Signals(stop).name
                    sys.stderr.write(f"{name}: {saved} steps are saved in {path}\n")
                raise SystemExit(128 + stop)
    finally:
        if not stop:  # a launcher may send more signals to ranks that are about to exit
            for number, handler in former.items():
                signal.signal(number, handler or signal.SIG_DFL)
    if received:  # while the last step was saved
        signal.raise_signal(received[0])


def _load(
    path: Path, parallel: LayerParallel, optimizer: torch.optim.Optimizer, scheduler: Any
) -> int:
    """The number of steps done."""
    ranks = parallel.neighbours
    whole = _read(path) if ranks.rank == 0 and path.exists() else {}
    net, moments = whole.pop("net", None), whole.pop("optimizer", None)
    common = ranks.agree(whole)
    if not common:
        return 0
    load_state(parallel, net)
    load_state(parallel, moments, optimizer)
    if scheduler is not None:
        scheduler.load_state_dict(common["scheduler"])
    torch.set_rng_state(common["random"])
    return common["step"]


def _read(path: Path) -> dict[str, Any]:
    try:
        whole = torch.load(path, weights_only=True) if is_zipfile(path) else None
    except (RuntimeError, UnpicklingError):
        whole = None
    if not isinstance(whole, dict) or set(whole) != KEYS:
        raise ValueError(
            f"resumable_steps got {path}, which is not a checkpoint of its own; give another path, "
            "or remove the file"
        )
    return whole


def _save(
    path: Path,
    step: int,
    parallel: LayerParallel,
    optimizer: torch.optim.Optimizer,
    scheduler: Any,
) -> None:
    net, moments = gather_state(parallel), gather_state(parallel, optimizer)
    if parallel.neighbours.rank == 0:
        whole = {
            "step": step,
            "net": net,
            "optimizer": moments,
            "scheduler": None if scheduler is None else scheduler.state_dict(),
            "random": torch.get_rng_state(),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".unfinished-{path.name}")
        with open(unfinished, "wb") as stream:
            torch.save(whole, stream)
            stream.flush()
            os.fsync(stream.fileno())
        unfinished.replace(path)
    parallel.neighbours.agree(None)  # a rank that exits earlier may end the one that writes


def _check_finite(
    parallel: LayerParallel, optimizer: torch.optim.Optimizer, step: int, kept: str
) -> None:
    own = first_not_finite(parallel.net, optimizer)
    told = parallel.neighbours.gather(torch.tensor([[-2 if own is None else own]]))[0].tolist()
    for rank, layer in enumerate(told):
        if layer > -2:
            where = f"of layer {layer} on rank {rank}" if layer >= 0 else "around the layers"
            raise FloatingPointError(
                f"the weights {where}, or what the optimizer keeps of them, are not finite after "
                f"step {step}, which is not saved; {kept}"
            )
