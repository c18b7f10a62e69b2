"""Law: of a file with a right digest, what makes no sense is refused in one sentence."""

import pytest
import torch

from mgnet import cascade, run
from mgnet.checkpoint.checkpoint import FILE, Checkpoint, Checkpoints
from mgnet.checkpoint.storage import read_file, write_file
from mgnet.knots import KAN, knot_hierarchy
from mgnet.training import LeastSquares, LevenbergMarquardt


@pytest.fixture
def folder(tmp_path):
    """A checkpoint after two sweeps on each of two levels."""
    x = torch.linspace(-1, 1, 20, dtype=torch.float64).unsqueeze(1)
    kan = KAN([1, 2, 1], intervals=2)
    hierarchy = knot_hierarchy(kan, LeastSquares(kan, (x, x.sin())), 2, LevenbergMarquardt())
    start, record = hierarchy[0].operator.start(), Checkpoints(tmp_path, hierarchy)
    run(cascade([2, 2]), hierarchy, start, None, record=record)
    return tmp_path


def changed(folder, change):
    """With a right digest."""
    told, tensors = read_file(folder / FILE, "Checkpoint")
    change(told, tensors)
    write_file(folder / FILE, "Checkpoint", told, tensors)


CHANGES = [
    (lambda told, _: told.update(format=3, mgnet="9.1"), "format 3, of mgnet 9.1, .*upgrade it"),
    (lambda told, _: told.update(kind="resumable_steps"), "was not written by Checkpoint"),
    (lambda told, _: told.pop("us"), "its entries differ in us"),
    (lambda told, _: told.update(more=1), "its entries differ in more"),
    (lambda told, _: told.update(position=9), "the position 9 is not in the schedule"),
    (lambda told, _: told.update(position=True), "the position True is not in the schedule"),
    (lambda told, _: told.update(position=-1), "the position -1 is not in the schedule"),
    (lambda told, _: told.update(position=1), "no state of level 1 after 1 steps"),
    (lambda told, _: told.update(level=1), "no state of level 1 after 4 steps"),
    (lambda told, _: told.update(level=2), "the level 2 is not one of 2"),
    (lambda told, _: told.update(schedule="post 1, sing"), "character"),
    (lambda told, _: told.update(schedule="W(1,1)"), "'W.1,1.' is not a list of steps"),
    (lambda told, _: told.update(schedule="cascade 4"), "'cascade 4' is not a list of steps"),
    (lambda told, _: told.update(schedule="x" * (10**7 + 1)), "not a string, or it is too long"),
    (lambda told, _: told.update(levels=10**9), "numbers of levels differ"),
    (lambda told, _: told["us"].append(None), "numbers of levels differ"),
    (lambda told, _: told["smoothers"].__setitem__(0, 3), "names of smoothers are not strings"),
    (lambda told, _: told["memory"][0].pop(), "3 parts, of which the first is a level"),
    (lambda told, _: told["memory"].append(told["memory"][0]), "is not one of 2, or occurs twice"),
    (lambda told, _: told["memory"][0].__setitem__(0, 7), "level 7 is not one of 2"),
    (
        lambda told, _: told["fixed"][0].__setitem__(1, {"dict": [["a", 1]]}),
        "must not be trained parameters",
    ),
    (lambda told, _: told["us"].__setitem__(0, {"tensor": "gone"}), "not that of its network"),
    (lambda told, _: told["fs"].__setitem__(0, {"tensor": "gone"}), "'gone' is missing"),
    (
        lambda told, _: told["fs"].__setitem__(0, {"tuple": []}),
        "of type tuple, which is not an array",
    ),
    (lambda told, _: told["generators"]["dict"].append(["a", 1]), "states of generators"),
    (
        lambda told, _: told["networks"][0]["trained"].update(more=[10**11]),
        "tensors of 'level0' are missing",
    ),
    (
        lambda told, _: told["networks"][0]["trained"].update(more=[0, 10**30]),
        "'level0.more' is missing",
    ),
    (lambda told, _: told["networks"][0].update(kind=[]), "network of level 0 has no kind"),
    (lambda told, _: told["networks"][0].update(tied={"a": "b"}), "tied parameters of level 0"),
    (lambda told, _: told["networks"][0].update(dtype="x"), "the dtype 'x'"),
    (lambda told, _: told["networks"][0].update(widths=[1, -2, 1]), "the widths .1, -2, 1."),
    (lambda told, _: told["networks"][0].update(domain=["a", 1]), "the domain .'a', 1."),
    (lambda told, _: told["networks"][0].update(degree=2.5), "the degree"),
    (lambda told, _: told["networks"][0].pop("linear"), "is not described by"),
    (lambda told, _: told["networks"][0].update(intervals=[4]), "other numbers of widths and"),
    (
        lambda _, tensors: tensors["level0.layer0.edge.0.0"].__setitem__(0, torch.nan),
        "weights of level0 are not finite",
    ),
    (lambda _, tensors: tensors.update(more=torch.ones(1)), "nothing refers to its tensor 'more'"),
    (
        lambda _, tensors: tensors.update({"level0.layer0.edge.0.0": torch.ones(6).double()}),
        "of shape .6.; .7. is expected",
    ),
]


@pytest.mark.parametrize(("change", "words"), CHANGES, ids=[words for _, words in CHANGES])
def test_values_that_make_no_sense_are_refused(folder, change, words):
    changed(folder, change)
    with pytest.raises(ValueError, match=f"checkpoint.safetensors cannot be read: .*{words}") as e:
        Checkpoint.load(folder)
    assert "\n" not in str(e.value) and len(str(e.value)) < 1000


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"intervals": [10**11, 4]}, "coefficients.0 of shape .1, 100000000003, 2., and its"),
        ({"linear": True, "intervals": [4], "widths": [1, 2, 1]}, "coefficients.0 of shape .2, 7"),
        ({"degree": 9, "intervals": [-2, -2]}, "intervals"),
        ({"degree": 6, "intervals": [1, 1]}, "degree 6; it must be 1, 2, 3, 4 or 5"),
        ({"hidden": "sin"}, "hidden 'sin'"),
        ({"domain": [0, 1]}, "with domain=.-1.0, 1.0., but this one has domain=.0.0, 1.0."),
    ],
)
def test_a_network_larger_or_other_than_its_tensors_is_refused(folder, change, words):
    changed(folder, lambda told, _: told["networks"][0].update(change))
    with pytest.raises(ValueError, match=words):
        Checkpoint.load(folder).network()
