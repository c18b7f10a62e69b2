"""Law: a checkpoint in two files, as they were first, is read; the new file takes its place."""

import hashlib
import json

import pytest
import torch
from safetensors.torch import save

from mgnet import cascade, run
from mgnet.checkpoint.checkpoint import FILE, Checkpoint, Checkpoints
from mgnet.checkpoint.storage import read_file
from mgnet.checkpoint.values import pieces
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


def as_it_was_first(folder):
    """The same checkpoint in format 1."""
    told, tensors = read_file(folder / FILE, "Checkpoint")
    content = save(tensors)
    digest = hashlib.sha256(content).hexdigest()
    name = f"tensors-{digest[:16]}.safetensors"
    packed = {"level0": pieces("level0", told["networks"][0]["trained"], edges=True)}
    told |= {"format": 1, "packed": packed, "tensors": name, "sha256": digest}
    del told["kind"]
    (folder / name).write_bytes(content)
    (folder / "checkpoint.json").write_text(json.dumps(told) + "\n")
    (folder / FILE).unlink()
    return told


def test_the_first_format_is_read(folder):
    new = read_file(folder / FILE, "Checkpoint")
    as_it_was_first(folder)
    Checkpoint.load(folder).save(folder)
    again = read_file(folder / FILE, "Checkpoint")
    assert again[0] == new[0] and again[1].keys() == new[1].keys()
    assert all(torch.equal(again[1][name], new[1][name]) for name in new[1])
    (folder / "checkpoint.json").write_text("damaged")  # the new file counts
    Checkpoint.load(folder)
    (folder / FILE).unlink()
    with pytest.raises(ValueError, match="checkpoint.json cannot be read: Expecting value"):
        Checkpoint.load(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tensors": "../tensors-0123456789abcdef.safetensors"}, "it names no file of tensors"),
        ({"tensors": "tensors-0123456789abcdef.safetensors"}, "abcdef.safetensors is missing"),
        ({"sha256": None}, "is not the file that was written"),
        ({"format": 2}, "it has the format 2; 1 is expected"),
        ({"position": 9}, "the position 9 is not in the schedule"),
        ({"us": None}, "numbers of levels differ"),
    ],
)
def test_damage_of_the_first_format_is_refused(folder, change, words):
    told = as_it_was_first(folder)
    (folder / "checkpoint.json").write_text(json.dumps(told | change))
    with pytest.raises(ValueError, match=f"checkpoint.json cannot be read: .*{words}"):
        Checkpoint.load(folder)


def test_tensors_of_the_first_format_that_were_changed_are_refused(folder):
    path = folder / as_it_was_first(folder)["tensors"]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is not the file that was written"):
        Checkpoint.load(folder)
    path.unlink()
    path.mkdir()
    with pytest.raises(ValueError, match="it is not an ordinary file"):
        Checkpoint.load(folder)
