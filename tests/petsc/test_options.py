"""Law: single-dash options and their values are PETSc's, all else is ours."""

import sys
from types import SimpleNamespace

import pytest

from mgnet.petsc.options import split_options, take


@pytest.mark.parametrize(
    ("line", "ours", "theirs"),
    [
        ("", "", ""),
        ("fit x --seed 3", "fit x --seed 3", ""),
        ("fit x -ksp_type cg", "fit x", "-ksp_type cg"),
        ("fit -mgnet_view --seed 3", "fit --seed 3", "-mgnet_view"),
        ("fit -a -b --c", "fit --c", "-a -b"),
        ("fit -shift -1.5 x", "fit x", "-shift -1.5"),
        ("fit --seed -3", "fit --seed -3", ""),
        ("fit -a 1 - x", "fit - x", "-a 1"),
        ("fit -- -a 1", "fit -- -a 1", ""),
    ],
)
def test_split(line, ours, theirs):
    assert split_options(line.split()) == (ours.split(), theirs.split())


def test_options_reach_petsc4py(monkeypatch):
    seen = []
    monkeypatch.setitem(sys.modules, "petsc4py", SimpleNamespace(init=seen.append))
    take(["-ksp_type", "cg"])
    assert seen == [["mgnet", "-ksp_type", "cg"]]


def test_without_petsc4py_there_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "petsc4py", None)
    with pytest.raises(ModuleNotFoundError, match="^-a has one dash.*not installed"):
        take(["-a"])
