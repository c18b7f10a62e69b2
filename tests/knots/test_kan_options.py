"""The options of a KAN are checked before it is built; good ones come out as plain numbers."""

import numpy as np
import pytest
import torch

from mgnet.knots.kan_options import check_coefficients, checked_factor, checked_options

REST = False, (-1, 1), "tanh", None, None, None


def test_integers_of_numpy_become_those_of_python():
    told = checked_options([np.int64(2), 1], np.int32(4), np.int8(3), *REST)
    assert told.widths == (2, 1) and told.intervals == (4,) and told.domain == (-1.0, 1.0)
    assert all(type(n) is int for n in (*told.widths, *told.intervals, told.degree))
    assert (told.dtype, told.device.type) == (torch.float64, "cpu")


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (4, (0.0, float("inf")), "must be finite numbers"),
        (4, (0.0, 5e-324), "must be finite numbers"),
        (4, ("a", "b"), "two numbers in increasing order"),
        (7, "nonsense", "which torch does not know; give 'cpu'"),
        (5, np.array(["tanh"]), "it must be 'tanh' or 'identity'"),
        (2, True, "degree True; it must be"),
        (0, [True, 1], "positive integers"),
    ],
)
def test_what_cannot_be_is_named(place, value, message):
    given = [[2, 1], 4, 3, *REST]
    given[place] = value
    with pytest.raises(ValueError, match=message):
        checked_options(*given)


def test_the_limit_is_that_of_the_machine(monkeypatch):
    monkeypatch.setattr("mgnet.limits.machine_memory", lambda: 2**30)
    check_coefficients("KAN got much", [1000, 1000], [60], 3)
    with pytest.raises(ValueError, match="70003000 coefficients, which needs 1 GiB of memory"):
        check_coefficients("KAN got too much", [1000, 1000], [67], 3, 3000)


def test_a_factor_is_an_integer_of_at_least_two():
    assert checked_factor("x", np.int64(3)) == 3
    with pytest.raises(ValueError, match="x got factor True; it must be an integer of at least 2"):
        checked_factor("x", True)
