"""A share of the fuzzer of models: read as they were written, or refused in one sentence."""

import numpy as np

from tools.fuzz.models import Fuzzer

TRIALS = 60


def test_models_are_read_right_or_refused(tmp_path):
    fuzzer = Fuzzer()
    (tmp_path / "prepared").mkdir()
    fuzzer.prepare(tmp_path / "prepared")
    refused = 0
    for number in range(TRIALS):
        folder = tmp_path / str(number)
        folder.mkdir()
        drawn = fuzzer.draw(np.random.default_rng([5, number]), folder)
        try:
            assert fuzzer.use(folder), drawn
        except fuzzer.refusals as error:
            assert "\n" not in str(error), drawn
            refused += 1
    assert 20 < refused < TRIALS
