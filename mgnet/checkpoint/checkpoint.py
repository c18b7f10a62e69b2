"""Checkpoints: files that store a run, which then continues with bitwise identical results.

A checkpoint is a folder with the file `checkpoint.safetensors`. `docs/training.md`, "Files of
checkpoints", describes its contents.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mgnet import Hierarchy, Progress, Schedule, Step, StepData
from mgnet.checkpoint.architecture import check_shapes, from_config, to_config, without_extra_state
from mgnet.checkpoint.content import KEYS, read_fields, written
from mgnet.checkpoint.former import read_pair
from mgnet.checkpoint.generators import Generator, restore_state, state_of
from mgnet.checkpoint.storage import read_file, refusal, write_file
from mgnet.knots import KAN, FreeKnotKAN
from mgnet.training.extra_state import check_options, decode
from mgnet.training.record import network_of

__all__ = ["Checkpoint", "Checkpoints"]

FILE, FORMER = "checkpoint.safetensors", "checkpoint.json"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A run as it stands after one of its steps, to be saved or loaded from a file.

    Attributes
    ----------
    progress : Progress
        State of the run, without data that later steps do not need.
    level : int
        Number of the finest level whose network the next steps change; 0 is the finest of all.
    networks : tuple of (dict or None)
        For each level, the arguments or shapes of its network, and the shapes of the trained
        parameters. None on levels whose operator is not an `Objective`.
    smoothers : tuple of str
        Classes of the smoothers.
    fixed : dict
        For each level, the tensors of its network besides trained parameters, by name.
    generators : dict
        States of the random generators, by name.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from mgnet import cascade, run
    >>> from mgnet.knots import knot_hierarchy
    >>> from mgnet.training import LeastSquares, LevenbergMarquardt
    >>> x = torch.linspace(-1, 1, 50, dtype=torch.float64).unsqueeze(1)
    >>> problem = LeastSquares(KAN([1, 2, 1], intervals=2), (x, torch.sin(8 * x)))
    >>> def hierarchy(levels):
    ...     return knot_hierarchy(problem.network, problem, levels, LevenbergMarquardt())
    >>> folder, start = mkdtemp(), hierarchy(2)[0].operator.start()
    >>> checkpoints = Checkpoints(folder, hierarchy(2))
    >>> u, _ = run(cascade([5, 5]), hierarchy(2), start, None, record=checkpoints)
    >>> saved = Checkpoint.load(folder)
    >>> bool((saved.network()(x) == hierarchy(2).network(0, u)(x)).all())
    True

    The run continues, one level finer:

    >>> longer = cascade([5, 5, 5])
    >>> resume = saved.resume_on(longer, hierarchy(3))
    >>> u, _ = run(longer, hierarchy(3), None, None, resume=resume)
    >>> len(u)
    44
    """

    progress: Progress
    level: int
    networks: tuple[dict[str, Any] | None, ...]
    smoothers: tuple[str, ...]
    fixed: dict[int, dict[str, torch.Tensor]] = field(default_factory=dict, repr=False)
    generators: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls,
        progress: Progress,
        hierarchy: Hierarchy,
        generators: Mapping[str, Generator] | None = None,
    ) -> Checkpoint:
        """Record a run from the `progress` that `run` passes to its recorder.

        Parameters
        ----------
        progress : Progress
            State of the run.
        hierarchy : Hierarchy
            Hierarchy of the run.
        generators : mapping, optional
            All random generators that the run draws from, by names of your choice. If gradients
            draw random numbers (a new batch each time), do not resume within a descent to coarser
            levels: a coarse level that was built around a fine state is built again, and would
            draw again.
        """
        schedule, position, us, fs, vs, rs, memory = progress
        last = schedule[position - 1]
        current = last.level + (last.action == "down")
        under_way = [l for l, r in enumerate(rs) if r is not None]
        us = _only(us, (current, *under_way))
        fs, vs = _only(fs, range(current + 1)), _only(vs, [l + 1 for l in under_way])
        # Below a recentered descent states are corrections, not parameters.
        recentred = [l for l in under_way if hierarchy[l].recenter is not None]
        level = min([current, *recentred])
        fixed = {}
        for l in {level, *under_way}:
            network = network_of(hierarchy[l])
            if l <= level and network is not None:
                trained = {id(p) for p in network.parameters() if p.requires_grad}
                entries = network.state_dict(keep_vars=True).items()
                fixed[l] = {name: value for name, value in entries if id(value) not in trained}
        return cls(
            Progress(schedule, position, us, fs, vs, rs, memory),
            level,
            tuple(_told(hierarchy[l]) for l in range(len(hierarchy))),
            tuple(_smoothers(hierarchy[l]) for l in range(len(hierarchy))),
            fixed,
            {name: state_of(generator, name) for name, generator in (generators or {}).items()},
        )

    def save(self, folder: str | Path) -> None:
        """Write the folder, or replace the checkpoint in it.

        At all times the folder holds a complete checkpoint, either the old one or the new one.

        Raises
        ------
        OSError
            If it cannot be written; the old checkpoint is then intact.
        TypeError
            If the memory of a smoother contains objects that cannot be stored, such as factors of
            matrices.
        """
        told, tensors = written(vars(self))
        write_file(Path(folder) / FILE, "Checkpoint", told, tensors)

    @classmethod
    def load(cls, folder: str | Path) -> Checkpoint:
        """Read a checkpoint.

        Raises
        ------
        OSError, ValueError
            If there is no checkpoint, or if it is damaged or a newer version wrote it.
        """
        file, former = Path(folder) / FILE, Path(folder) / FORMER
        if file.exists():
            told, tensors = read_file(file, "Checkpoint")
            told = {key: told[key] for key in told if key not in ("kind", "format", "mgnet")}
        elif former.exists():
            file = former
            told, tensors = read_pair(former)
            told = {key: told[key] for key in told if key in KEYS}
        else:
            raise FileNotFoundError(f"{folder} holds no {FILE}; give the folder of a checkpoint")
        try:
            return cls(**read_fields(told, tensors))
        except (ValueError, RecursionError) as error:
            raise refusal(file, error) from None

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The tensors of the network on `level`, for its `load_state_dict`.

        Raises
        ------
        ValueError
            If that level has no network.
        """
        told, u = self.networks[self.level], self.progress.us[self.level]
        if told is None or u is None:
            raise ValueError(
                "this checkpoint has no network: the operator of its level is not an Objective"
            )
        parts = u.split([int(np.prod(shape)) for shape in told["trained"].values()])
        named = zip(told["trained"].items(), parts, strict=True)
        state = {name: part.view(shape) for (name, shape), part in named}
        tied = {name: state[other] for name, other in told["tied"].items()}
        return state | tied | self.fixed.get(self.level, {})

    def network(self) -> KAN | FreeKnotKAN:
        """The KAN on `level` at the time of the checkpoint; for other networks use `state_dict`.

        Raises
        ------
        ValueError
            If the network is not a KAN or does not fit its tensors.
        """
        told, state = self.networks[self.level] or {"kind": "unknown"}, self.state_dict()
        if "widths" in told:
            check_shapes(told, state)
        network = from_config(told)
        try:
            network.load_state_dict(state)
        except RuntimeError as error:
            raise ValueError(f"the checkpoint lacks its own network: {_short(error)}") from None
        return network

    def restore(self, generators: Mapping[str, Generator]) -> None:
        """Restore the states of random generators, by the names given to `of`.

        Raises
        ------
        ValueError
            If the names or kinds of the generators differ from those in the checkpoint.
        """
        if set(generators) != set(self.generators):
            raise ValueError(
                f"Checkpoint.restore got generators {sorted(generators)}; the checkpoint has "
                f"{sorted(self.generators)}"
            )
        for name, generator in generators.items():
            restore_state(generator, self.generators[name], name)

    def resume_on(self, schedule: Schedule, hierarchy: Hierarchy) -> Progress:
        """The `Progress` with which `run(schedule, hierarchy, None, None, resume=...)` continues.

        Parameters
        ----------
        schedule : Schedule
            Schedule that begins with the completed steps; later steps may differ from those of the
            saved schedule.
        hierarchy : Hierarchy
            Hierarchy like the saved one, built by the same program. If no descent is in progress,
            as in a cascade, it may have more (or fewer) levels above the current one.

        Raises
        ------
        ValueError
            If a part does not match the checkpoint; the message names it.
        """
        progress, shift = self.progress, len(hierarchy) - len(self.networks)
        done = [Step(a, l + shift, n) for a, l, n in progress.schedule[: progress.position]]
        if list(schedule[: len(done)]) != done:
            raise ValueError(
                f"the checkpoint was made after {len(done)} steps, and the schedule on "
                f"{len(hierarchy)} levels does not begin with them; only later steps may differ"
            )
        bound = [s for s in (*progress.fs, *progress.vs, *progress.rs) if s is not None]
        if shift and bound:
            raise ValueError(
                f"the checkpoint has right-hand sides on {len(self.networks)} levels; it cannot be "
                f"resumed on {len(hierarchy)}: only cascades without them can"
            )
        for l in range(len(self.networks)):
            if progress.us[l] is not None or any(key[0] == l for key in progress.memory):
                self._check_level(l, hierarchy[l + shift])
        us, fs, vs, rs = (_moved(part, shift) for part in progress[2:6])
        memory = {(l + shift, role): value for (l, role), value in progress.memory.items()}
        return Progress(schedule, progress.position, us, fs, vs, rs, memory)

    def _check_level(self, l: int, level: Any) -> None:
        for what, saved, there in (
            ("the network", without_extra_state(self.networks[l]), _told(level)),
            ("the smoother", self.smoothers[l], _smoothers(level)),
        ):
            if saved != there:
                saved, there = _differing(saved, there)
                raise ValueError(
                    f"the checkpoint has on level {l} {what} {saved}, the hierarchy has {there}; "
                    "build the same one"
                )
        network = network_of(level)
        own = {} if network is None else network.state_dict()
        for name, value in self.fixed.get(l, {}).items():
            if name.endswith("_extra_state") and name in own:
                try:  # an older version may have saved fewer options
                    check_options(f"level {l}, {name},", _flat(value), _flat(own[name]))
                except (RuntimeError, ValueError) as error:
                    raise ValueError(f"the checkpoint does not fit: {_short(error)}") from None
            elif name not in own or not _same(value, own[name]):
                raise ValueError(
                    f"the checkpoint has on level {l} another {name}, which is not trained; "
                    "load_state_dict it into the network before you build the hierarchy"
                )


class Checkpoints:
    """Saves a checkpoint every few steps when passed to `run` or `Solver` as `record`.

    Parameters
    ----------
    folder : str or Path
        Folder to write to; created if necessary.
    hierarchy : Hierarchy
        Hierarchy of the run.
    every : int
        Number of steps between checkpoints. `schedule.split()` has a step for every sweep;
        `len(cycle)` saves once per cycle, as `Solver` with batches requires, because a batch is
        not saved.
    generators : mapping, optional
        Random generators, as for `Checkpoint.of`.

    Raises
    ------
    ValueError
        If `every` is not a positive integer.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from mgnet import Jacobi, Solver, gallery
    >>> hierarchy, folder = gallery.poisson(7, levels=1, coarse_solver=Jacobi()), mkdtemp()
    >>> checkpoints = Checkpoints(folder, hierarchy, every=2)
    >>> solver = Solver(hierarchy, "V(0,0,1)", max_cycles=5, record=checkpoints)
    >>> solution = solver.solve(np.ones(7))
    """

    def __init__(
        self,
        folder: str | Path,
        hierarchy: Hierarchy,
        every: int = 1,
        generators: Mapping[str, Generator] | None = None,
    ):
        if not isinstance(every, Integral) or every < 1:
            raise ValueError(f"Checkpoints got every = {every!r}; it must be at least 1 step")
        self.folder: Path = Path(folder)
        self.hierarchy: Hierarchy = hierarchy
        self.every: int = every
        self.generators: Mapping[str, Generator] | None = generators
        self.steps: int = 0

    def __call__(self, step: Step, data: StepData) -> None:
        """Count a step, and save a checkpoint after every `every` steps."""
        self.steps += 1
        if self.steps % self.every == 0:
            Checkpoint.of(data.progress, self.hierarchy, self.generators).save(self.folder)


def _told(level: Any) -> dict[str, Any] | None:
    network = network_of(level)
    if network is None:
        return None
    trained = {name: list(shape) for name, shape in level.operator.shapes.items()}
    first = {id(p): name for name, p in network.named_parameters()}
    every = network.state_dict(keep_vars=True).items()
    tied = {name: first[id(p)] for name, p in every if first.get(id(p), name) != name}
    return to_config(network) | {
        "trained": trained,
        "tied": {name: other for name, other in tied.items() if other in trained},
    }


def _differing(saved: Any, there: Any) -> list[str]:
    """A short text that shows two descriptions; for dicts, only the entries that differ."""
    if isinstance(saved, dict) and isinstance(there, dict):
        keys = [k for k in {**saved, **there} if saved.get(k) != there.get(k)]
        saved, there = ({k: each.get(k) for k in keys} for each in (saved, there))
    return [_short(saved), _short(there)]


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 300 else f"{text[:300]}..."


def _same(value: torch.Tensor, own: torch.Tensor) -> bool:
    alike = (value.dtype, value.shape) == (own.dtype, own.shape)
    return alike and torch.equal(value.cpu(), own.cpu())


def _flat(state: torch.Tensor) -> dict[str, Any]:
    # An ODENet has the seed beside its options; older versions stored nothing else.
    told = {} if state.numel() == 2 else decode(state)
    options = told.pop("options", {})
    if not isinstance(options, dict):
        raise ValueError(f"the options {_short(options)} have no names")
    return options | told


def _smoothers(level: Any) -> str:
    both = (level.smoother, level.post_smoother)
    return " / ".join(type(each).__name__ for each in both if each is not None)


def _only(states: tuple[Any, ...], needed: Collection[int]) -> tuple[Any, ...]:
    return tuple(state if l in needed else None for l, state in enumerate(states))


def _moved(states: tuple[Any, ...], shift: int) -> tuple[Any, ...]:
    """The states for more or fewer levels; the coarsest state stays on the coarsest level."""
    return (None,) * shift + states if shift >= 0 else states[-shift:]
