"""Law: a file is read as it was written, or refused; and it is replaced as one."""

import errno
import hashlib
import json
import os
import time
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mgnet.checkpoint.storage import DIGEST, DTYPES, read_file, replace_file, write_file

TENSORS = {
    "small": torch.tensor([True, False, True]),
    "u": torch.tensor([[1.0, -0.0], [torch.nan, 5e-324]], dtype=torch.float64),
    "none": torch.zeros(0, 3, dtype=torch.bfloat16),
    "one": torch.tensor(3, dtype=torch.uint8),
}
TOLD = {"step": 7, "text": 'with "quotes" and \u00fc', "list": [1.5, None, {"a": -0.0}]}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.safetensors"
    write_file(path, "example", TOLD, TENSORS)
    return path


def resealed(content, header=None):
    """With a right length and digest."""
    if header is not None:
        length = int.from_bytes(content[:8], "little")
        text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":"))
        text = text if isinstance(text, bytes) else text.encode()
        content = len(text).to_bytes(8, "little") + text + content[8 + length :]
    content = bytearray(content)
    rest = bytes(content[: DIGEST.start] + content[DIGEST.stop :])
    content[DIGEST] = hashlib.sha256(rest).hexdigest().encode()
    return bytes(content)


def header_of(file):
    content = file.read_bytes()
    return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])


def test_it_comes_back_and_other_tools_read_it(file):
    told, tensors = read_file(file, "example")
    assert {key: told[key] for key in TOLD} == TOLD
    with safe_open(file, "pt") as opened:
        assert json.loads(opened.metadata()["mgnet"]) == told
    theirs = load_file(file)
    assert tensors.keys() == theirs.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        for found in (tensors[name], theirs[name]):
            assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
            assert repr(found.tolist()) == repr(tensor.tolist())
    assert len(file.read_bytes()) % 8 == (3 + 1 + 32) % 8  # so that tensors are aligned


def test_every_kind_of_tensor_is_the_same_to_other_tools(tmp_path):
    content = torch.arange(16, dtype=torch.uint8)
    kinds = {str(dtype): content.view(dtype) for dtype in DTYPES.values() if dtype != torch.bool}
    write_file(tmp_path / "a", "example", {}, kinds)
    for name, tensor in load_file(tmp_path / "a").items():
        assert tensor.dtype == kinds[name].dtype
        assert torch.equal(tensor.view(torch.uint8), content)


def test_every_flipped_bit_is_seen(file):
    content = file.read_bytes()
    rng = np.random.default_rng(0)
    places = [*rng.integers(0, 8 * 98, 150), *rng.integers(0, 8 * len(content), 150)]
    for place in places:
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        file.write_bytes(flipped)
        with pytest.raises(ValueError, match="the checkpoint .* cannot be read: .*; use another"):
            read_file(file, "example")


def test_cuts_and_additions_are_seen(file):
    content = file.read_bytes()
    for other in (*(content[:n] for n in range(0, len(content), 7)), content + b"\0", b"x" * 200):
        file.write_bytes(other)
        with pytest.raises(ValueError, match="cannot be read: "):
            read_file(file, "example")


def changed(**change):
    return lambda header: header["u"].update(change) or header


DEEP = b'{"__metadata__":{"sha256":"' + b"0" * 64 + b'","mgnet":"' + b"[" * 50000 + b'"}}'
HEADERS = [
    (changed(dtype="F128"), "the tensor 'u' has the dtype 'F128'"),
    (changed(dtype=[]), "the tensor 'u' has the dtype .."),
    (changed(dtype="I64", shape=[2, 3]), "'u' of shape .2, 3. is not at the bytes 0 on"),
    (changed(shape=[10**11]), "of shape .100000000000. is not at"),
    (changed(shape=[2**40, 2**40]), "has the shape"),
    (changed(shape=[-2, -2]), "has the shape"),
    (changed(shape=[True, 4]), "has the shape"),
    (changed(shape=[1] * 65), "has the shape"),
    (changed(shape="x"), "has the shape 'x'"),
    (changed(data_offsets=[8, 40]), "is not at the bytes"),
    (changed(data_offsets=[0, 32.0]), "has the offsets"),
    (changed(data_offsets=[0]), "has the offsets"),
    (changed(more=1), "not described by dtype, shape and offsets"),
    (lambda h: {**h, "v": h["u"]}, "is not at the bytes"),
    (lambda h: {k: h[k] for k in h if k != "u"}, "is not at the bytes 32"),
    (lambda h: {k: h[k] for k in h if k != "one"}, "36 bytes for tensors, of which 35 are"),
    (lambda h: {**h, "u": 3}, "not described by"),
    (lambda h: {**h, "one": {**h["one"], "dtype": "BOOL"}}, "of bools contains numbers other"),
    (
        lambda h: {"__metadata__": {"sha256": "0" * 64, "mgnet": "[]"}},
        "version and format are missing",
    ),
    (lambda h: {"__metadata__": {"sha256": "0" * 64, "mgnet": 3}}, "metadata are not those"),
    (lambda h: {"__metadata__": {"sha256": "0" * 64}}, "metadata are not those"),
    (
        lambda h: {"__metadata__": {"sha256": "0" * 64, "mgnet": '{"mgnet":"1","format":true}'}},
        "version and format are missing",
    ),
    (
        lambda h: {"__metadata__": {"sha256": "0" * 64, "mgnet": '{"mgnet":"1","format":1}'}},
        "not written",
    ),
    (
        lambda h: {"__metadata__": {"sha256": "0" * 64, "mgnet": '{"format":9,"mgnet":"7.1"}'}},
        "format 9, of mgnet 7.1, .*upgrade",
    ),
    *(
        (lambda h, text=text: {"__metadata__": {"sha256": "0" * 64, "mgnet": text}}, words)
        for text, words in [
            ("[" * 50000, "nested too deeply|Expecting value"),
            ('{"a":' * 50000, "nested too deeply|Expecting value"),
            ('{"format":1e999}', "1e999 is not a finite number"),
            ('{"format":NaN}', "NaN is not a number of JSON"),
            ('{"format":2,"format":2}', "'format' occurs twice"),
            ("1" * 10000, "digits"),
            ("{" + "x" * 10**6, "Expecting"),
        ]
    ),
]


@pytest.mark.parametrize(("change", "words"), HEADERS, ids=[words for _, words in HEADERS])
def test_odd_headers_with_a_right_digest_are_refused(file, change, words):
    file.write_bytes(resealed(file.read_bytes(), change(header_of(file))))
    with pytest.raises(ValueError, match=words) as error:
        read_file(file, "example")
    assert "\n" not in str(error.value) and len(str(error.value)) < 1000


def test_a_header_that_is_deep_or_no_json(file):
    for text in (DEEP, DEEP.replace(b'":"[', b'":[') + b"}", DEEP[:96] + b"\xff\xfe"):
        file.write_bytes(resealed(file.read_bytes(), text))
        with pytest.raises(ValueError, match="cannot be read: "):
            read_file(file, "example")


def test_foreign_files_are_refused(tmp_path):
    torch.save({"step": 3}, tmp_path / "old")
    save_file({"u": torch.ones(2)}, tmp_path / "plain")
    (tmp_path / "empty").touch()
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, words in {
        "old": "it is a file of torch.save, written by an older mgnet without a digest",
        "plain": "mgnet has not written it",
        "empty": "mgnet has not written it",
        "folder": "it is not an ordinary file",
        "pipe": "it is not an ordinary file",
    }.items():
        with pytest.raises(ValueError, match=f"{name} cannot be read: {words}"):
            read_file(tmp_path / name, "example")
    with pytest.raises(ValueError, match="it is not an ordinary file"):
        read_file(Path("/dev/zero"), "example")
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "nothing", "example")


def test_a_header_without_end_is_not_read(file):
    """A length of terabytes, in a file with a hole of as many."""
    content = file.read_bytes()
    with open(file, "wb") as stream:
        stream.write((2**40).to_bytes(8, "little") + content[8:])
        stream.truncate(2**40 + 100)
    with pytest.raises(ValueError, match="longer than the file, or its beginning is damaged"):
        read_file(file, "example")


def test_another_kind_and_too_much_json_are_refused(file, monkeypatch):
    with pytest.raises(ValueError, match="it was not written by other"):
        read_file(file, "other")
    monkeypatch.setattr("mgnet.checkpoint.storage.LONGEST_HEADER", 1000)
    with pytest.raises(ValueError, match="bytes of names and numbers besides its tensors"):
        write_file(file, "example", {"a": "x" * 1000}, {})


# Replacing


def test_a_fault_at_any_moment_leaves_the_former_file_or_the_new_one(tmp_path, monkeypatch):
    """Every call that changes the folder fails in turn."""
    file, calls = tmp_path / "deep" / "a", 0

    def failing_at(number, function):
        def call(*arguments, **options):
            nonlocal calls
            calls += 1
            if calls == number:
                raise KeyboardInterrupt
            return function(*arguments, **options)

        return call

    seen = set()
    for number in range(1, 7):
        write_file(file, "example", {"n": 1}, {"u": torch.tensor(1)})
        calls = 0
        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", failing_at(number, lambda descriptor: None))
            for name in ("mkdir", "replace", "unlink"):
                patch.setattr(Path, name, failing_at(number, getattr(Path, name)))
            try:
                write_file(file, "example", {"n": 2}, {"u": torch.tensor(2)})
            except KeyboardInterrupt:
                pass
        told, tensors = read_file(file, "example")
        assert tensors["u"] == told["n"]
        seen.add((told["n"], calls >= number))
    assert seen == {(1, True), (2, True), (2, False)}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("moment", ["write", "fsync", "rename"])
def test_a_full_disk_leaves_the_former_file_alone(file, monkeypatch, moment):
    before = file.read_bytes()

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if moment == "write":
        monkeypatch.setattr(
            "mgnet.checkpoint.storage.open", lambda *_: open("/dev/full", "wb"), raising=False
        )
    elif moment == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    else:
        monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="not saved .No space left on device.; .*the old one is"):
        write_file(file, "example", {}, {})
    assert [each.name for each in file.parent.iterdir()] == [file.name]
    assert file.read_bytes() == before


def test_what_killed_writers_left_is_removed_after_an_hour(file):
    old, new, mine, other = (
        file.with_name(name)
        for name in (
            f".unfinished-{file.name}-01234567",
            f".unfinished-{file.name}-89abcdef",
            "notes.txt",
            ".unfinished-other-01234567",
        )
    )
    for path in (old, new, mine, other):
        path.touch()
        if path != new:
            os.utime(path, (time.time() - 4000.0,) * 2)
    replace_file(file, [b"new"])
    left = {each.name for each in file.parent.iterdir()}
    assert left == {file.name, new.name, mine.name, other.name}


def test_two_writers_and_a_reader_never_meet_a_mixture(file):
    def write(first):
        for n in range(first, 40, 2):
            write_file(file, "example", {"n": n}, {"u": torch.full((20000,), n)})

    write(39)
    count, writers = 0, [Thread(target=write, args=(first,)) for first in (0, 1)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers) or not count:
        told, tensors = read_file(file, "example")
        assert (tensors["u"] == told["n"]).all()
        count += 1
    assert read_file(file, "example")[0]["n"] in (38, 39)
    assert [each.name for each in file.parent.iterdir()] == [file.name]


def test_permissions_are_those_that_umask_prescribes(tmp_path):
    former = os.umask(0o027)
    try:
        replace_file(tmp_path / "a", [b"x"])
    finally:
        os.umask(former)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_a_folder_in_the_place_of_the_file_stays(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(OSError, match="was not saved"):
        replace_file(tmp_path / "a", [b"x"])
    assert [each.name for each in tmp_path.iterdir()] == ["a"]


def test_what_is_in_the_way_is_told_with_a_remedy(tmp_path):
    (tmp_path / "ck").touch()
    for folder in ("ck", "ck/deeper"):
        with pytest.raises(OSError, match="a file is in the way of the folder .*/ck") as error:
            replace_file(tmp_path / folder / "a", [b"one"])
        assert "give another folder" in str(error.value) and "former" not in str(error.value)


def test_a_former_file_is_told_only_where_there_is_one(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for former in (False, True):
        with pytest.raises(OSError, match="not saved .No space left") as error:
            replace_file(tmp_path / "a", [b"one"])
        assert ("the old one is intact" in str(error.value)) is former
        (tmp_path / "a").write_bytes(b"former")
