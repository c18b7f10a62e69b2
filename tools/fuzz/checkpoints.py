"""Folders of `Checkpoint`: no damage is loaded, and what has a right digest is loaded as it is."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mgnet import Hierarchy, Jacobi, Level, Schedule, gallery, parse, run
from mgnet.checkpoint import Checkpoint
from mgnet.checkpoint.content import KEYS
from mgnet.depth import ODENet
from mgnet.knots import KAN, FreeKnotKAN, knot_hierarchy
from mgnet.training import LBFGS, LeastSquares, LevenbergMarquardt, TorchOptimizer
from tools.fuzz.damage import damage_file
from tools.fuzz.stored import (
    damage_json,
    damage_stored,
    decoded,
    unsealed,
    with_tensors,
    without_sync,
)

FILE, FORMER = "checkpoint.safetensors", "checkpoint.json"
LM, ADAM = LevenbergMarquardt(), TorchOptimizer(torch.optim.Adam, {"lr": 0.02})


class Fuzzer:
    """Runs of several kinds, saved after each of their steps, in the first format, too."""

    refusals = (OSError, ValueError)

    @without_sync()
    def prepare(self, folder: Path) -> None:
        """Save the runs."""
        torch.manual_seed(0)
        self.runs: list[tuple[Path, Hierarchy, Schedule]] = []
        self.generators: dict[str, Any] = {
            "rows": torch.Generator().manual_seed(3),
            "more": np.random.default_rng(4),
            "old": np.random.Generator(np.random.MT19937(5)),
        }
        self._save(folder / "cascade", _knots(KAN([1, 2, 1], 2), LM), "cascade 2,2,2")
        free = FreeKnotKAN([1, 2, 1], 2, linear=False)
        problem = LeastSquares(free, _data())
        one = Hierarchy([Level(problem, LBFGS(), objective=problem.value)])
        self._save(folder / "free", one, "cascade 3")
        self._save(folder / "cycle", _knots(KAN([1, 2, 1], 2), LBFGS(), "injected"), "F(1,1)")
        self._save(folder / "adam", _knots(KAN([1, 2, 1], 2), ADAM), "nested V(1,1)")
        self._save(folder / "module", _modules(), "cascade 2")
        jacobi = [Level(a.matrix.toarray(), a.smoother, a.transfer) for a in _poisson()]
        self._save(folder / "linear", Hierarchy(jacobi), "nested F(1,1)", np.ones(15))

    def _save(self, folder: Path, hierarchy: Hierarchy, text: str, f: Any = None) -> None:
        schedule = parse(text, len(hierarchy))
        start = None if f is not None else hierarchy[0].operator.start()

        def record(step: Any, data: Any) -> None:
            own = folder / str(data.progress.position)
            Checkpoint.of(data.progress, hierarchy, self.generators).save(own)
            self.runs.append((own, hierarchy, schedule))

        run(schedule, hierarchy, start, f, record=record)

    def draw(self, rng: np.random.Generator, folder: Path) -> str:
        """Copy one of the checkpoints, and damage it."""
        self.source, self.hierarchy, self.schedule = self.runs[int(rng.integers(len(self.runs)))]
        shutil.copy(self.source / FILE, folder / FILE)
        name = f"{self.source.parent.name}/{self.source.name}"
        self.former = rng.random() < 0.15
        if not self.former:
            done, self.is_sealed = damage_stored(rng, folder / FILE)
            return f"{name} {done}"
        tensors = _first_format(folder)
        which = folder / (FORMER if rng.random() < 0.7 else tensors)
        if which.name == FORMER and rng.random() < 0.7:
            text, done = damage_json(rng, which.read_text())
            which.write_text(text)
        else:
            done = damage_file(rng, which)
        return f"{name} {done}, first format"

    @without_sync()
    def use(self, folder: Path) -> bool:
        """Load it, compare with the file, and go on from it."""
        saved = Checkpoint.load(folder)
        saved.save(folder / "again")
        told, rest = decoded((folder / "again" / FILE).read_bytes())
        if self.former:
            theirs = json.loads((folder / FORMER).read_text())
            content = (folder / theirs["tensors"]).read_bytes()
            length = int.from_bytes(content[:8], "little")
            theirs = {key: theirs[key] for key in KEYS} | {"kind": "Checkpoint", "format": 2}
            other = with_tensors(theirs, json.loads(content[8 : 8 + length]), content[8 + length :])
        else:
            content = (folder / FILE).read_bytes()
            if not self.is_sealed and content != (self.source / FILE).read_bytes():
                return False
            other = decoded(content)
        same = _text(other) == _text((told, rest))
        if not same:
            return False
        saved.resume_on(self.schedule, self.hierarchy)
        try:
            saved.restore(self.generators)
        except TypeError as error:
            if "generator for" not in str(error):
                raise
        network = saved.networks[saved.level]
        if network is not None:
            saved.state_dict()
            if network["kind"] in ("KAN", "FreeKnotKAN"):
                saved.network()
        return True


def _first_format(folder: Path) -> str:
    """The same as it was first: two files."""
    told, header, data = unsealed((folder / FILE).read_bytes())
    text = json.dumps(header).encode()
    content = len(text).to_bytes(8, "little") + text + data
    digest = hashlib.sha256(content).hexdigest()
    name = f"tensors-{digest[:16]}.safetensors"
    told |= {"format": 1, "packed": {}, "tensors": name, "sha256": digest}
    (folder / name).write_bytes(content)
    (folder / FORMER).write_text(json.dumps(told))
    (folder / FILE).unlink()
    return name


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _data() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.linspace(-1, 1, 12, dtype=torch.float64).unsqueeze(1)
    return x, torch.sin(6 * x)


def _knots(kan: KAN, smoother: Any, form: Any = "subspace") -> Hierarchy:
    return knot_hierarchy(kan, LeastSquares(kan, _data()), 3, smoother, form=form)


def _modules() -> Hierarchy:
    """With a frozen layer, a buffer, tied parameters, and options in the state."""
    module = torch.nn.Sequential(
        torch.nn.Linear(1, 2), torch.nn.Linear(2, 2), torch.nn.Linear(2, 2), torch.nn.Linear(2, 1)
    )
    module[2].weight = module[1].weight  # type: ignore[assignment]
    module[0].requires_grad_(False)
    module.append(ODENet(torch.nn.Linear(1, 1), 3)).double()
    module.register_buffer("offset", torch.tensor(3.0))
    problem = LeastSquares(module, _data())
    return Hierarchy([Level(problem, ADAM, objective=problem.value)])


def _poisson() -> Hierarchy:
    return gallery.poisson(15, coarse_solver=Jacobi())
