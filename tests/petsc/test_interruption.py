"""Law: a training goes on from its file with the same bits, and the file is always whole.

More ranks: tests/mpi/test_layer_fault.py.
"""

import errno
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from mgnet.depth import LayerParallel, ODENet
from mgnet.petsc import launcher, resumable_steps

STEPS = 7


@pytest.fixture(autouse=True)
def same_handlers():
    numbers = signal.SIGINT, signal.SIGTERM
    former = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, former, strict=True):
        signal.signal(number, handler)


class Training:
    """Dropout, random batches and a schedule of the learning rate; every step is noted."""

    def __init__(self, seed=0, layers=6):
        torch.manual_seed(seed)
        block = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Dropout(0.3))
        net = ODENet(block, layers, after=nn.Linear(3, 1))
        self.parallel = LayerParallel(net, 2, 2)
        self.optimizer = torch.optim.Adam(self.parallel.parameters(), 0.1)
        self.scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, 2, 0.5)
        self.seen: list[int] = []

    def step(self):
        self.optimizer.zero_grad()
        self.parallel(torch.randn(4, 3)).square().mean().backward()
        self.optimizer.step()
        self.scheduler.step()

    def steps(self, file, count=STEPS, every=3):
        options = {"every": every, "scheduler": self.scheduler}
        for step in resumable_steps(count, file, self.parallel, self.optimizer, **options):
            self.seen.append(step)
            yield step

    def run(self, file, count=STEPS, at=-1, do=None, every=3):
        for step in self.steps(file, count, every):
            if step == at:
                do()
            self.step()
        return [parameter.detach() for parameter in self.parallel.parameters()]


@pytest.fixture(scope="module")
def uninterrupted():
    """An ordinary loop."""
    training = Training()
    for _ in range(STEPS):
        training.step()
    return [parameter.detach() for parameter in training.parallel.parameters()]


def same(tensors, others):
    return all(torch.equal(a, b) for a, b in zip(tensors, others, strict=True))


@pytest.mark.filterwarnings("ignore:LayerParallel goes on")
def test_an_exception_loses_nothing_after_the_last_checkpoint(tmp_path, uninterrupted):
    file, first = tmp_path / "new" / "run.pt", Training()
    with pytest.raises(ZeroDivisionError):
        first.run(file, at=5, do=lambda: 1 / 0)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    second = Training(seed=1)
    assert same(second.run(file), uninterrupted) and second.seen == [3, 4, 5, 6]
    third = Training(seed=2)
    assert same(third.run(file), uninterrupted) and third.seen == []
    assert [each.name for each in file.parent.iterdir()] == ["run.pt"]


@pytest.mark.filterwarnings("ignore:LayerParallel goes on")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_after_the_step(tmp_path, uninterrupted, number, capsys):
    file, first = tmp_path / "run.pt", Training()
    with pytest.raises(SystemExit) as error:
        first.run(file, at=4, do=lambda: os.kill(os.getpid(), number))
    assert error.value.code == 128 + number and first.seen[-1] == 4
    assert capsys.readouterr().err == f"{number.name}: 5 steps are saved in {file}\n"
    second = Training(seed=1)
    assert same(second.run(file), uninterrupted) and second.seen == [5, 6]


@pytest.mark.filterwarnings("ignore:LayerParallel goes on")
def test_a_launcher_that_is_gone_ends_after_the_step(tmp_path, uninterrupted, monkeypatch):
    file, first = tmp_path / "run.pt", Training()
    gone = [os.getppid() + 1]
    with pytest.raises(SystemExit) as error:
        first.run(file, at=4, do=lambda: monkeypatch.setattr(launcher, "_parents", gone))
    assert error.value.code == 143
    monkeypatch.undo()
    second = Training(seed=1)
    assert same(second.run(file), uninterrupted) and second.seen == [5, 6]


@pytest.mark.filterwarnings("ignore:LayerParallel goes on")
def test_a_signal_while_the_last_step_is_saved_is_not_lost(tmp_path, monkeypatch):
    got, sync = [], os.fsync
    signal.signal(signal.SIGTERM, lambda number, frame: got.append(number))
    monkeypatch.setattr(
        os, "fsync", lambda given: (not got and os.kill(os.getpid(), signal.SIGTERM), sync(given))
    )
    Training().run(tmp_path / "run.pt", 1)
    assert got == [signal.SIGTERM]


@pytest.mark.filterwarnings("ignore:LayerParallel goes on")
def test_a_disk_that_is_full_leaves_the_former_file(tmp_path, uninterrupted, monkeypatch):
    file, first = tmp_path / "run.pt", Training()

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="not saved .No space left on device.; .*the old one is"):
        first.run(file, at=4, do=lambda: monkeypatch.setattr(os, "fsync", full))
    monkeypatch.undo()
    assert [each.name for each in file.parent.iterdir()] == ["run.pt"]
    second = Training(seed=1)
    assert same(second.run(file), uninterrupted) and second.seen == [3, 4, 5, 6]


@pytest.mark.filterwarnings("ignore:LayerParallel goes on")
@pytest.mark.parametrize("part", ["layer", "after", "moment"])
def test_nan_is_a_reason_and_is_not_saved(tmp_path, uninterrupted, part):
    file, training = tmp_path / "run.pt", Training()

    def poison():
        net = training.parallel.net
        if part == "after":
            net.after.bias.register_hook(lambda gradient: gradient / 0.0)
        elif part == "layer":
            net.block[0].weight.register_hook(lambda gradient: gradient / 0.0)
        else:
            training.optimizer.state[net.block[0].bias]["exp_avg_sq"][4, 1] = torch.inf

    where = {"layer": "of layer 0 on rank 0", "after": "before, after or shared by the layers"}
    reason = f"weights {where.get(part, 'of layer 4 on rank 0')}, or .* after step 5, .* step 4"
    with pytest.raises(FloatingPointError, match=reason):
        training.run(file, at=4, do=poison, every=1)
    second = Training(seed=1)
    assert same(second.run(file), uninterrupted) and second.seen == [4, 5, 6]


def test_wrong_arguments(tmp_path):
    with pytest.raises(ValueError, match="every = 0; it must be at least 1 step"):
        Training().run(tmp_path / "run.pt", every=0)
    small, large = Training(), Training(layers=8)
    small.run(tmp_path / "run.pt", 1)
    with pytest.raises(ValueError, match="scheduler StepLR, and None is given; give the network"):
        list(resumable_steps(1, tmp_path / "run.pt", small.parallel, small.optimizer))
    with pytest.raises(ValueError, match="layers=6, but this one has layers=8"):
        large.run(tmp_path / "run.pt")


def test_a_link_stays_one_and_a_file_keeps_its_mode(tmp_path):
    (tmp_path / "far").mkdir()
    file, link = tmp_path / "far" / "run.pt", tmp_path / "run.pt"
    link.symlink_to(file)
    Training().run(link, 2)
    file.chmod(0o600)
    Training().run(link, 4)
    assert link.is_symlink() and file.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path / "far") == ["run.pt"]


def test_another_precision_is_refused_before_anything_is_taken_over(tmp_path):
    Training().run(tmp_path / "run.pt", 2)
    other = Training(seed=1)
    other.parallel.double()
    before = [p.clone() for p in other.parallel.parameters()]
    with pytest.raises(ValueError, match="in float32, and the network in float64"):
        other.run(tmp_path / "run.pt")
    assert all(map(torch.equal, before, other.parallel.parameters()))


def test_what_would_not_be_saved_is_refused(tmp_path):
    training = Training()
    training.optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})
    with pytest.raises(ValueError, match="parameters that are not in the LayerParallel"):
        training.run(tmp_path / "run.pt")


@pytest.mark.parametrize("count", ["3", 3.0, -3])
def test_counts_that_are_none(tmp_path, count):
    with pytest.raises(ValueError, match="it must be 0 steps or more"):
        Training().run(tmp_path / "run.pt", count)


def test_threads_are_refused(tmp_path):
    with ThreadPoolExecutor(1) as pool, pytest.raises(ValueError, match="only the main one"):
        pool.submit(Training().run, tmp_path / "run.pt").result()
