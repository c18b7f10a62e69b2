"""Loops on PyTorch's own threads: every number is worked on once, errors come back."""

import os

import numpy as np
import pytest
import torch

pytest.importorskip("numba")

from numba import njit  # noqa: E402

from mgnet.knots import team  # noqa: E402

needs_openmp = pytest.mark.skipif(not team.openmp()[0], reason="PyTorch has no GNU OpenMP here")


@njit(nogil=True)
def count(seen, pair, start, stop):
    seen = team.borrowed(seen)
    shift, factors = pair
    for i in range(start, stop):
        seen[i] += shift + factors[0] * i


@njit(nogil=True)
def count_on_team(seen, pair, size, threads, functions):
    return team.on_team(count, (seen, pair), size, threads, functions)


@njit(nogil=True)
def fail(seen, start, stop):
    for i in range(start, stop):
        if i == 3:
            raise ValueError("three")
        seen[i] = 1.0


@njit(nogil=True)
def fail_on_team(seen, size, threads, functions):
    return team.on_team(fail, (seen,), size, threads, functions)


@needs_openmp
@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("size", [0, 1, 5, 64])
def test_parts_are_the_whole(size, threads):
    seen = np.zeros(size)
    failed = count_on_team(seen, (1.0, np.array([2.0])), size, threads, team.openmp())
    assert not failed
    np.testing.assert_array_equal(seen, 1.0 + 2.0 * np.arange(size))


@needs_openmp
def test_an_error_in_a_thread_is_told():
    seen = np.zeros(8)
    assert fail_on_team(seen, 8, 2, team.openmp())
    assert not fail_on_team(seen, 3, 2, team.openmp())
    assert seen[:3].all() and seen[4:].all()


@needs_openmp
def test_arrays_live_on_after_they_were_borrowed():
    seen = np.zeros(1000)
    for _ in range(50):
        count_on_team(seen, (1.0, np.zeros(1)), 1000, 2, team.openmp())
    np.testing.assert_array_equal(seen, 50.0)


def test_without_the_library(monkeypatch):
    monkeypatch.setattr(team, "_found", [])
    monkeypatch.setattr(team, "NAMES", ("no_such_function",) * 3)
    assert team.openmp() == (0, 0, 0)
    monkeypatch.setattr(team, "_found", [])
    monkeypatch.setattr(torch, "__file__", "/nowhere/torch/__init__.py")
    assert team.openmp() == (0, 0, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_has_none_of_these_threads():
    team.openmp()
    child = os.fork()
    if child == 0:
        os._exit(0 if team.openmp() == (0, 0, 0) else 1)
    assert os.waitpid(child, 0)[1] == 0
