"""Law: a folder, or a model in it, is the former or the new one, whichever call is the last."""

import errno
import os
import sys
from functools import partial
from pathlib import Path

import pytest

from mgnet.app import exchange as module
from mgnet.app.exchange import bring_back, discard, exchange, put
from mgnet.app.model import Model
from tests.app.test_model import ROWS, model

OTHER = Path("notes.txt"), Path("sub", "deep.txt")


def folders(root):
    """A stage and a target, both with a model, and what a user has in the target."""
    stage, target = root / ".out-unfinished-1", root / "out"
    for folder, kind in ((stage, "new"), (target, "old")):
        folder.mkdir(parents=True)
        model(hidden="identity" if kind == "new" else "tanh").save(folder)
        (folder / "report.md").write_text(kind)
    (target / "fit.png").write_text("old")
    (target / "sub").mkdir()
    for path in OTHER:
        (target / path).write_text("mine")
    (target / "link").symlink_to("sub")
    return stage, target


def check(target, states=("new",)):
    """Which model is there, if it is one of these; nothing of the other, and the user's files."""
    loaded = Model.load(target)
    state = "old" if loaded.network.hidden == "tanh" else "new"
    assert state in states
    if (target / "report.md").exists():
        assert (target / "report.md").read_text() == state
    assert (target / "fit.png").exists() <= (state == "old")
    assert all((target / path).read_text() == "mine" for path in OTHER)
    return state


@pytest.mark.parametrize("way", ["exchanged", "refused", "here", "inside", "mounted", "fixed"])
def test_what_is_put_is_there_with_what_a_user_has(tmp_path, monkeypatch, way):
    stage, target = folders(tmp_path)
    if way in ("refused", "mounted"):
        monkeypatch.setattr(module, "exchange", refuse)
    if way == "mounted":
        rename = Path.rename

        def far(path, there):
            if path == stage:
                refuse()
            return rename(path, there)

        monkeypatch.setattr(Path, "rename", far)
    if way == "here":
        monkeypatch.chdir(target / "sub")
    if way == "fixed":  # a folder of the user's is a mount point, or may not be moved
        monkeypatch.setattr(os.path, "ismount", lambda path: path == target / "sub")
        monkeypatch.setattr(module, "exchange", None)
    if way == "inside":
        stage = stage.rename(target / stage.name)
    put(stage, target)
    check(target)
    assert (target / "report.md").read_text() == "new"
    assert os.readlink(target / "link") == "sub" and not (target / "sub").is_symlink()
    discard(stage)
    hidden = [path for path in (*tmp_path.iterdir(), *target.iterdir()) if path.name[0] == "."]
    assert hidden == []


def refuse(*_):
    raise OSError(errno.EINVAL, "it cannot")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="pathlib keeps these functions")
@pytest.mark.parametrize("way", ["exchanged", "in place"])
def test_whichever_call_is_the_last_the_model_is_whole(tmp_path, monkeypatch, way):
    """Each call that changes a name fails once, as if the process had ended there."""
    states = []
    for last in range(40):
        stage, target = folders(tmp_path / str(last))
        with monkeypatch.context() as patched:
            calls = []

            def stopped(own, calls, last, *arguments, **named):
                calls.append(own)
                if len(calls) > last:
                    raise KeyboardInterrupt
                return own(*arguments, **named)

            if way == "in place":
                patched.setattr(module, "exchange", refuse)
            for name in ("rename", "replace", "link", "symlink", "unlink", "mkdir", "rmdir"):
                patched.setattr(os, name, partial(stopped, getattr(os, name), calls, last))
            try:
                put(stage, target)
            except KeyboardInterrupt:
                pass
        states.append(check(target, ("old", "new")))
        if len(calls) <= last:
            break
    assert states == sorted(states, reverse=True)  # all old ones, then all new ones
    assert {"old", "new"} == set(states)


def test_a_new_folder_is_renamed(tmp_path):
    stage, target = folders(tmp_path)
    put(stage, tmp_path / "fresh")
    assert Model.load(tmp_path / "fresh").network.hidden == "identity"


def test_an_exchange_that_cannot_be_changes_nothing(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(OSError):
        exchange(tmp_path / "a", tmp_path / "none")
    assert os.listdir(tmp_path) == ["a"]


def test_what_a_killed_run_left_comes_back_and_nothing_is_overwritten(tmp_path):
    left, target = folders(tmp_path)
    for name in ("mine.txt", "notes.txt"):
        (left / name).write_text("left")
    bring_back(left, target)
    assert (target / "mine.txt").read_text() == "left"
    assert (target / "notes.txt").read_text() == "mine"
    check(target, ("old",))
    (left / "more").mkdir()
    (target / "more").mkdir()
    discard(left)
    assert (left / "more").is_dir()  # not ours, and its place is taken: it stays


def test_a_model_saved_over_another_is_whole_at_every_call(tmp_path, monkeypatch):
    for last in range(8):
        folder = tmp_path / str(last)
        folder.mkdir()
        model().save(folder)
        replace, calls = Path.replace, []

        def stop(path, there, calls=calls, last=last, replace=replace):
            calls.append(path)
            if len(calls) > last:
                raise KeyboardInterrupt
            return replace(path, there)

        with monkeypatch.context() as patched:
            patched.setattr(Path, "replace", stop)
            try:
                model(hidden="identity").save(folder)
            except KeyboardInterrupt:
                pass
        loaded = Model.load(folder)
        assert loaded.predict(ROWS).shape == (50,)
        if len(calls) <= last:
            break
    assert loaded.network.hidden == "identity"
    assert sorted(os.listdir(folder)) == ["model.json", "model.safetensors"]
