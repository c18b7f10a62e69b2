"""Law: what goes into files comes out of them bit for bit, and files are replaced as one."""

import json
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, save

from mgnet.checkpoint.storage import Reader, Writer, read_json, read_tensors, replace_files


class Pair(NamedTuple):
    """Stands for the memory of somebody's smoother."""

    first: object
    second: object


def through(value):
    """Write and read, through real JSON and real safetensors."""
    writer = Writer()
    told = json.loads(json.dumps(writer.encode(value, "value"), allow_nan=False))
    return Reader(load(save(writer.tensors)), writer.packed).decode(told)


def same(a, b):
    """Whether two values agree in types, structure and bits."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        whole = a.dtype == b.dtype and a.shape == b.shape
        return whole and a.contiguous().numpy().tobytes() == b.contiguous().numpy().tobytes()
    if isinstance(a, np.ndarray | np.generic):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or (a != a and b != b)


tensors = st.sampled_from(
    [
        torch.tensor(3.0),
        torch.tensor([1.0, -0.0, math.nan, math.inf], dtype=torch.float64),
        torch.arange(6).reshape(2, 3).T,
        torch.zeros(0, 3),
        torch.tensor([True, False]),
        torch.Generator().manual_seed(1).get_state(),
    ]
)
arrays = st.sampled_from([np.arange(3.0), np.float32(0.1), np.int64(7), np.eye(2, dtype=bool)])
leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | tensors | arrays
keys = st.integers() | st.text()
trees = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(keys, inner)
        | st.builds(Pair, inner, inner)
    ),
    max_leaves=8,
)


@given(trees)
def test_values_come_back(value):
    assert same(through(value), value)


def test_one_tensor_stays_one_object():
    f = torch.ones(3)
    first, (second, third) = through((f, [f, f.clone()]))
    assert first is second and first is not third


def test_tensors_go_back_to_their_device():
    reader = Reader({"a": torch.ones(2), "b": torch.ones(2)}, {})
    assert reader.decode({"tensor": "a", "device": "meta"}).device.type == "meta"
    with pytest.raises(ValueError, match="b was on cuda:99, which is not here"):
        reader.decode({"tensor": "b", "device": "cuda:99"})


def test_names_that_meet_do_not_mix():
    value = {"a": {"b": torch.zeros(1)}, "a.b": torch.ones(1), 1: torch.ones(2), "1": None}
    assert same(through(value), value)


@pytest.mark.parametrize(
    "value", [{1, 2}, object(), b"x", {(0, 1): 2}, np.array(["a"]), torch.eye(2).to_sparse()]
)
def test_what_cannot_be_stored_is_named(value):
    with pytest.raises(TypeError, match="a checkpoint got memory.0.mu.1 of type .*; it stores"):
        Writer().encode({"mu": (1.0, value)}, "memory.0")


@pytest.mark.parametrize(
    "name", ["os:stat_result", "builtins:tuple", "builtins:eval", "nowhere:Pair", "os:system"]
)
def test_only_named_tuples_are_made(name):
    with pytest.raises(ValueError, match="is no named tuple that this program knows"):
        Reader({}, {}).decode({"named tuple": name, "values": []})


def files(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def test_a_crash_at_any_moment_leaves_the_former_pair_or_the_new_one(tmp_path, monkeypatch):
    """Every call that changes the folder fails in turn."""
    file = tmp_path / "deep" / "checkpoint.json"
    old, new = ({"mgnet": "0", "format": 1, "n": n} for n in (1, 2))
    calls = 0

    def failing_at(number, function):
        def call(*arguments, **options):
            nonlocal calls
            calls += 1
            if calls == number:
                raise KeyboardInterrupt
            return function(*arguments, **options)

        return call

    seen = set()
    for number in range(1, 9):
        replace_files(file, old, {"u": torch.full((2,), 1.0)})
        calls = 0
        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", failing_at(number, lambda descriptor: None))
            for name in ("replace", "unlink"):
                patch.setattr(Path, name, failing_at(number, getattr(Path, name)))
            try:
                replace_files(file, new, {"u": torch.full((2,), 2.0)})
            except KeyboardInterrupt:
                pass
        told = read_json(file, 1)
        assert read_tensors(file, told)["u"].tolist() == [told["n"]] * 2
        seen.add((told["n"], calls >= number))
    assert seen == {(1, True), (2, True), (2, False)}
    replace_files(file, new, {"u": torch.ones(1)})
    leftovers = [name for name in files(file.parent) if not name.startswith(".unfinished")]
    assert sorted(name.partition("-")[0] for name in leftovers) == ["checkpoint.json", "tensors"]


def test_other_files_in_the_folder_stay(tmp_path):
    (tmp_path / "tensors-mine.safetensors").write_text("mine")
    (tmp_path / "notes.txt").write_text("mine")
    for n in (1.0, 2.0):
        replace_files(tmp_path / "a.json", {}, {"u": torch.tensor(n)})
    assert {"tensors-mine.safetensors", "notes.txt", "a.json"} < files(tmp_path).keys()
    assert len(files(tmp_path)) == 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ("{}", "cannot be read .KeyError: 'format'"),
        ('{"format": 9, "mgnet": "7.1"}', "format 9, written by mgnet 7.1; .*upgrade it"),
    ],
)
def test_damaged_and_newer_files_are_refused(tmp_path, text, words):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=words):
        read_json(tmp_path / "a.json", 1)


def test_tensors_that_were_changed_are_refused(tmp_path):
    file = tmp_path / "a.json"
    replace_files(file, {"format": 1, "mgnet": "0"}, {"u": torch.ones(2)})
    told = read_json(file, 1)
    path = tmp_path / told["tensors"]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is not what was written"):
        read_tensors(file, told)
    path.unlink()
    with pytest.raises(ValueError, match="is missing"):
        read_tensors(file, told)
