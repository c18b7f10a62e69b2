"""A share of the fuzzer of models: read as they were written, or refused in one sentence."""

from tests.fuzz.share import taken
from tools.fuzz.models import Fuzzer

TRIALS = 60


def test_models_are_read_right_or_refused(tmp_path):
    fuzzer = Fuzzer()
    (tmp_path / "prepared").mkdir()
    fuzzer.prepare(tmp_path / "prepared")
    assert 20 < TRIALS - taken(fuzzer, tmp_path, 5, TRIALS) < TRIALS
