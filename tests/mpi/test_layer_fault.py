"""Law: a fault on one rank ends all within seconds, and the training goes on from its checkpoint.

On another number of ranks, with the bits of one that was never interrupted. At Ctrl-C and SIGTERM
the checkpoint is that of the step under way. Many more faults: `python -m tools.fuzz ranks`.
"""

import json
import re
import time

import pytest

CAUGHT = ["step-nan", "step-SIGINT"]  # by a script, as all ranks raise them; before the first
FATAL = {  # on so many ranks
    "forward-exception": 2,
    "backward-exception": 4,
    "forward-nan": 2,
    "backward-nan": 2,
    "step-killed": 2,
    "step-exit": 2,
    "step-orphaned": 2,
    "backward-SIGTERM": 2,
}
WITH_CAUGHT = "forward-exception", "backward-exception"
RANKS, FAULTY, FIRST = (2, 4), 3, {2: 6, 4: 9}  # its layers are those of the last rank


@pytest.fixture(scope="module")
def told(mpiexec, tmp_path_factory):
    """What each run wrote, and the seconds from its fault, or its start, to its end."""
    folder, found = str(tmp_path_factory.mktemp("faults")), {}
    for fault, ranks in FATAL.items():
        faults, begun = CAUGHT * (fault in WITH_CAUGHT) + [fault], time.time()
        with pytest.raises(AssertionError, match="ranks ended with") as error:
            mpiexec("layer_fault.py", ranks, folder, *faults, timeout=300.0)
        text, ended = str(error.value), time.time()
        found[fault] = text, ended - float([begun, *re.findall(r"fault ([\d.]+)", text)][-1])
    found["resumed"] = json.loads(mpiexec("layer_fault.py", 3, folder, timeout=300.0))
    return found


@pytest.mark.mpi
@pytest.mark.parametrize("fault", FATAL)
def test_all_ranks_end(told, fault):
    (text, seconds), ranks = told[fault], FATAL[fault]
    assert seconds < 100.0 and "no end after" not in text
    assert "all steps done" not in text
    where, kind = fault.split("-")
    if kind not in ("exception", "nan"):
        assert "Traceback" not in text
        return
    assert text.count("[rank ") == 1 and text.count("Traceback") == 1
    if kind == "exception":
        assert f"[rank {ranks - 1}]" in text and "ArithmeticError: this rank is broken" in text
    else:
        assert re.search(rf"FloatingPointError: the {where} pass meets a state .* in layers", text)
        layer = f"weights of layer {FIRST[ranks]} are not finite"
        assert (layer in text) == (where == "forward")


@pytest.mark.mpi
def test_a_rank_that_exits_while_others_wait_for_it_ends_them(told):
    text, ranks = told["step-exit"][0], FATAL["step-exit"]
    assert text.count("no data for this rank") == 1 and text.count("[rank ") == 1
    assert f" waits for rank {ranks - 1}, which left the script with exit code 1; all" in text


@pytest.mark.mpi
@pytest.mark.parametrize("fault", WITH_CAUGHT)
def test_weights_that_are_not_finite_are_a_reason_on_all_ranks(told, fault):
    ranks = FATAL[fault]
    reason = f"step-nan: the weights of layer {FIRST[ranks]} on rank {ranks - 1}, or what the "
    assert told[fault][0].count(reason) == ranks


@pytest.mark.mpi
def test_a_signal_to_one_rank_saves_the_step_under_way_and_ends_all(told):
    for fault in WITH_CAUGHT:
        text = told[fault][0]
        assert text.count("step-SIGINT: 130") == FATAL[fault]
        assert text.count(f"SIGINT: {FAULTY + 1} steps are saved in ") == 1
    text = told["backward-SIGTERM"][0]
    assert "ended with 143" in text
    assert text.count(f"SIGTERM: {FAULTY + 1} steps are saved in ") == 1


@pytest.mark.mpi
def test_a_resumed_run_has_the_bits_of_one_never_interrupted(told):
    resumed = told["resumed"]
    whole = resumed.pop("")
    assert len(resumed) == len(FATAL) + len(RANKS) * len(CAUGHT) and whole[0] == 0
    for run, (began, bits) in resumed.items():
        first = FAULTY + ("SIG" in run)  # a rank notices later that its launcher is gone
        assert began >= first if "orphaned" in run else began == first, run
        assert bits == whole[1], run
