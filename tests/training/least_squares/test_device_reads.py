"""Checks that are put off, and numbers that come together."""

import threading

import pytest
import torch

from mgnet.training.least_squares.device_reads import deferred, holds, is_far, read

NO, YES = torch.tensor(False), torch.tensor(True)


def test_a_check_is_looked_at_at_once_or_kept():
    assert holds(YES) and not holds(NO)
    with deferred() as checks:
        assert holds(NO) and holds(YES)
        assert [bool(check) for check in checks] == [False, True]
    assert not holds(NO) and len(checks) == 2


def test_inner_ones_keep_their_own_and_errors_end_them():
    with deferred() as outer:
        with pytest.raises(ZeroDivisionError), deferred() as inner:
            holds(NO)
            raise ZeroDivisionError
        holds(YES)
    assert len(inner) == len(outer) == 1 and not holds(NO)


def test_other_threads_look_at_once():
    found = []
    with deferred() as checks:
        thread = threading.Thread(target=lambda: found.append(holds(NO)))
        thread.start()
        thread.join()
    assert found == [False] and not checks


def test_numbers_keep_their_digits():
    numbers = torch.tensor(0.1), torch.tensor(0.1, dtype=torch.float64), YES, torch.tensor(3)
    assert read(numbers) == [float(torch.tensor(0.1)), 0.1, 1.0, 3.0]


def test_what_is_far():
    assert not is_far(torch.ones(2)) and is_far(torch.ones(2, device="meta"))
