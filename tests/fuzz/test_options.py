"""A share of the fuzzer of options: the drawn values, or one sentence for a bad one."""

import pytest
import torch

from tests.fuzz.share import taken
from tools.fuzz.options import Fuzzer

TRIALS = 80


@pytest.fixture
def fuzzer(tmp_path):
    state, made = torch.get_rng_state(), Fuzzer()
    made.prepare(tmp_path)
    yield made
    torch.set_rng_state(state)


@pytest.mark.filterwarnings("ignore")
def test_options_are_taken_right_or_refused(fuzzer, tmp_path, options):
    options("")
    assert TRIALS / 5 < taken(fuzzer, tmp_path, 31, TRIALS) < TRIALS


@pytest.mark.filterwarnings("ignore")
def test_without_petsc(fuzzer, tmp_path):
    fuzzer.database = None
    assert taken(fuzzer, tmp_path, 32, TRIALS) < TRIALS / 3
