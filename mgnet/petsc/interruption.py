"""Training that can be resumed by the same command after Ctrl-C, SIGTERM or a crash."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from numbers import Integral
from pathlib import Path
from typing import Any

import torch

from mgnet.depth import LayerParallel
from mgnet.depth.mgrit.communicator import largest
from mgnet.petsc.launcher import finishing, is_gone
from mgnet.petsc.resumable_file import ResumableFile

__all__ = ["resumable_steps"]


def resumable_steps(
    count: int,
    path: str | Path,
    parallel: LayerParallel,
    optimizer: torch.optim.Optimizer,
    *,
    every: int = 100,
    scheduler: Any = None,
) -> Iterator[int]:
    """Yield the numbers of training steps, and save a checkpoint at regular intervals.

    If the file `path` exists, the numbers start after the last step that it contains, and training
    continues with identical bits on any number of ranks, or without MPI. After Ctrl-C or SIGTERM on
    any rank, the current step is finished and saved, and all ranks exit with 130 or 143; if the
    launcher was killed, they do the same as after SIGTERM. The file is replaced only by a complete
    file with finite numbers.

    Parameters
    ----------
    count : int
        Total number of steps, including those of earlier runs.
    path : str or Path
        File that rank 0 reads and writes. It contains a digest, so a damaged file is refused.
    parallel : LayerParallel
        The module to train, distributed or not. States for warm starts are not saved: the first
        step after a restart does not use them.
    optimizer : torch.optim.Optimizer
        The optimizer of the parameters of `parallel`.
    every : int
        Number of steps between two checkpoints.
    scheduler : optional
        A scheduler of the learning rate, or another object with `state_dict` and `load_state_dict`
        that all ranks hold. The state of PyTorch's default generator is always saved.

    Yields
    ------
    int
        The number of the next step, from 0.

    Raises
    ------
    FloatingPointError
        If weights are NaN or infinite when a checkpoint is due; raised on all ranks, with the
        number of the layer.
    OSError
        If the file cannot be read or written; raised on all ranks. An earlier file remains intact.
    TypeError
        If the optimizer or the scheduler has a state that cannot be stored, such as a function, or
        if `parallel` is not a `LayerParallel` module.
    ValueError
        If the optimizer has parameters that do not belong to `parallel`, or if this is not the main
        thread. Also, on all ranks, if the file is damaged or belongs to another run: network,
        optimizer and scheduler must be those that were saved.

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
    if not isinstance(parallel, LayerParallel):
        raise TypeError(
            f"resumable_steps got a {type(parallel).__name__}; it is for LayerParallel: for other "
            "modules rank 0 may save state_dict(), which every rank has"
        )
    if not isinstance(every, Integral) or every < 1:
        raise ValueError(f"resumable_steps got every = {every!r}; it must be at least 1 step")
    if not isinstance(count, Integral) or count < 0:
        raise ValueError(f"resumable_steps got count = {count!r}; it must be 0 steps or more")
    if threading.current_thread() is not threading.main_thread():
        raise ValueError(
            "resumable_steps got called in a thread; only the main one receives Ctrl-C and SIGTERM"
        )
    own = {id(parameter) for parameter in parallel.parameters()}
    if any(id(p) not in own for group in optimizer.param_groups for p in group["params"]):
        raise ValueError(
            "resumable_steps got an optimizer with parameters that are not in the LayerParallel, "
            "which would not be saved; put their module before or after the layers of its net"
        )
    file, ranks = ResumableFile(Path(path), parallel, optimizer, scheduler), parallel.communicator
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
                # Perhaps only one rank has received a signal.
                own = max([*received, signal.SIGTERM * is_gone()])
                stop = largest(ranks, own)
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
    if received:  # a signal arrived while the last step was being saved
        signal.raise_signal(received[0])


def _tell(line: str) -> None:
    with suppress(OSError):  # the launcher has ended and does not read
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
