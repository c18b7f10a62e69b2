"""Law: what Python does at its end is done on one rank for all. More ranks: tests/mpi."""

import os
import sys

import pytest


@pytest.fixture
def hooks(petsc):
    from mgnet.petsc import hooks

    return hooks


class Job:
    ended = None

    def end(self, text, code):
        self.ended = text, code


@pytest.mark.parametrize(("kind", "code"), [(ValueError, 1), (KeyboardInterrupt, 130)])
def test_an_error_that_nobody_catches_ends_the_job(hooks, kind, code):
    class Watch:
        job = Job()

    hooks._Ending(Watch)(kind, kind("too many layers"), None)
    assert Watch.job.ended == (f"{kind.__name__}: too many layers\n", code)


def test_a_copy_of_a_rank_is_none(hooks, capsys):
    class Watch:
        job = Job()

    hook = hooks._Ending(Watch)
    hook.process = os.getpid() + 1
    hook(ValueError, ValueError("in a child"), None)
    assert Watch.job.ended is None and "ValueError: in a child" in capsys.readouterr().err


@pytest.mark.parametrize(("status", "code"), [(None, 0), (0, 0), (3, 3), (259, 3), ("text", 1)])
def test_the_code_of_an_exit_is_noted_and_the_exit_is_as_before(hooks, monkeypatch, status, code):
    monkeypatch.setattr(hooks, "_left_with", [])
    with pytest.raises(SystemExit) as error:
        hooks._Noting(sys.exit)(status)
    assert error.value.code == status and hooks._left_with[0][0] == code


def test_one_rank_changes_nothing(hooks, petsc):
    before = sys.excepthook, sys.exit
    hooks.end_all_ranks_on_error(petsc.COMM_SELF)
    assert (sys.excepthook, sys.exit) == before
