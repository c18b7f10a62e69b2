"""The state with the least merit is the solution; the last one where it is as good to rounding."""

from mgnet.best_state import BestState


def test_the_least_value_wins_and_ties_to_rounding_go_to_the_last():
    best = BestState(lambda u: u[0])
    for u in ([3.0], [1.0], [2.0]):
        best.see(lambda u=u: u)
    assert best.state([2.0]) == [1.0]
    last = [1.0 + 1e-14]
    best.see(lambda: last)
    assert best.state(last) is last


def test_without_a_merit_no_state_is_asked_for():
    best = BestState(None)
    best.see(lambda: 1 / 0)
    assert best.state("last") == "last" and best.values == []
