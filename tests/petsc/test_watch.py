"""Law: who waits for a rank that left ends the job; who waits for a slow one waits."""

import pickle
import threading

import numpy as np
import pytest


@pytest.fixture
def watch(petsc, monkeypatch):
    """One that waits for rank 1, and has heard from it what each test says."""
    from mpi4py import MPI

    from mgnet.petsc.watch import Watch

    class EndedError(Exception):
        pass

    class Job:
        def end(self, text, code):
            raise EndedError(text, code)

    found = Watch(MPI.COMM_SELF)
    found.exits, found.job, found.calls = MPI.COMM_SELF.Dup(), Job(), 5
    monkeypatch.setattr(found, "ended", EndedError, raising=False)
    yield found
    found.exits.Free()


def told(watch, calls, code):
    """As if rank 0 was another one."""
    from mgnet.petsc.watch import LEFT

    return watch.exits.Isend(np.array([calls, code]), 0, LEFT)


@pytest.mark.parametrize(
    ("code", "ends", "what"),
    [(3, 3, " with exit code 3"), (0, 1, " with exit code 0"), (-1, 1, "")],
)
def test_a_rank_that_left_before_this_call_is_missed(watch, code, ends, what):
    request = told(watch, 4, code)
    watch._look(0.1, 5)  # it may still come, for all that this rank knows
    with pytest.raises(watch.ended) as error:
        watch._look(2.0, 5)
    text, number = error.value.args
    assert f"waits for rank 0, which left the script{what}; all" in text and number == ends
    request.Wait()


def test_a_rank_that_left_after_this_call_is_not(watch):
    request = told(watch, 5, 0)
    watch._look(1e6, 5)
    assert watch.left == {0: (5, 0)}
    with pytest.raises(watch.ended):  # but what it would have sent in its next call is
        watch._look(2.0, 6)
    request.Wait()


def test_a_wait_looks_again_and_again(watch, monkeypatch):
    looked = []
    monkeypatch.setattr("mgnet.petsc.watch.LOOK", 0.01)
    monkeypatch.setattr(watch, "_look", lambda waited, needs: looked.append(waited))

    class Request:
        def Test(self):  # noqa: N802, MPI's name
            return len(looked) == 3

    watch.wait(Request(), Request())
    assert watch.calls == 6 and looked == sorted(looked) and looked[0] > 0.01


def test_one_for_each_communicator(petsc):
    from mpi4py import MPI

    from mgnet.petsc.watch import watch_of, watches

    other = MPI.COMM_SELF.Dup()
    first, second = watch_of(MPI.COMM_SELF), watch_of(other)
    assert first is not second and watch_of(other) is second and second in watches()
    other.Free()


class TwiceError(Exception):
    """Cannot be read back: its constructor takes two arguments and keeps one."""

    def __init__(self, a, b):
        super().__init__(f"no step {a} {b}")


class LockedError(Exception):
    """Cannot be pickled."""

    def __init__(self):
        super().__init__("no step 1 2")
        self.lock = threading.Lock()


@pytest.mark.parametrize("error", [TwiceError(1, 2), LockedError(), ArithmeticError("no step 1 2")])
def test_errors_go_to_other_ranks(petsc, error):
    from mgnet.petsc.watch import portable

    again = pickle.loads(pickle.dumps(portable(error)))
    assert "no step 1 2" in str(again)
    if isinstance(error, ArithmeticError):
        assert type(again) is ArithmeticError
    else:
        assert str(again) == f"{type(error).__name__}: no step 1 2"
