"""Law: one hint, on rank 0, where a launcher's ranks all solve the same; silence elsewhere."""

import warnings

import numpy as np
import pytest

from mgnet import Hierarchy, Jacobi, Level, Solver, gallery, launched, vector

VARIABLES = [name for pair in launched.LAUNCHERS for name in pair]


@pytest.fixture
def ranks(monkeypatch):
    """A function that makes this process a rank."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(launched, "_hinted", [])

    def make(launcher, count, own):
        monkeypatch.setenv(launched.LAUNCHERS[launcher][0], str(count))
        monkeypatch.setenv(launched.LAUNCHERS[launcher][1], str(own))

    return make


def solve(hierarchy=None):
    hierarchy = hierarchy or gallery.poisson(7)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        Solver(hierarchy, max_cycles=1).solve(np.ones(7))
    return [str(each.message) for each in told]


@pytest.mark.parametrize("launcher", [0, 1])
def test_one_hint_for_all_solves_on_rank_0(ranks, launcher):
    ranks(launcher, 3, 0)
    (told,) = [*solve(), *solve()]
    assert told.startswith("mpiexec runs this script on 3 ranks, and each of them solves the whole")


@pytest.mark.parametrize(("count", "own"), [(1, 0), (3, 1), (3, 2)])
def test_one_process_and_other_ranks_are_silent(ranks, count, own):
    ranks(0, count, own)
    assert launched.launched_ranks() == (count, own)
    assert solve() == []


def test_without_a_launcher_it_is_silent(ranks):
    assert launched.launched_ranks() == (1, 0)
    assert solve() == []


def test_what_is_spread_in_another_way_is_silent(ranks):
    """Hierarchies with a norm of their own, and levels without a matrix."""
    ranks(0, 2, 0)
    model = gallery.poisson(7)
    assert solve(Hierarchy(model.levels, norm=lambda u: vector.norm(u))) == []
    assert (
        solve(Hierarchy([Level(lambda u: 2.0 * u, Jacobi(), linearize=lambda u: np.eye(7))])) == []
    )
