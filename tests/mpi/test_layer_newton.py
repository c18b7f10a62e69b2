"""Law: Newton's method over layers gives the same bits on any number of ranks, and hangs on none.

Outputs, gradients and reports; and the serial network's within rounding, where it has converged.
"""

import json
from typing import Any

import pytest

RANKS = [1, 3]


@pytest.fixture(scope="module")
def told(mpiexec) -> dict[int, dict[str, Any]]:
    """What rank 0 prints, from each run."""
    return {n: json.loads(mpiexec("layer_newton.py", n, timeout=300.0)) for n in RANKS}


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", RANKS)
def test_bits_and_reports_are_those_of_one_rank(told, ranks):
    cases = {name: case for name, case in told[ranks].items() if name not in ("overflow", "chaos")}
    assert len(cases) == 7
    for name, case in cases.items():
        assert case[:3] == told[1][name][:3], name


@pytest.mark.mpi
def test_what_has_converged_is_the_serial_network(told):
    exact = "dense", "after a cascade, three levels", "fewer intervals than ranks"
    for name in exact:
        assert told[3][name][3] < 1e-12, name
    for name in ("diagonal", "identity", "damped"):
        assert 1e-12 < told[3][name][3] < 1e-2, name


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", RANKS)
def test_all_ranks_refuse_what_overflows(told, ranks):
    (said,) = told[ranks]["overflow"]
    assert said == "the forward pass meets a state that is not finite"


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", RANKS)
def test_all_ranks_refuse_chaotic_steps_with_one_exponent(told, ranks):
    chaotic, calm, few = told[ranks]["chaos"]
    assert len(chaotic) == ranks and len(set(chaotic)) == 1
    assert chaotic[0] == pytest.approx(0.693, abs=0.02)  # ln 2
    assert set(calm + few) == {0.0}
