"""Law: time grids have the same bits on any number of ranks, which share the steps."""

import json
from typing import Any

import pytest


@pytest.fixture(scope="module")
def told(mpiexec) -> dict[int, dict[str, Any]]:
    """What rank 0 prints on so many ranks."""
    return {ranks: json.loads(mpiexec("time_grids.py", ranks)) for ranks in (1, 3)}


@pytest.mark.mpi
@pytest.mark.parametrize("case", ["adaptive", "richardson", "heat", "periodic"])
def test_bits_are_those_of_one_rank(told, case):
    assert told[3][case] == told[1][case]
    assert told[3]["alike"]


@pytest.mark.mpi
def test_ranks_share_the_steps(told):
    alone = told[1]["taken"][0]
    assert alone > told[1]["taken"][1]  # all that were counted, and the checks
    assert told[3]["taken"][0] < 0.5 * alone


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [1, 3])
def test_a_step_that_fails_on_one_rank_fails_on_all(told, ranks):
    assert told[ranks]["failed"].startswith("no step beyond 2.3")
    assert told[ranks]["all failed"]
