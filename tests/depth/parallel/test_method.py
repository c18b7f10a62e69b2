"""Laws: texts become schedules, and sweeps in their place."""

import pytest

from mgnet.depth.mgrit.newton import NewtonSweep
from mgnet.depth.parallel.method import SERIAL_METHOD, MGRITMethod


def test_a_text_is_a_cycle_or_a_sweep():
    method = MGRITMethod.from_texts((4, 2), "cascade + newton(diagonal)", "cascade + V", ("F",))
    assert method.strides == [1, 4, 8]
    assert method.sweep(False) == NewtonSweep("diagonal") and method.sweep(True) is None
    opening, cycle = method.forward
    assert opening == method.backward[0] and cycle.text == "pre 1"
    assert SERIAL_METHOD.strides == [1] and SERIAL_METHOD.sweep(False) is None


@pytest.mark.parametrize(
    ("text", "cycles", "opens", "used"),
    [
        ("newton", 3, True, False),
        ("cascade + newton", 3, True, True),
        ("cascade + newton", 3, False, False),
        ("cascade + newton", 0, True, True),
        ("V", 1, True, True),
        ("V", 0, True, False),
        ("cascade + V", 0, False, False),
    ],
)
def test_coarse_layers_are_used_or_not(text, cycles, opens, used):
    for reverse in (False, True):
        texts = ["V", "V"]
        texts[reverse] = text
        method = MGRITMethod.from_texts((4,), *texts, ("F",))
        assert method.uses_coarse(reverse, cycles, opens) == used
