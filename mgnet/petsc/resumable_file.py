"""The file of `resumable_steps`: the state of a training run, for any number of ranks.

"Files of checkpoints" in `docs/training.md` describes its entries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mgnet.checkpoint.generators import check_torch_state
from mgnet.checkpoint.storage import is_count, read_file, refusal, write_file
from mgnet.checkpoint.values import Reader, Writer
from mgnet.depth import LayerParallel
from mgnet.depth.mgrit.communicator import Communicator, of_first
from mgnet.depth.parallel.local_layers import first_not_finite, layered_names
from mgnet.petsc.distribution import gather_state, load_state
from mgnet.petsc.saved_states import check_groups, check_network, check_scheduler, first_difference

__all__ = ["ResumableFile"]

KIND = "resumable_steps"
STATES = "net", "optimizer", "scheduler", "random"
# Exceptions of optimizers and schedulers, PyTorch's or others, whose states are invalid.
TAKEN_BADLY = AttributeError, LookupError, RuntimeError, TypeError, ValueError
KEYS = {"step", "optimizer_class", "scheduler_class", *STATES}


@dataclass(frozen=True)
class ResumableFile:
    """Saves and loads the state of a training run; all ranks make the same calls.

    Attributes
    ----------
    path : Path
        The file, which rank 0 reads and writes.
    parallel : LayerParallel
        The module to train.
    optimizer : torch.optim.Optimizer
        The optimizer of its parameters.
    scheduler : optional
        A scheduler of the learning rate, or None.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from mgnet.depth import ODENet
    >>> parallel = LayerParallel(ODENet(torch.nn.Linear(2, 2), 8))
    >>> optimizer = torch.optim.Adam(parallel.parameters())
    >>> file = ResumableFile(Path(mkdtemp(), "run.pt"), parallel, optimizer, None)
    >>> file.save(3, "nothing is saved")
    >>> file.load()
    3
    """

    path: Path
    parallel: LayerParallel
    optimizer: torch.optim.Optimizer
    scheduler: Any

    def load(self) -> int:
        """Restore the state that rank 0 reads, if there is a file; return the number of steps done.

        Raises
        ------
        OSError, ValueError
            Raised on all ranks if the file is unreadable, damaged, or belongs to another run.
        """
        ranks = self.parallel.communicator
        read: dict[str, Any] = _by_first(ranks, self._read) or {}
        large = {name: read.pop(name, None) for name in ("net", "optimizer")}
        common = of_first(ranks, read)
        if not common:
            return 0
        try:
            load_state(self.parallel, large["net"])
            load_state(self.parallel, large["optimizer"], self.optimizer)
            if self.scheduler is not None:
                self.scheduler.load_state_dict(common["scheduler"])
        except TAKEN_BADLY as error:
            why = f"its states are not taken ({type(error).__name__}: {error})"
            raise _other_training(self.path, why) from None
        torch.set_rng_state(common["random"])
        now = {"net": gather_state(self.parallel)}
        now["optimizer"] = gather_state(self.parallel, self.optimizer)
        _by_first(ranks, lambda: self._compare({**common, **large}, now))
        return common["step"]

    def save(self, step: int, former: str) -> None:
        """Replace the file if all numbers are finite.

        Parameters
        ----------
        step : int
            Number of steps done.
        former : str
            A description of the state saved before, for the error message.

        Raises
        ------
        FloatingPointError
            If a number is not finite; raised on all ranks, with the number of the layer.
        OSError, TypeError
            If the file cannot be written or a value cannot be stored; raised on all ranks.
        """
        self._check_finite(step, former)
        net, moments = (gather_state(self.parallel, each) for each in (None, self.optimizer))
        # This also waits for rank 0: a rank that exits earlier may end the rank that writes.
        _by_first(self.parallel.communicator, lambda: self._write(step, net, moments))

    def _write(self, step: int, net: Any, moments: Any) -> None:
        writer, scheduler = Writer(), self.scheduler
        states = {
            "net": net,
            "optimizer": moments,
            "scheduler": None if scheduler is None else scheduler.state_dict(),
            "random": torch.get_rng_state(),
        }
        told = {
            "step": step,
            "optimizer_class": _name_of(self.optimizer),
            "scheduler_class": _name_of(scheduler),
            **{name: writer.encode(state, name) for name, state in states.items()},
        }
        write_file(self.path, KIND, told, writer.tensors)

    def _read(self) -> dict[str, Any]:
        if not self.path.exists():
            return {}
        told, tensors = read_file(self.path, KIND)
        try:
            read = self._decoded(told, tensors)
        except (ValueError, RuntimeError, RecursionError) as error:
            raise refusal(self.path, error) from None
        try:
            self._check_training(read)
        except (ValueError, RuntimeError, RecursionError) as error:
            raise _other_training(self.path, str(error)) from None
        return {name: read[name] for name in ("step", *STATES)}

    def _decoded(self, told: dict[str, Any], tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
        """The entries, if they are those of a training run."""
        told = {key: told[key] for key in told if key not in ("kind", "format", "mgnet")}
        if set(told) != KEYS:
            raise ValueError(f"its entries differ in {', '.join(sorted(set(told) ^ KEYS))[:100]}")
        if not is_count(told["step"], 1):
            raise ValueError(f"its number of steps is {told['step']!r}")
        reader = Reader(tensors, {})
        read = {name: reader.decode(told[name]) for name in STATES}
        reader.finish()
        check_torch_state(read["random"])
        return {**told, **read}

    def _check_training(self, read: dict[str, Any]) -> None:
        """Refuse entries that do not belong to this training run."""
        for part in ("optimizer", "scheduler"):
            saved, given = read[f"{part}_class"], _name_of(getattr(self, part))
            if saved != given:
                raise ValueError(
                    f"it was saved with the {part} {str(saved)[:80]}, and {given} is given"
                )
        net, depth = self.parallel.net, self.parallel.net.depth
        layered = {f"net.{name}" for name in layered_names(net)}
        check_network(read["net"], self.parallel.state_dict(), layered, depth)
        names = {id(value): name for name, value in self.parallel.named_parameters()}
        in_order = [p for group in self.optimizer.param_groups for p in group["params"]]
        shapes = [(depth, *p.shape[1:]) if names.get(id(p)) in layered else None for p in in_order]
        own = self.optimizer.state_dict()
        check_groups(read["optimizer"], own, shapes)
        for group, ours in zip(read["optimizer"]["param_groups"], own["param_groups"], strict=True):
            group |= {key: ours[key] for key in ours if key not in group}  # from a newer PyTorch
        check_scheduler(read["scheduler"], self.scheduler)

    def _compare(self, read: Mapping[str, Any], now: dict[str, Any]) -> None:
        """Refuse values that were restored in another form, such as another precision."""
        scheduler = None if self.scheduler is None else self.scheduler.state_dict()
        now |= {"scheduler": scheduler, "random": torch.get_rng_state(), "step": read["step"]}
        found = first_difference(read, now)
        if found:
            raise _other_training(
                self.path, f"what was saved as {found} is not taken over with the same bits"
            )

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


def _by_first(ranks: Communicator, action: Callable[[], Any]) -> Any:
    """Call `action` on rank 0 and return its result there; an error is raised on all ranks."""
    value: Any = None
    error: Exception | None = None
    if ranks.rank == 0:
        try:
            value = action()
        except Exception as raised:
            error = raised
    sent = error
    if not (error is None or isinstance(error, OSError | ValueError | TypeError)):
        sent = RuntimeError(f"{type(error).__name__} on rank 0: {error}")  # can be pickled
    sent = of_first(ranks, sent)
    if sent is not None:
        raise sent if error is None else error
    return value


def _other_training(path: Path, why: str) -> ValueError:
    """The error for an intact file that does not match the given objects."""
    text = " ".join(why.split())
    short = text if len(text) <= 300 else f"{text[:300]}..."
    return ValueError(
        f"the checkpoint {path} is not of this training: {short}; give the network, optimizer and "
        "scheduler that were saved"
    )


def _name_of(value: Any) -> str | None:
    return None if value is None else type(value).__name__
