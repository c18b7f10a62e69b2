"""Law: a fault on one rank ends all within seconds, and the training goes on from its checkpoint.

On another number of ranks, with the bits of one that was never interrupted. At Ctrl-C and SIGTERM
the checkpoint is that of the step under way.
"""

import json
import re
import time
from itertools import product

import pytest

FATAL = ["forward-exception", "backward-exception", "step-exception"]
FATAL += ["forward-nan", "backward-nan", "forward-killed", "backward-killed", "step-killed"]
CAUGHT = ["step-nan", "step-SIGINT"]  # by a script, as all ranks raise them; before the first
SIGNAL = "backward-SIGTERM"
RANKS, FAULTY, FIRST = (2, 4), 3, {2: 6, 4: 9}  # its layers are those of the last rank


@pytest.fixture(scope="module")
def told(mpiexec, tmp_path_factory):
    """What each run wrote, and the seconds from its fault to its end."""
    folder, found = str(tmp_path_factory.mktemp("faults")), {}
    for fault, ranks in [*product(FATAL, RANKS), (SIGNAL, 4)]:
        faults = CAUGHT * (fault == FATAL[0]) + [fault]
        with pytest.raises(AssertionError, match="ranks ended with") as error:
            mpiexec("layer_fault.py", ranks, folder, *faults, timeout=300.0)
        text, ended = str(error.value), time.time()
        found[fault, ranks] = text, ended - float(re.findall(r"fault ([\d.]+)", text)[-1])
    found["resumed"] = json.loads(mpiexec("layer_fault.py", 3, folder, timeout=300.0))
    return found


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("fault", FATAL)
def test_all_ranks_end(told, fault, ranks):
    text, seconds = told[fault, ranks]
    assert seconds < 20.0 and "no end after" not in text
    assert "all steps done" not in text
    where, kind = fault.split("-")
    if kind == "killed":
        return
    assert text.count("[rank ") == 1 and text.count("Traceback") == 1
    if kind == "exception":
        assert f"[rank {ranks - 1}]" in text and "ArithmeticError: this rank is broken" in text
    else:
        assert re.search(rf"FloatingPointError: the {where} pass meets a state .* in layers", text)
        layer = f"weights of layer {FIRST[ranks]} are not finite"
        assert (layer in text) == (where == "forward")


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", RANKS)
def test_weights_that_are_not_finite_are_a_reason_on_all_ranks(told, ranks):
    reason = f"step-nan: the weights of layer {FIRST[ranks]} on rank {ranks - 1}, or what the "
    assert told[FATAL[0], ranks][0].count(reason) == ranks


@pytest.mark.mpi
def test_a_signal_to_one_rank_saves_the_step_under_way_and_ends_all(told):
    for ranks in RANKS:
        text = told[FATAL[0], ranks][0]
        assert text.count("step-SIGINT: 130") == ranks
        assert text.count(f"SIGINT: {FAULTY + 1} steps are saved in ") == 1
    text, seconds = told[SIGNAL, 4]
    assert "ended with 143" in text and "Traceback" not in text and seconds < 20.0
    assert text.count(f"SIGTERM: {FAULTY + 1} steps are saved in ") == 1


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("fault", [*FATAL, *CAUGHT, SIGNAL])
def test_a_resumed_run_has_the_bits_of_one_never_interrupted(told, fault, ranks):
    if fault == SIGNAL and ranks == 2:
        return
    began, bits = told["resumed"][f"{fault}-{ranks}"]
    assert began == FAULTY + ("SIG" in fault)
    assert [0, bits] == told["resumed"][""]
