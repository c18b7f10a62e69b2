"""Law: `odeint` gives the same bits on any number of ranks, to all of them, and hangs on none."""

import json
from typing import Any

import pytest

RANKS = [1, 2, 4]


@pytest.fixture(scope="module")
def told(mpiexec) -> dict[int, dict[str, Any]]:
    """What rank 0 prints, from each run."""
    return {n: json.loads(mpiexec("ode_steps.py", n, timeout=300.0)) for n in RANKS}


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", RANKS)
def test_bits_are_those_of_one_rank(told, ranks):
    cases = {name: case for name, case in told[ranks].items() if name != "other states"}
    assert len(cases) == {1: 6, 2: 6, 4: 1}[ranks]
    for name, (digests, *_) in cases.items():
        assert digests == ranks * told[1][name][0], name


@pytest.mark.mpi
def test_solutions_and_gradients_are_those_of_one_step_after_another(told):
    for name, (_, error) in told[1].items():
        assert error < 1e-9, name


@pytest.mark.mpi
def test_ranks_with_other_states_are_refused(told):
    assert told[2]["other states"].startswith("odeint: the y0, t, func or gradients of rank 0")
