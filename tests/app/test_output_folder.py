"""Law: the output folder is refused before the work, or filled whole after it."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mgnet.app import output_folder
from mgnet.app.output_folder import check_folder, claimed, filled, whole_file


def contents(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_checking_leaves_nothing_behind(tmp_path):
    check_folder(tmp_path / "a" / "b")
    check_folder(tmp_path)
    assert contents(tmp_path) == []


@pytest.mark.parametrize("content", ["[]", "{", '{"other": 1}', "\xff"])
def test_a_foreign_model_json_is_not_ours(tmp_path, content):
    (tmp_path / "model.json").write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match="no model of mgnet"):
        check_folder(tmp_path, overwrite=True)


def test_ours_is_replaced_on_request(tmp_path):
    (tmp_path / "model.json").write_text('{"format": "mgnet"}')
    with pytest.raises(ValueError, match="--overwrite"):
        check_folder(tmp_path)
    check_folder(tmp_path, overwrite=True)


def test_a_new_folder_appears_at_once(tmp_path):
    with filled(tmp_path / "a" / "b") as stage:
        (stage / "report.md").write_text("x")
        assert not (tmp_path / "a" / "b").exists()
    assert contents(tmp_path) == ["a", "a/b", "a/b/report.md"]


def test_an_existing_folder_keeps_foreign_files_and_loses_stale_ones(tmp_path):
    for name in ("fit.png", "notes.txt", "model.json"):
        (tmp_path / name).write_text("old")
    with filled(tmp_path) as stage:
        (stage / "model.json").write_text("new")
    assert contents(tmp_path) == ["model.json", "notes.txt"]
    assert (tmp_path / "model.json").read_text() == "new"


@pytest.mark.parametrize("kind", [OSError, KeyboardInterrupt])
def test_an_error_leaves_all_as_it_was(tmp_path, kind):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "fit.png").write_text("old")
    for name in ("old", "new/deep"):
        with pytest.raises(kind), filled(tmp_path / name) as stage:
            (stage / "fit.png").write_text("new")
            raise kind
    assert contents(tmp_path) == ["old", "old/fit.png"]
    assert (tmp_path / "old" / "fit.png").read_text() == "old"


def test_a_second_writer_is_refused_until_the_first_has_ended(tmp_path):
    out = tmp_path / "a" / "out"
    with claimed(out), ThreadPoolExecutor() as pool:
        for attempt in (check_folder, lambda folder: filled(folder).__enter__()):
            with pytest.raises(BlockingIOError, match="is being written by another mgnet"):
                pool.submit(attempt, out).result()
    assert contents(tmp_path) == []
    check_folder(out)


@pytest.mark.parametrize("former", [True, False])
def test_what_a_killed_run_left_is_named_and_goes_after_the_next(tmp_path, former):
    out = tmp_path / "out"
    left = [tmp_path / ".out-unfinished-99999", tmp_path / ".out-unfinished-99999-2"]
    if former:
        out.mkdir()
        (out / "model.json").write_text('{"mgnet": "1"}')
        left.append(out / "model-0123456789abcdef.safetensors")
    for path in left:
        path.mkdir()
    (left[0] / "model.json").write_text("half")
    (left[0] / "notes.txt").write_text("mine")
    with claimed(out, overwrite=True) as remarks:
        assert all(any(f"found {path}, left" in remark for remark in remarks) for path in left[:2])
    assert all(path.exists() for path in left)
    with filled(out) as stage:
        (stage / "model.json").write_text("new")
    expected = ["out", "out/model.json", "out/notes.txt"]
    assert [name for name in contents(tmp_path) if "model-" not in name] == expected


def test_where_nothing_is_locked_nothing_is_taken_for_left(tmp_path, monkeypatch):
    monkeypatch.setattr("mgnet.app.lock._lock", lambda stream: False)
    (tmp_path / ".out-unfinished-1").mkdir()
    with claimed(tmp_path / "out") as remarks:
        assert remarks == []


def test_a_link_to_a_folder_stays_one(tmp_path):
    (tmp_path / "link").symlink_to(Path("far", "out"))
    for word in ("one", "two"):
        with claimed(tmp_path / "link", overwrite=True), filled(tmp_path / "link") as stage:
            (stage / "model.json").write_text(f'{{"mgnet": "{word}"}}')
        assert os.readlink(tmp_path / "link") == "far/out"
        assert word in (tmp_path / "far" / "out" / "model.json").read_text()
    assert contents(tmp_path) == ["far", "far/out", "far/out/model.json", "link"]
    (tmp_path / "round").symlink_to("round")
    with pytest.raises(OSError, match="is a link to itself"):
        check_folder(tmp_path / "round")


def test_the_folder_keeps_its_mode(tmp_path):
    out = tmp_path / "out"
    out.mkdir(mode=0o750)
    out.chmod(0o2750)
    with filled(out) as stage:
        (stage / "model.json").write_text("new")
    assert out.stat().st_mode & 0o7777 == 0o2750


@pytest.mark.parametrize("where", ["folder", "file"])
def test_a_full_disk_loses_nothing(tmp_path, where):
    """A limit on the size of files fails as a full disk does."""
    resource = pytest.importorskip("resource")
    out = tmp_path / "out"
    if where == "folder":
        out.mkdir()
        (out / "model.json").write_text("old")
    else:
        out.write_text("old")
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(OSError, match="out cannot be written .*another"):
            with filled(out) if where == "folder" else whole_file(out) as made:
                resource.setrlimit(resource.RLIMIT_FSIZE, (1000, most))
                (made / "model.json" if where == "folder" else made).write_bytes(bytes(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    expected = {"folder": ["out", "out/model.json"], "file": ["out"]}[where]
    assert contents(tmp_path) == expected
    assert (tmp_path / expected[-1]).read_text() == "old"


def test_a_folder_beside_which_nothing_can_be_written_is_filled_in_place(tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    (out / "fit.png").write_text("old")
    (out / "notes.txt").write_text("mine")
    monkeypatch.setattr(output_folder, "_place", lambda target: target)
    with filled(out) as stage:
        assert stage.parent == out
        (stage / "model.json").write_text("new")
    assert contents(out) == ["model.json", "notes.txt"]


def test_a_whole_file_replaces_the_former_one_at_once(tmp_path):
    file, left = tmp_path / "out.csv", tmp_path / ".out.csv-unfinished-7"
    for _ in range(2):
        left.write_text("half")
        with whole_file(file) as unfinished:
            unfinished.write_text("good")
        assert contents(tmp_path) == ["out.csv"]
    with pytest.raises(KeyError), whole_file(file) as unfinished:
        unfinished.write_text("bad")
        raise KeyError
    assert contents(tmp_path) == ["out.csv"] and file.read_text() == "good"
    (tmp_path / "link.csv").symlink_to("out.csv")
    with whole_file(tmp_path / "link.csv") as unfinished:
        unfinished.write_text("better")
    assert file.read_text() == "better" and (tmp_path / "link.csv").is_symlink()
    with pytest.raises(ValueError, match="is not a file"), whole_file(Path("/dev/null")):
        pass
    with pytest.raises(OSError, match="cannot be written"), whole_file(tmp_path / "none" / "x"):
        pass
