"""A share of the fuzzer of texts: what is read prints back, what is not is one sentence."""

import pytest

from tests.fuzz.share import taken
from tools.fuzz.texts import Fuzzer

TRIALS = 80


@pytest.mark.filterwarnings("ignore")
def test_texts_are_read_right_or_refused(tmp_path):
    target = Fuzzer()
    target.prepare(tmp_path)
    assert TRIALS / 5 < taken(target, tmp_path, 21, TRIALS) < TRIALS
