"""A share of the fuzzer of `resumable_steps`: what was written is taken, or one sentence told."""

import numpy as np
import pytest
import torch

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
    target, root = fuzzer
    loaded = 0
    for number in range(TRIALS):
        folder = root / str(number)
        folder.mkdir()
        drawn = target.draw(np.random.default_rng([11, number]), folder)
        try:
            assert target.use(folder), drawn
            loaded += 1
        except target.refusals as error:
            told = str(error)
            assert "\n" not in told and 0 < len(told) < 1000, drawn
    assert 0 < loaded < TRIALS // 2
