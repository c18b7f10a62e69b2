"""A share of the fuzzer of options: the drawn values, or one sentence for a bad one."""

import numpy as np
import pytest
import torch

from tools.fuzz.options import Fuzzer

TRIALS = 80


def trials(fuzzer, root, seed):
    """Return how many sets of options were taken."""
    taken = 0
    for number in range(TRIALS):
        folder = root / f"{seed}-{number}"
        folder.mkdir()
        drawn = fuzzer.draw(np.random.default_rng([seed, number]), folder)
        try:
            assert fuzzer.use(folder), drawn
            taken += 1
        except fuzzer.refusals as refusal:
            told = str(refusal)
            assert told and "\n" not in told and len(told) <= 1000, (drawn, told)
    return taken


@pytest.fixture
def fuzzer(tmp_path):
    state, made = torch.get_rng_state(), Fuzzer()
    made.prepare(tmp_path)
    yield made
    torch.set_rng_state(state)


@pytest.mark.filterwarnings("ignore")
def test_options_are_taken_right_or_refused(fuzzer, tmp_path, options):
    options("")
    assert TRIALS / 5 < trials(fuzzer, tmp_path, 31) < TRIALS


@pytest.mark.filterwarnings("ignore")
def test_without_petsc(fuzzer, tmp_path):
    fuzzer.database = None
    assert trials(fuzzer, tmp_path, 32) < TRIALS / 3
