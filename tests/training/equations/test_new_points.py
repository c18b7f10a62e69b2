"""New points come when they are to, as many as asked for, more of them at large residuals."""

import math

import pytest
import torch

from mgnet.training import (
    Ansatz,
    Collocation,
    LeastSquares,
    NewPoints,
    Term,
    levenberg_marquardt,
    quasi_random,
    sine_network,
)

UNIT = [(0.0, 1.0)]


def decay(points, dtype=torch.float64, others=()):
    network = Ansatz(sine_network([1, 6, 1], dtype=dtype), output=lambda x, y: 1.0 + x * y)
    law = Term(lambda u: u.d(0) + u.value, points.to(dtype), weight=2.0)
    return Collocation(network, [law, *others])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_points_come_when_they_are_to_and_as_many_as_asked_for(dtype):
    problem = decay(quasi_random(20, UNIT), dtype)
    u = problem.start()
    refresh = NewPoints(UNIT, [(0, 20), (7, 33), (15, 50)], every=5)
    changed = {}
    for cycle in range(1, 31):
        new = refresh(cycle, problem, u)
        if new is not problem:
            changed[cycle] = new.terms[0].samples
            points = new.terms[0].points
            assert points.dtype == dtype and bool(((points >= 0.0) & (points <= 1.0)).all())
            assert new.network is problem.network and new.terms[0].weight == 2.0
    assert changed == {5: 20, 7: 33, 12: 33, 15: 50, 20: 50, 25: 50, 30: 50}


def test_the_same_seed_and_cycle_give_the_same_points_and_others_others():
    problem = decay(quasi_random(20, UNIT))
    u = problem.start()

    def points(seed, cycle):
        made = NewPoints(UNIT, 40, 1, share=0.5, seed=seed)(cycle, problem, u)
        return made.terms[0].points

    assert torch.equal(points(1, 3), points(1, 3))
    assert not torch.equal(points(1, 3), points(1, 4))
    assert not torch.equal(points(1, 3), points(2, 3))


@pytest.mark.parametrize("share", [0.0, 0.25, 0.75])
def test_a_share_of_the_points_is_where_the_residual_is_large(share):
    def bump(u):
        return 0.0 * u.value + torch.where(u.points > 0.9, 1.0, 1e-9)

    problem = Collocation(torch.nn.Linear(1, 1).double(), [Term(bump, quasi_random(8, UNIT))])
    new = NewPoints(UNIT, 1000, 1, share=share)(1, problem, problem.start())
    high = int((new.terms[0].points > 0.9).sum())
    assert high == pytest.approx(1000 * (share + 0.1 * (1.0 - share)), abs=10)


def test_other_terms_keep_their_points_and_a_term_can_be_chosen():
    ends = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    problem = decay(quasi_random(20, UNIT), others=[Term(lambda u: u.value, ends)])
    first = NewPoints(UNIT, 30, 1)(1, problem, problem.start())
    assert [term.samples for term in first.terms] == [30, 2]
    assert first.terms[1].points is ends
    second = NewPoints(UNIT, 30, 1, term=1)(1, problem, problem.start())
    assert [term.samples for term in second.terms] == [20, 30]


def test_points_that_stay_are_learnt_by_heart_and_new_ones_are_not():
    def ends(refresh):
        torch.manual_seed(0)
        network = Ansatz(sine_network([1, 12, 1], 3.0), output=lambda x, y: x * y)

        def law(u):
            return u.d(0) - 3.0 * torch.cos(9.0 * u.points)

        problem = Collocation(network, [Term(law, quasi_random(6, UNIT))])
        levenberg_marquardt(problem, max_cycles=60, refresh=refresh)
        x = torch.linspace(0.0, 1.0, 200, dtype=torch.float64).unsqueeze(1)
        return float((network(x) - torch.sin(9.0 * x) / 3.0).detach().abs().max())

    assert ends(NewPoints(UNIT, 60, 5)) < 1e-5 < 0.1 < ends(None)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: NewPoints([(1.0, 0.0)], 10), "NewPoints got domain"),
        (lambda: NewPoints(UNIT, 0), "NewPoints got counts 0"),
        (lambda: NewPoints(UNIT, True), "NewPoints got counts True"),
        (lambda: NewPoints(UNIT, []), "NewPoints got counts"),
        (lambda: NewPoints(UNIT, [(1, 10)]), "increasing cycles from 0"),
        (lambda: NewPoints(UNIT, [(0, 10), (0, 20)]), "increasing cycles from 0"),
        (lambda: NewPoints(UNIT, [(0, 10), 20]), "increasing cycles from 0"),
        (lambda: NewPoints(UNIT, "10"), "NewPoints got counts '10'"),
        (lambda: NewPoints(UNIT, 10, 0), "every 0"),
        (lambda: NewPoints(UNIT, 10, share=1.0), "share 1.0"),
        (lambda: NewPoints(UNIT, 10, share=math.nan), "share nan"),
        (lambda: NewPoints(UNIT, 10, term=-1), "term -1"),
        (lambda: NewPoints(UNIT, 10, seed=2**31), "seed"),
    ],
)
def test_what_is_no_setting_is_refused(make, told):
    with pytest.raises(ValueError) as caught:
        make()
    assert told in str(caught.value)


def test_problems_that_do_not_suit_are_refused():
    problem = decay(quasi_random(20, UNIT))
    u = problem.start()
    with pytest.raises(ValueError, match="term 1 of a problem with 1"):
        NewPoints(UNIT, 10, 1, term=1)(1, problem, u)
    with pytest.raises(ValueError, match="domain of 2 inputs for points of 1"):
        NewPoints([*UNIT, *UNIT], 10, 1)(1, problem, u)
    x = torch.zeros(3, 1, dtype=torch.float64)
    pairs = problem.with_data([Term(lambda u, v: u.value - v.value, (x, x))])
    with pytest.raises(ValueError, match="several points for each residual"):
        NewPoints(UNIT, 10, 1)(1, pairs, u)
    with pytest.raises(TypeError, match="needs a Collocation"):
        NewPoints(UNIT, 10, 1)(1, LeastSquares(torch.nn.Linear(1, 1), (x, x)), u)


def two_inputs(points, residual=None):
    network = torch.nn.Linear(2, 1).double()
    return Collocation(network, [Term(residual or (lambda u: u.value), points)])


@pytest.mark.parametrize(
    ("domain", "told"),
    [
        ([(0.0, 0.4), (0.0, 1.0)], "has points outside"),
        ([(0.0, 0.0), (0.0, 1.0)], "has points outside"),
        ([(0.0, 4.0), (0.0, 1.0)], "fill less than half"),
    ],
)
def test_a_domain_that_is_not_the_terms_is_refused(domain, told):
    problem = two_inputs(quasi_random(40, [*UNIT, *UNIT]))
    with pytest.raises(ValueError, match=told):
        NewPoints(domain, 50, 1)(1, problem, problem.start())


@pytest.mark.parametrize("count", [30, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_data_made_for_the_first_points_are_refused(count, dtype):
    x = quasi_random(30, UNIT).to(dtype)
    source = torch.sin(math.pi * x)
    network = Ansatz(sine_network([1, 6, 1], dtype=dtype), output=lambda x, y: x * (1.0 - x) * y)
    problem = Collocation(network, [Term(lambda u: u.d(0, 0) + source, x)])
    with pytest.raises(ValueError, match="make it a function of u.points"):
        levenberg_marquardt(problem, refresh=NewPoints(UNIT, count, 2), max_cycles=5)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_residual_that_is_not_finite_somewhere_is_told(share):
    x = quasi_random(30, [(0.2, 1.0)])
    network = sine_network([1, 6, 1])
    problem = Collocation(network, [Term(lambda u: torch.sqrt(u.points - 0.2) * u.value - 1, x)])
    told = (
        "not finite at .* of .* candidates"
        if share
        else "at cycle 2, with the problem that was new"
    )
    with pytest.raises(ValueError, match=told):
        levenberg_marquardt(problem, refresh=NewPoints(UNIT, 30, 2, share), max_cycles=5)


def test_one_point_at_least_is_even():
    problem = decay(quasi_random(20, UNIT))
    new = NewPoints(UNIT, 10, 1, share=0.99)(1, problem, problem.start())
    assert new.terms[0].samples == 10
