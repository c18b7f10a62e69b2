"""A share of the fuzzer of `resumable_steps`: what was written is taken, or one sentence told."""

import pytest
import torch

from tests.fuzz.share import taken
from tools.fuzz.resumable import Fuzzer

TRIALS = 60


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory):
    folder, state = tmp_path_factory.mktemp("fuzz") / "prepared", torch.get_rng_state()
    folder.mkdir()
    made = Fuzzer()
    made.prepare(folder)
    yield made, folder.parent
    torch.set_rng_state(state)


@pytest.mark.filterwarnings("ignore")
def test_files_are_loaded_right_or_refused(fuzzer):
    assert 0 < taken(*fuzzer, 11, TRIALS) < TRIALS // 2
