"""Law: what is opened is an ordinary file of a kind that we read; nothing else is waited for."""

import bz2
import gzip
import io
import lzma
import os
import threading
import zipfile

import numpy as np
import pytest

from mgnet.app.files.opening import open_data_file

HEAD = "T,rho\n"
ROWS = "".join(f"{k},{k * k}\n" for k in range(20))


@pytest.mark.parametrize("name", ["data.csv", "data.txt", "data"])
def test_text(tmp_path, name):
    (tmp_path / name).write_text(HEAD + ROWS)
    assert open_data_file(tmp_path / name).names == ("T", "rho")


@pytest.mark.parametrize("name", ["data.npz", "DATA.NPZ"])
def test_archives(tmp_path, name):
    with (tmp_path / name).open("wb") as file:
        np.savez(file, T=np.arange(3.0))
    assert open_data_file(str(tmp_path / name)).names == ("T",)


def zipped(**members):
    with zipfile.ZipFile(file := io.BytesIO(), "w") as out:
        for name, content in members.items():
            out.writestr(name, content)
    return file.getvalue()


def array_bytes(write, **arrays):
    write(file := io.BytesIO(), **arrays)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (zipped(**{"a.csv": HEAD}), "a zip archive; unpack it first"),
        (zipped(mimetype="spreadsheet"), "an OpenDocument file; save it as .xlsx or CSV"),
        (zipped(a="x")[:-3], "a damaged zip archive"),
        (b"\xd0\xcf\x11\xe0" + bytes(99), "an old spreadsheet; save it as .xlsx or CSV"),
        (gzip.compress(gzip.compress(HEAD.encode())), "compressed twice"),
        (array_bytes(np.save, arr=np.arange(3.0)), "one NumPy array"),
        ((HEAD + ROWS).encode("utf-32"), "text in UTF-32"),
        ((HEAD + ROWS).encode("utf-16-le"), "NUL bytes"),
        (b"\x80\x04" + ROWS.encode(), "not UTF-8 text: line 1 has the byte 0x80"),
        (b" \n\t\r\n", "is empty"),
        (b"\xef\xbb\xbf\n\n", "is empty"),
        (b"", "is empty"),
    ],
    ids=range(12),
)
def test_files_of_another_kind(tmp_path, content, words):
    (tmp_path / "data.csv").write_bytes(content)
    with pytest.raises(ValueError, match=words):
        open_data_file(tmp_path / "data.csv")


def test_a_large_file_that_is_no_text_is_not_read(tmp_path):
    with (tmp_path / "data.csv").open("wb") as file:
        file.write(b"T,rho\n")
        file.truncate(10**12)  # holes take no room on the disk
    with pytest.raises(ValueError, match="NUL bytes"):
        open_data_file(tmp_path / "data.csv")


def test_places_without_a_file(tmp_path):
    (tmp_path / "loop.csv").symlink_to(tmp_path / "loop.csv")
    (tmp_path / "file").write_text("")
    for path, error, words in (
        (tmp_path, IsADirectoryError, "is a folder"),
        (tmp_path / "none.csv", FileNotFoundError, "does not exist"),
        (tmp_path / "file" / "data.csv", FileNotFoundError, "does not exist"),
        (tmp_path / "loop.csv", OSError, "cannot be read"),
        (tmp_path / ("n" * 5000), OSError, "cannot be read .File name too long"),
        (tmp_path / "a\0b", OSError, "cannot be read .*embedded null"),
        (tmp_path / "a\nb", FileNotFoundError, r"a\\nb does not exist"),
    ):
        with pytest.raises(error, match=words) as told:
            open_data_file(path)
        assert len(str(told.value)) < 500 and str(told.value).isprintable()


@pytest.mark.parametrize(
    "content",
    [
        (HEAD + ROWS).encode(),
        (HEAD + ROWS).encode("utf-16"),
        gzip.compress((HEAD + ROWS).encode()),
        bz2.compress((HEAD + ROWS).encode()),
        lzma.compress((HEAD + ROWS).encode()),
        gzip.compress(HEAD.encode()) + gzip.compress(ROWS.encode()),
        lzma.compress(HEAD.encode()) + lzma.compress(ROWS.encode()),
        array_bytes(np.savez, T=np.arange(20.0), rho=np.arange(20.0) ** 2),
    ],
    ids=range(8),
)
@pytest.mark.parametrize("way", ["file", "pipe", "input"])
def test_the_same_table_in_every_wrapping_and_by_every_way(tmp_path, monkeypatch, content, way):
    path = tmp_path / "data.csv"
    if way == "pipe":
        os.mkfifo(path)
        threading.Thread(target=path.write_bytes, args=[content]).start()
    else:
        path.write_bytes(content)
    if way == "input":
        monkeypatch.setattr("sys.stdin", path.open())
        path = "-"
    file = open_data_file(path)
    expected = [[k, k * k] for k in range(20)]
    assert file.names == ("T", "rho") and file.numbers(["T", "rho"]).tolist() == expected


@pytest.mark.skipif(os.name == "nt", reason="pipes and devices of POSIX")
@pytest.mark.parametrize("suffix", ["csv", "npz"])
def test_pipes_and_devices_are_not_waited_for(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr("mgnet.app.files.stream.PATIENCE", 0.05)
    pipe, device = tmp_path / f"pipe.{suffix}", tmp_path / f"zeros.{suffix}"
    os.mkfifo(pipe)
    device.symlink_to("/dev/zero")
    with pytest.raises(OSError, match="is a device, which may never end"):
        open_data_file(device)
    with pytest.raises(OSError, match="is a pipe without a writer"):
        open_data_file(pipe)
