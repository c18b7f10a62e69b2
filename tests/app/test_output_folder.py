"""Law: the output folder is refused before the work, or filled whole after it."""

from pathlib import Path

import pytest

from mgnet.app.output_folder import check_folder, filled


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
