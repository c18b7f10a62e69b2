"""Law: a term weighs the mean of its squares, and its parts sum to it; wrong terms are refused."""

import pytest
import torch

from mgnet.training import Term

POINTS = torch.linspace(-1.0, 1.0, 14, dtype=torch.float64).reshape(7, 2)


def term(**options):
    return Term(lambda u: u**2 - 1.0, POINTS, **options)


@pytest.mark.parametrize("attention", [None, torch.arange(1.0, 8.0).double()])
def test_the_sum_of_squares_is_the_weighted_mean(attention):
    one = term(weight=3.0, attention=attention)
    factors = torch.ones(7).double() if attention is None else attention
    expected = 3.0 * (factors.unsqueeze(1) * (POINTS**2 - 1.0)).square().sum() / 7.0
    found = one.scaled(one.at(POINTS)).square().sum()
    torch.testing.assert_close(found, expected)
    parts = [one.part(begin, begin + 3) for begin in range(0, 7, 3)]
    assert [part.samples for part in parts] == [3, 3, 1]
    rows = [part.scaled(part.at(part.places[0])) for part in parts]
    torch.testing.assert_close(torch.cat(rows), one.scaled(one.at(POINTS)))


def test_a_part_of_pairs_keeps_pairs():
    pair = Term(lambda u, v: u - v, (POINTS, POINTS + 1.0), weight=2.0)
    part = pair.part(1, 3)
    assert isinstance(part.points, tuple) and torch.equal(part.points[1], POINTS[1:3] + 1.0)
    assert part.weight == pytest.approx(2.0 * 2.0 / 7.0)
    half = pair.subsampled(0.5)
    assert half.samples == 4 and half.weight == 2.0 and isinstance(half.points, tuple)
    assert pair.subsampled(1.0) is pair


def test_one_component_may_be_a_vector():
    one = Term(lambda u: u[:, 0], POINTS)
    assert one.at(POINTS).shape == (7, 1)


@pytest.mark.parametrize(
    ("residual", "points", "options", "kind", "words"),
    [
        (1.0, POINTS, {}, TypeError, "a residual of type float; give a function of u"),
        (len, POINTS[:, 0], {}, ValueError, r"points of \(7,\); give a tensor of shape"),
        (len, POINTS[:0], {}, ValueError, "with at least one sample"),
        (len, [1.0], {}, ValueError, "points of <class 'list'>"),
        (len, (POINTS, POINTS[1:]), {}, ValueError, "7 and 6 points; give equal numbers"),
        (len, POINTS, {"weight": -1.0}, ValueError, "weight -1.0; it must be finite"),
        (len, POINTS, {"attention": torch.ones(6)}, ValueError, r"\(6,\) for 7 points"),
    ],
)
def test_wrong_terms_are_refused(residual, points, options, kind, words):
    with pytest.raises(kind, match=f"Term got .*{words}|{words}"):
        Term(residual, points, **options)


@pytest.mark.parametrize("made", [1.0, torch.tensor(1.0), torch.ones(6), torch.ones(7, 7)])
def test_residuals_of_a_wrong_shape_are_refused(made):
    with pytest.raises((TypeError, ValueError), match="the residual of a term gave"):
        Term(lambda u: made, POINTS).at(POINTS)
