"""A short soak: objects, files and threads stay as they are from step to step."""

from pathlib import Path

import pytest

from tools.fuzz.soak import TASKS, Sample, grown, sample, soak


@pytest.mark.parametrize("task", ["solves", "kept", "fits", "training"])
def test_a_short_run_leaves_nothing_behind(task, tmp_path):
    step = TASKS[task](tmp_path)
    for number in range(12):  # every kind of step has been there once, or compiled what it needs
        step(number)
    sample()
    first = sample()
    for number in range(12, 24):
        step(number)
    last = sample()
    found = [fault for fault in grown(first, last) if not fault.startswith("memory")]
    assert found == []


def test_what_grows_is_named():
    held = []

    def step(number: int) -> None:
        held.append([number, Path(f"/{number}")])

    samples = soak(step, 500)
    assert len(samples) == 21
    assert any("objects more" in fault for fault in grown(samples[0], samples[-1]))
    first = Sample(100.0, 10, 5, 1, 0, 2, 0, 0)
    last = first._replace(megabytes=106.0, files=6)
    assert grown(first, last) == ["memory from 100 to 106 MB", "files from 5 to 6"]
