"""Law: a fault on one rank ends the job on all within seconds, with one traceback."""

import re
import time

import pytest

# Broken blocks raise their own error; NaN is found by the cycles.
FAULTS = [
    ("forward", "exception", "ArithmeticError: this rank is broken"),
    ("backward", "exception", "ArithmeticError: this rank is broken"),
    ("step", "exception", "ArithmeticError: this rank is broken"),
    ("forward", "nan", "FloatingPointError: step"),
    ("backward", "nan", "FloatingPointError: step"),
    ("step", "nan", "FloatingPointError: step"),
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
@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize(("where", "kind", "message"), FAULTS)
def test_a_fault_ends_all_ranks(mpiexec, ranks, where, kind, message):
    text = failed(mpiexec, ranks, where, kind)
    assert text.count("Traceback (most recent call last)") == 1
    assert message in text


@pytest.mark.mpi
def test_a_killed_rank_ends_all(mpiexec):
    failed(mpiexec, 2, "backward", "killed")
