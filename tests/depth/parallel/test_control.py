"""Laws of the controls: how many cycles they allow, and what they make of an error estimate."""

import math

import pytest

from mgnet.depth.parallel.control import (
    AdaptiveCycles,
    CycleLimit,
    CyclesToTolerance,
    FixedCycles,
    PassReport,
    summarize,
)


def test_the_estimate_is_exact_for_a_linear_iteration():
    """u_k = 1 + .3^k: the change times rho / (1 - rho) is the error that is left."""
    values = [1.0 + 0.3**k for k in range(6)]
    changes = [abs(b - a) / abs(b) for a, b in zip(values[:-1], values[1:], strict=True)]
    norms = [2.0 * 0.3**k for k in range(6)]  # of the residuals, the last by a closing sweep
    made = summarize(changes, norms)
    assert made.cycles == 5
    assert made.factor == pytest.approx(0.3)
    errors = [abs(value - 1.0) / value for value in values[1:]]
    assert made.estimates == pytest.approx(errors, rel=1e-12)
    assert made.estimate == made.estimates[-1]


def test_what_is_not_known_is_not_claimed():
    assert math.isnan(summarize([], []).estimate)
    assert summarize([0.2], [1.0]).estimate == 0.2  # as with the factor 1/2
    assert summarize([0.2, 0.1], [1.0, 1.5]).estimate == math.inf
    assert summarize([0.2, 1e-17], [1.0, 1e-16, 2e-16], rounding=1e-14).estimate == 1e-17


def test_fixed():
    control = FixedCycles(2, backward=3)
    assert control.limit("forward") == CycleLimit(2)
    assert control.limit("backward") == CycleLimit(3)
    assert FixedCycles(2).limit("backward") == CycleLimit(2)
    assert control.follow("forward", PassReport(2, 0.9, math.inf)) is control


def test_tolerance():
    control = CyclesToTolerance(1e-2, backward=1e-1, max_cycles=7)
    assert control.limit("forward") == CycleLimit(7, 1e-2)
    assert control.limit("backward") == CycleLimit(7, 1e-1)


def test_adaptive_doubles_its_cycles_when_it_looks():
    control = AdaptiveCycles(2, 0)
    assert control.limit("forward") == CycleLimit(2)
    assert control.limit("forward", 99) == control.limit("forward", 101) == CycleLimit(2)
    assert control.limit("forward", 200) == CycleLimit(4)
    assert control.limit("backward", 100) == CycleLimit(1)


@pytest.mark.parametrize(
    ("estimates", "forward"),
    [
        ((0.05, 0.01), 1),  # one cycle suffices
        ((0.5, 0.05), 2),  # two would have
        ((0.5, 0.3), 3),  # two would not have either
    ],
)
def test_adaptive_takes_what_would_have_sufficed(estimates, forward):
    control = AdaptiveCycles(1, 1, tolerance=0.1)
    made = PassReport(2, 0.5, estimates[-1], estimates)
    assert control.follow("forward", made) == AdaptiveCycles(forward, 1, tolerance=0.1)
    assert control.follow("forward", PassReport(1, math.nan, 9.0, (9.0,))) is control  # no check
    backward = control.follow("backward", made)
    assert isinstance(backward, AdaptiveCycles)
    assert (backward.forward, backward.backward) == (1, forward)


@pytest.mark.parametrize(
    ("estimates", "forward"),
    [
        ((0.05, 0.3, 0.2, 0.04), 4),  # one cycle looked fine by chance, two and three did not
        ((0.05, 0.3, 0.02, 0.5), 3),  # the fewest of more than two
        ((0.5, 0.05, 0.3, 0.3), 2),  # the usual two suffice, whatever came after
        ((0.05, 0.3, 0.2, 0.2), 5),  # none of more than two
    ],
)
def test_adaptive_never_falls_below_what_it_has_where_estimates_rise_again(estimates, forward):
    control = AdaptiveCycles(2, 2, tolerance=0.1, max_cycles=5)
    made = PassReport(4, 0.5, estimates[-1], estimates)
    assert control.follow("forward", made) == AdaptiveCycles(forward, 2, 0.1, max_cycles=5)
    expected = AdaptiveCycles(2, forward, 0.1, max_cycles=5)
    assert control.follow("backward", made) == expected


def test_adaptive_without_cycles_takes_the_fewest():
    control = AdaptiveCycles(0, 0, tolerance=0.1)
    found = control.follow("forward", PassReport(1, 0.5, 0.05, (0.05,)))
    assert found == AdaptiveCycles(1, 0, tolerance=0.1)


def test_adaptive_goes_serial_when_cycles_are_dearer():
    control = AdaptiveCycles(4, 4, tolerance=0.1, max_cycles=4)
    assert control.follow("forward", PassReport(8, 1.1, 0.4, (0.4,) * 8)) is None


def test_adaptive_takes_no_advice_from_a_call_that_began_before():
    """Two calls in flight, both a check of one cycle; after the first there are three."""
    made = PassReport(2, 0.9, 0.5, (0.8, 0.5))
    control = AdaptiveCycles(1, 1, tolerance=0.1).follow("backward", made)
    assert control == AdaptiveCycles(1, 3, tolerance=0.1)
    assert control.follow("backward", made) is control


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FixedCycles(-1), "FixedCycles got cycles = -1"),
        (lambda: FixedCycles(1, 1.5), "FixedCycles got backward = 1.5"),
        (lambda: CyclesToTolerance(0.0), "tolerances above 0"),
        (lambda: CyclesToTolerance(0.1, max_cycles=0), "CyclesToTolerance got max_cycles = 0"),
        (lambda: AdaptiveCycles(every=0), "AdaptiveCycles got every = 0"),
    ],
)
def test_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_nothing_is_believed_after_a_residual_that_is_not_finite():
    """A step that was undone, or overflowed: that the next residual is smaller says nothing."""
    made = summarize([1e-3, 1e-3, 1e-3], [1.0, math.inf, 1e-9, 1e-12])
    assert made.estimates[:2] == (math.inf, math.inf)
    assert made.estimate == pytest.approx(1e-6, rel=0.01)
