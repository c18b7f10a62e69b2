"""Files of `resumable_steps`: no damage is loaded; with a right digest it is taken as it is."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mgnet.depth import LayerParallel, ODENet
from mgnet.petsc import resumable_steps
from mgnet.petsc.resumable_file import ResumableFile
from tools.fuzz.stored import damage_stored, decoded, unchanged_but, without_sync

RATES = torch.optim.lr_scheduler


class Fuzzer:
    """Trainings with several optimizers and schedulers."""

    refusals = (OSError, ValueError)

    @without_sync()
    def prepare(self, folder: Path) -> None:
        """Train and save."""
        self.files = [
            _trained(folder / "sgd", torch.optim.SGD, None, 2, momentum=0.9),
            _trained(folder / "new", torch.optim.Adam, None, 0),
            _trained(folder / "adam", torch.optim.Adam, lambda o: RATES.StepLR(o, 2), 2),
            _trained(folder / "adamw", torch.optim.AdamW, _lambda, 2, amsgrad=True),
            _trained(
                folder / "rprop", torch.optim.Rprop, lambda o: RATES.MultiStepLR(o, [1, 1]), 1
            ),
            _trained(folder / "nadam", torch.optim.NAdam, lambda o: RATES.OneCycleLR(o, 0.1, 9), 2),
        ]
        self.states = [copy.deepcopy(_states(file)) for file in self.files]

    def draw(self, rng: np.random.Generator, folder: Path) -> str:
        """Copy one of the files, and damage it."""
        number = int(rng.integers(len(self.files)))
        self.file = self.files[number]
        for part, state in zip(_parts(self.file), self.states[number], strict=True):
            part.load_state_dict(copy.deepcopy(state))
        shutil.copy(self.file.path, folder / "run.pt")
        done, self.is_sealed = damage_stored(rng, folder / "run.pt")
        return f"{self.file.path.name} {done}"

    @without_sync()
    def use(self, folder: Path) -> bool:
        """Load it, save it again, and compare."""
        path, was = folder / "run.pt", self.file
        there = path.exists()
        list(resumable_steps(0, path, was.parallel, was.optimizer, scheduler=was.scheduler))
        if not there:
            return True
        content = path.read_bytes()
        if not self.is_sealed and content != was.path.read_bytes():
            return False
        step = ResumableFile(path, was.parallel, was.optimizer, was.scheduler).load()
        again = ResumableFile(folder / "again", was.parallel, was.optimizer, was.scheduler)
        again.save(step, "")
        theirs, ours = decoded(content), decoded(again.path.read_bytes())
        for told, _ in (theirs, ours):
            _open_options(told["net"])
        found = unchanged_but(list(theirs), list(ours), _has_defaults)
        if found:
            raise AssertionError(found)
        return True


def _has_defaults(path: str) -> bool:
    """Groups of an optimizer, and schedulers, may have more options than were saved."""
    return "param_groups" in path or "scheduler" in path or "optimizer/dict/1/1" in path


def _open_options(net: Any) -> None:
    """JSON that networks keep as bytes, padded by blanks, in the place of these bytes."""
    for pair in net["dict"]:
        if pair[0].endswith("_extra_state"):
            text = bytes.fromhex(pair[1]["tensor"][2]).decode("latin1")
            try:
                pair[1] = json.dumps(json.loads(text))
            except ValueError:
                pair[1] = text


def _lambda(optimizer: torch.optim.Optimizer) -> Any:
    return RATES.LambdaLR(optimizer, lambda step: 0.5**step)


def _trained(path: Path, kind: Any, scheduler: Any, steps: int, **options: Any) -> ResumableFile:
    torch.manual_seed(0)
    block = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(0.5))
    parallel = LayerParallel(ODENet(block, 4, after=torch.nn.Linear(2, 1)), 2, 2)
    optimizer = kind(parallel.parameters(), lr=0.1, **options)
    file = ResumableFile(path, parallel, optimizer, scheduler and scheduler(optimizer))
    for _ in range(steps):
        for parameter in parallel.parameters():
            parameter.grad = torch.randn(parameter.shape)
        optimizer.step()
        if file.scheduler is not None:
            file.scheduler.step()
    file.save(steps + 1, "")
    return file


def _parts(file: ResumableFile) -> list[Any]:
    return [part for part in (file.parallel, file.optimizer, file.scheduler) if part is not None]


def _states(file: ResumableFile) -> list[Any]:
    return [part.state_dict() for part in _parts(file)]
