"""Law: the fuzzer of ranks sees a lost or doubled text, a wrong exit code, and no fault.

The trials start many processes: `python -m tools.fuzz ranks`. A few are in tests/mpi.
"""

import pytest

from tools.fuzz.ranks import KINDS, PRINTED, TRACEBACK, Fault, Trial

ENDED = f"{PRINTED}1] {TRACEBACK}\nArithmeticError: this rank is broken\n"


@pytest.mark.parametrize(
    ("kind", "code", "text", "wrong"),
    [
        ("exception", 1, ENDED, ""),
        ("exception", 1, "", "0 times"),
        ("exception", 1, 2 * ENDED, "2 times"),
        ("exception", 0, ENDED, "exit code 0 in place of (1,)"),
        ("outside-kill", -9, "", ""),
        ("outside-kill", 0, "", "exit code 0 in place of another"),
        ("signal-SIGINT", 130, "SIGINT: 3 steps are saved\n" + ENDED, "a traceback"),
        ("exit-3", 3, f"{PRINTED}0] waits for rank 1, which left the script\n", "exit code 3"),
    ],
)
def test_what_is_a_fault(tmp_path, kind, code, text, wrong):
    trial = Trial(0, 2, Fault(kind, "step", 1, 3), tmp_path)
    (tmp_path / "out").write_text(text)
    (tmp_path / "fault").write_text("1")
    trial._judge(code)
    assert wrong in "\n".join(trial.wrong) and bool(trial.wrong) == bool(wrong)


def test_a_fault_that_did_not_happen_is_seen(tmp_path):
    trial = Trial(0, 2, Fault("outside-stop", "step", 1, 3), tmp_path)
    (tmp_path / "out").write_text("")
    trial._judge(0)
    assert trial.wrong[0] == "no fault happened"


def test_every_kind_has_a_place():
    assert all(expected.where for expected in KINDS.values())
