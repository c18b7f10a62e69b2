"""Law: a `TimeParallel` over ranks has the same bits on any number of them, and hangs on none.

Outputs, all gradients and reports, of drawn networks and inputs (padded and packed), any cell and
all modes; and those of PyTorch's own module, or of a loop, within the tolerance.
"""

import json
from typing import Any

import pytest

RANKS = [1, 2, 3]
ROUGH = "fixed cycles", "warm start", "identity"  # a fixed number of cycles
UNCOMPARED = "dropout", "trained", "refused", "differ"
DIFFERENT = {
    "input": "the input of rank 0 and of rank",
    "steps": "the input of rank 0 and of rank",
    "gradient of the input": "the input of rank 0 and of rank",
    "weights": "the weights of rank 0 and of rank",
    "frozen": "the weights of rank 0 and of rank",
    "mode": "the mode, control or train() of rank 0 and of rank",
    "no gradient": "the mode, control or train() of rank 0 and of rank",
    "modules": "rank 0 is in a call of TimeParallel, forward pass of module",
    "backward": "in one of TimeParallel, backward pass of module",
    "gradient": "the gradient of rank 0 and of rank",
}


@pytest.fixture(scope="module")
def told(mpiexec) -> dict[int, dict[str, Any]]:
    """What rank 0 prints, from each run."""
    return {n: json.loads(mpiexec("time_parallel.py", n, timeout=300.0)) for n in RANKS}


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", RANKS[1:])
def test_bits_and_reports_are_those_of_one_rank(told, ranks):
    cases = {name: case for name, case in told[ranks].items() if name not in UNCOMPARED[2:]}
    assert len(cases) == 19
    for name, case in cases.items():
        assert case[:3] == told[1][name][:3], name


@pytest.mark.mpi
def test_numbers_are_those_of_pytorch(told):
    for name, case in told[3].items():
        if name not in (*ROUGH, *UNCOMPARED):
            single = name in ("float32", "step by step", "serial", "auto")
            assert case[3] < (1e-5 if single else 1e-9), name
    assert told[3]["warm start"][3] < 0.1 * told[3]["fixed cycles"][3]


@pytest.mark.mpi
def test_what_overflows_on_coarse_levels_is_solved_step_by_step_by_all(told):
    assert "cycles=0, factor=inf" in told[3]["Cube"][1]


@pytest.mark.mpi
def test_all_ranks_refuse_what_cannot_be_shared(told):
    ((one,),) = told[1]["refused"]
    assert one == "distribute_time got pieces 0; give an integer of at least 1"
    for ranks in RANKS[1:]:
        ((weights, pieces),) = told[ranks]["refused"]
        assert weights.startswith("distribute_time got a module on rank 1 with other weights")
        assert pieces.startswith(f"distribute_time got {ranks} ranks for {ranks - 1} pieces")


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", RANKS[1:])
def test_calls_that_differ_are_refused_by_all(told, ranks):
    (said,) = told[ranks]["differ"]  # the same on all
    found = dict(said)
    assert found.pop("none") == ""
    assert {name for name, words in DIFFERENT.items() if words in found[name]} == {*found}


@pytest.mark.mpi
def test_an_exception_on_one_rank_ends_all(mpiexec):
    with pytest.raises(AssertionError, match="ranks ended with") as error:
        mpiexec("time_parallel.py", 2, "fault", timeout=120.0)
    text = str(error.value)
    assert text.count("Traceback") == 1 and "[rank 1]" in text and "went on" not in text
    assert "ArithmeticError: this rank is broken" in text
