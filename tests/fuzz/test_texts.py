"""A share of the fuzzer of texts: what is read prints back, what is not is one sentence."""

import numpy as np
import pytest

from tools.fuzz.texts import Fuzzer

TRIALS = 80


@pytest.mark.filterwarnings("ignore")
def test_texts_are_read_right_or_refused(tmp_path):
    target = Fuzzer()
    target.prepare(tmp_path)
    read = 0
    for number in range(TRIALS):
        drawn = target.draw(np.random.default_rng([21, number]), tmp_path)
        try:
            assert target.use(tmp_path), drawn
            read += 1
        except target.refusals as refusal:
            told = str(refusal)
            assert told and "\n" not in told and len(told) <= 1000, (drawn, told)
    assert TRIALS / 5 < read < TRIALS
