"""A share of the fuzzer of dialects: what is read is what stands there, or it is one sentence."""

import numpy as np
import pytest

from mgnet.app.files.text import TextFile
from tests.fuzz.share import taken
from tools.fuzz.dialects import Fuzzer

TRIALS = 200


def test_numbers_are_those_of_their_cells_or_refused(tmp_path):
    assert TRIALS // 2 < taken(Fuzzer(), tmp_path, 17, TRIALS) < TRIALS * 3 // 4


def test_a_wrong_number_is_seen(tmp_path, monkeypatch):
    right = TextFile.numbers
    monkeypatch.setattr(TextFile, "numbers", lambda file, names: right(file, names) * 10.0)
    with pytest.raises(AssertionError):
        taken(Fuzzer(), tmp_path, 18, 20)
    monkeypatch.setattr(TextFile, "numbers", lambda file, names: np.sort(right(file, names), 0))
    with pytest.raises(AssertionError):
        taken(Fuzzer(), tmp_path, 19, 20)
