"""Law: the file of a training is taken over bit for bit, or refused in one sentence on all ranks.

Training from it: test_interruption.py; several ranks: tests/mpi/test_resumable_file.py.
"""

import os

import numpy as np
import pytest
import torch

from mgnet.checkpoint.storage import read_file, write_file
from mgnet.depth import LayerParallel, ODENet
from mgnet.petsc.resumable_file import KIND, ResumableFile

RATES = torch.optim.lr_scheduler


def made(path, optimizer=torch.optim.Adam, scheduler=None, layers=4, width=2, seed=0, **options):
    torch.manual_seed(seed)
    net = ODENet(torch.nn.Linear(width, width), layers, after=torch.nn.Linear(width, 1))
    parallel = LayerParallel(net, 2, 2)
    own = optimizer(parallel.parameters(), lr=0.1, **options)
    return ResumableFile(path, parallel, own, scheduler and scheduler(own))


def stepped(file):
    for parameter in file.parallel.parameters():
        parameter.grad = torch.randn(parameter.shape)
    file.optimizer.step()
    if file.scheduler is not None:
        file.scheduler.step()
    return file


def everything(file):
    """All states, as the file has them."""
    other = file.path.with_name("other")
    ResumableFile(other, file.parallel, file.optimizer, file.scheduler).save(1, "")
    return read_file(other, KIND)


KINDS = [
    (torch.optim.SGD, None, {"momentum": 0.9}),
    (torch.optim.Adam, lambda o: RATES.LambdaLR(o, lambda step: 0.5**step), {"amsgrad": True}),
    (torch.optim.AdamW, lambda o: RATES.MultiStepLR(o, [1, 2, 2]), {}),
    (torch.optim.RMSprop, RATES.ReduceLROnPlateau, {"centered": True}),
    (torch.optim.NAdam, lambda o: RATES.OneCycleLR(o, 0.1, 10), {}),
]


@pytest.mark.parametrize(("optimizer", "scheduler", "options"), KINDS)
@pytest.mark.parametrize("steps", [0, 2])
def test_all_states_come_back(tmp_path, optimizer, scheduler, options, steps):
    file = made(tmp_path / "run.pt", optimizer, scheduler, **options)
    for _ in range(steps):
        if optimizer is torch.optim.RMSprop:
            stepped(ResumableFile(file.path, file.parallel, file.optimizer, None))
            file.scheduler.step(0.5)
        else:
            stepped(file)
    file.save(7, "")
    other = made(file.path, optimizer, scheduler, seed=1, **options)
    assert other.load() == 7
    (told, tensors), (again, found) = everything(file), everything(other)
    assert again == told and found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_no_file_is_a_start_and_another_thing_is_refused(tmp_path):
    assert made(tmp_path / "run.pt").load() == 0
    torch.save({"step": 3}, tmp_path / "old.pt")
    (tmp_path / "text").write_text("some text")
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")
    for name, words in {
        "old.pt": "a file of torch.save, written by an older mgnet.*again in another folder$",
        "text": "mgnet has not written it",
        "empty": "mgnet has not written it",
        "pipe": "not an ordinary file",
        ".": "not an ordinary file",
    }.items():
        with pytest.raises(ValueError, match=f"cannot be read: .*{words}"):
            made(tmp_path / name).load()


def test_damage_changes_nothing(tmp_path):
    file = stepped(made(tmp_path / "run.pt"))
    file.save(3, "")
    content, rng = file.path.read_bytes(), np.random.default_rng(0)
    other = made(file.path, seed=1)
    before = everything(other)[1]
    for place in rng.integers(0, 8 * len(content), 100):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        file.path.write_bytes(flipped)
        with pytest.raises(ValueError, match="cannot be read: "):
            other.load()
    after = everything(other)[1]
    assert all(torch.equal(before[name], after[name]) for name in before)


def group_of(told):
    return told["optimizer"]["dict"][1][1][0]["dict"]


def set_option(told, key, value):
    group = group_of(told)
    group[:] = [[k, value if k == key else v] for k, v in group]


CHANGES = [
    (lambda told, _: told.update(step=0), "its number of steps is 0"),
    (lambda told, _: told.update(step=True), "its number of steps is True"),
    (lambda told, _: told.pop("step"), "its entries differ in step"),
    (lambda told, _: told.update(kind="Checkpoint"), "was not written by resumable_steps"),
    (lambda told, _: told.update(optimizer_class="SGD"), "with the optimizer SGD, and Adam is"),
    (lambda _, tensors: tensors["random"].zero_(), "state of a random generator"),
    (lambda told, _: told.update(scheduler=3), "'scheduler' that|option|has no state"),
    (lambda told, _: told.update(net={"dict": []}), "nothing refers to its tensor 'net."),
    (
        lambda told, _: told.update(net={"dict": [["a", 1]]}),
        "not a state_dict of tensors|refers to",
    ),
    (lambda told, _: set_option(told, "lr", "x"), "option 'lr' of its optimizer is 'x'"),
    (lambda told, _: set_option(told, "lr", True), "option 'lr' of its optimizer is True"),
    (lambda told, _: set_option(told, "betas", [0.9, 0.9]), "option 'betas'"),
    (lambda told, _: set_option(told, "betas", {"tuple": [0.9]}), "option 'betas'"),
    (lambda told, _: set_option(told, "foreach", "x"), "option 'foreach'"),
    (lambda told, _: group_of(told)[0].__setitem__(0, 3), "options of its optimizer have no names"),
    (lambda told, _: set_option(told, "params", [0]), "have other parameters"),
    (lambda told, _: told["optimizer"]["dict"][1][1].clear(), "another number of groups"),
    (lambda told, _: told["optimizer"]["dict"][0].__setitem__(0, "states"), "no state and groups"),
    (
        lambda told, _: told["optimizer"]["dict"][0][1]["dict"][0].__setitem__(0, 10**9),
        "keeps something of other parameters",
    ),
    (
        lambda told, _: told["optimizer"]["dict"][0][1]["dict"][0][1]["dict"][0].__setitem__(0, 3),
        "keeps of parameter 0 has no names",
    ),
    (
        lambda _, tensors: tensors["net.net.block.weight"].fill_(torch.inf),
        "its weights 'net.block.weight' are not finite",
    ),
    (
        lambda _, tensors: tensors["optimizer.state.0.exp_avg"].fill_(torch.nan),
        "'exp_avg' of parameter 0, of its optimizer, is not finite",
    ),
    (
        lambda _, tensors: tensors.update({"net.net.block.weight": torch.ones(())}),
        "'net.block.weight' of shape .., and the network .4, 2, 2.",
    ),
    (
        lambda _, tensors: tensors.update({"optimizer.state.0.exp_avg": torch.ones(3)}),
        "keeps 'exp_avg' of parameter 0, which is neither a number nor of shape .4, 2, 2.",
    ),
    (
        lambda _, tensors: tensors.update({"net.net.block.weight": torch.ones(4, 2, 2).double()}),
        "it has 'net.block.weight' in float64, and the network in float32",
    ),
    (
        lambda _, tensors: tensors.update(
            {"optimizer.state.0.exp_avg": torch.ones(4, 2, 2).double()}
        ),
        "saved as optimizer.state.0.exp_avg is not taken over with the same bits",
    ),
    (lambda told, _: told["scheduler"]["dict"].append(["step", 1]), "an option 'step' that this"),
    (
        lambda told, _: told["scheduler"]["dict"][0].__setitem__(1, "x"),
        "option 'step_size' of its scheduler is 'x', in the place of 2",
    ),
]


@pytest.mark.parametrize(("change", "words"), CHANGES, ids=[words for _, words in CHANGES])
def test_values_that_make_no_sense_are_refused(tmp_path, change, words):
    file = stepped(made(tmp_path / "run.pt", scheduler=lambda o: RATES.StepLR(o, 2)))
    file.save(3, "")
    told, tensors = read_file(file.path, KIND)
    change(told, tensors)
    write_file(file.path, told["kind"], told, tensors)
    with pytest.raises(ValueError, match=f"run.pt (cannot be|is not of).*: .*({words})") as error:
        file.load()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"optimizer": torch.optim.AdamW}, "with the optimizer Adam, and AdamW is given"),
        ({"scheduler": lambda o: RATES.StepLR(o, 2)}, "scheduler None, and StepLR is given"),
        ({"layers": 8}, "layers=4, but this one has layers=8"),
        ({"width": 3}, "of shape .*, and the network"),
    ],
)
def test_another_training_is_refused(tmp_path, other, words):
    made(tmp_path / "run.pt").save(3, "")
    told = f"run.pt is not of this training: .*{words}.*; give .* that were saved$"
    with pytest.raises(ValueError, match=told):
        made(tmp_path / "run.pt", **other).load()


def test_extra_states_of_other_modules_come_back(tmp_path):
    class Counting(torch.nn.Linear):
        seen = "nothing"

        def get_extra_state(self):
            return {"seen": self.seen}

        def set_extra_state(self, state):
            self.seen = state["seen"]

    def counting():
        net = ODENet(torch.nn.Linear(2, 2), 4, after=Counting(2, 1))
        parallel = LayerParallel(net, 2, 2)
        adam = torch.optim.Adam(parallel.parameters())
        return ResumableFile(tmp_path / "run.pt", parallel, adam, None)

    file, other = counting(), counting()
    file.parallel.net.after.seen = "much"
    file.save(3, "")
    assert other.load() == 3 and other.parallel.net.after.seen == "much"


def test_options_of_a_newer_pytorch_stay(tmp_path):
    file = made(tmp_path / "run.pt", weight_decay=0.25)
    file.save(3, "")
    told, tensors = read_file(file.path, KIND)
    group_of(told)[:] = [pair for pair in group_of(told) if pair[0] != "weight_decay"]
    write_file(file.path, KIND, told, tensors)
    assert file.load() == 3 and file.optimizer.param_groups[0]["weight_decay"] == 0.25


def test_what_cannot_be_stored_is_named_and_the_former_file_stays(tmp_path):
    file = made(tmp_path / "run.pt")
    file.save(3, "")
    file.optimizer.param_groups[0]["rule"] = len
    with pytest.raises(TypeError, match="a checkpoint got optimizer.param_groups.0.rule of type"):
        file.save(4, "")
    del file.optimizer.param_groups[0]["rule"]
    assert file.load() == 3
