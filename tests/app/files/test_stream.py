"""Law: what is compressed or comes through a pipe is taken whole and within a bound, or refused."""

import bz2
import gzip
import io
import lzma
import os
import threading

import pytest

from mgnet.app.files import stream

TEXT = b"T,rho\n" + b"".join(b"%d,%d\n" % (k, k * k) for k in range(5000))
WAYS = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress}


@pytest.mark.parametrize("kind", WAYS)
def test_what_is_packed_comes_out(kind):
    packed = WAYS[kind](TEXT)
    assert stream.is_packed(packed) and not stream.is_packed(TEXT)
    assert stream.unpacked("x", io.BytesIO(packed)) == TEXT
    twice = stream.unpacked("x", io.BytesIO(packed + packed))
    assert twice == TEXT + TEXT


@pytest.mark.parametrize("kind", WAYS)
def test_damage_is_refused_in_one_sentence(kind):
    packed = WAYS[kind](TEXT)
    for place in range(8, len(packed), max(1, len(packed) // 60)):
        flipped = bytearray(packed)
        flipped[place] ^= 16
        for content in (packed[:place], bytes(flipped)):
            try:
                got = stream.unpacked("x", io.BytesIO(content))
            except ValueError as error:
                assert f"x cannot be unpacked by {kind} (" in str(error)
                assert len(str(error)) < 250 and str(error).isprintable()
            else:
                assert got == TEXT  # the bit tells no part of the content


@pytest.mark.parametrize("kind", WAYS)
def test_bombs_are_refused(kind, monkeypatch):
    monkeypatch.setattr(stream, "ALWAYS_UNPACKED", 2**20)
    monkeypatch.setattr(stream, "BLOCK", 2**16)
    packed = WAYS[kind](bytes(2**23))
    with pytest.raises(ValueError, match=f"more than 100 times its size.* unpack it with {kind}"):
        stream.unpacked("x", io.BytesIO(packed))


def test_a_dictionary_larger_than_the_memory_is_not_asked_for():
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 2**29, "preset": 0}]
    packed = lzma.compress(b"T,rho\n1,2\n", filters=filters)
    with pytest.raises(ValueError, match="cannot be unpacked by xz .*[Mm]emory"):
        stream.unpacked("x", io.BytesIO(packed))


def test_input_without_an_end_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(stream, "MOST_FROM_PIPE", 2**21)
    with open("/dev/zero") as endless:
        monkeypatch.setattr("sys.stdin", endless)
        with pytest.raises(ValueError, match="standard input gives more than 2 MiB and may never"):
            stream.standard_input()


def test_a_slow_writer_is_waited_for(tmp_path):
    os.mkfifo(pipe := tmp_path / "pipe")

    def write():
        with pipe.open("wb", buffering=0) as out:
            for part in (TEXT[:100], TEXT[100:]):
                threading.Event().wait(0.1)
                out.write(part)

    threading.Thread(target=write).start()
    assert stream.pipe_content("x", pipe) == TEXT


def test_a_terminal_is_no_table(monkeypatch):
    import pty

    master, slave = pty.openpty()
    with open(slave) as terminal, open(master):
        monkeypatch.setattr("sys.stdin", terminal)
        with pytest.raises(ValueError, match="standard input is a terminal; pipe a table"):
            stream.standard_input()
