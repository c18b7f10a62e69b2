"""A share of the fuzzer of tables: nothing but what another reader reads, or one sentence."""

import numpy as np
import pytest

from tools.fuzz.tables import Fuzzer

TRIALS = 60


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz") / "prepared"
    folder.mkdir()
    made = Fuzzer()
    made.prepare(folder)
    return made, folder.parent


def test_tables_are_read_right_or_refused(fuzzer):
    target, root = fuzzer
    read = 0
    for number in range(TRIALS):
        folder = root / str(number)
        folder.mkdir()
        drawn = target.draw(np.random.default_rng([11, number]), folder)
        try:
            assert target.use(folder), drawn
            read += 1
        except target.refusals as error:
            told = str(error)
            assert told.isprintable() and len(told) < 1000, drawn
    assert TRIALS // 10 < read < TRIALS // 2
