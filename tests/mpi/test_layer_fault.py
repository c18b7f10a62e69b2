"""Law: a fault on one rank ends the job on all within seconds, with one traceback."""

import re
import time

import pytest

BROKEN, NAN = "ArithmeticError: this rank is broken", "FloatingPointError: step"
FAULTS = [
    (2, "forward", "exception", BROKEN),
    (4, "backward", "exception", BROKEN),
    (2, "step", "exception", BROKEN),
    (4, "forward", "nan", NAN),
    (2, "backward", "nan", NAN),
    (2, "step", "nan", NAN),
]


def failed(mpiexec, ranks, where, kind):
    with pytest.raises(AssertionError, match="ranks ended with") as error:
        mpiexec("layer_fault.py", ranks, where, kind, timeout=300.0)
    text, ended = str(error.value), time.time()
    assert "no end after" not in text
    assert "all steps done" not in text
    assert ended - float(re.findall(r"fault ([\d.]+)", text)[0]) < 20.0
    return text


@pytest.mark.mpi
@pytest.mark.parametrize(("ranks", "where", "kind", "message"), FAULTS)
def test_a_fault_ends_all_ranks(mpiexec, ranks, where, kind, message):
    text = failed(mpiexec, ranks, where, kind)
    assert text.count("[rank ") == 1
    assert message in text


@pytest.mark.mpi
def test_a_killed_rank_ends_all(mpiexec):
    failed(mpiexec, 2, "backward", "killed")
