"""Quasi-random points: in their box, even, by SciPy's sequences, without its warnings."""

import warnings

import pytest
import torch
from scipy.stats import qmc

from mgnet.training import Term, quasi_random, resampled

BOX = [(-1.0, 3.0), (10.0, 10.5)]


@pytest.mark.parametrize("kind", ["sobol", "halton", "latin"])
@pytest.mark.parametrize("count", [1, 2, 100, 128])
def test_points_fill_their_box(kind, count):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x = quasi_random(count, BOX, kind)
    low, high = torch.tensor(BOX, dtype=torch.float64).T
    assert x.shape == (count, 2) and x.dtype is torch.float64
    assert bool((x >= low).all() and (x <= high).all())
    assert torch.equal(x, quasi_random(count, BOX, kind))
    assert not torch.equal(x, quasi_random(count, BOX, kind, seed=1))


@pytest.mark.parametrize("kind", ["sobol", "halton", "latin"])
@pytest.mark.parametrize("count", [100, 128])
def test_they_are_more_even_than_random_points(kind, count):
    unit = [(0.0, 1.0), (0.0, 1.0)]
    even = qmc.discrepancy(quasi_random(count, unit, kind).numpy())
    generator = torch.Generator().manual_seed(0)
    drawn = (torch.rand(count, 2, generator=generator).numpy() for _ in range(20))
    assert even < 0.6 * sorted(map(qmc.discrepancy, drawn))[10]


def test_a_power_of_two_of_sobol_points_is_balanced():
    x = quasi_random(64, [(0.0, 8.0), (0.0, 8.0)])
    cells = (x[:, 0].floor() * 8 + x[:, 1].floor()).long()
    assert torch.equal(torch.bincount(cells, minlength=64), torch.ones(64, dtype=torch.long))


def test_other_counts_are_the_first_of_the_next_power():
    assert torch.equal(quasi_random(100, BOX), quasi_random(128, BOX)[:100])


def test_a_latin_hypercube_is_even_in_every_input():
    x = quasi_random(50, [(0.0, 50.0)] * 3, "latin")
    assert all(sorted(x[:, d].floor().tolist()) == list(range(50)) for d in range(3))


def test_a_side_of_a_box():
    x = quasi_random(33, [(-1.0, -1.0), (0.0, 2.0)])
    assert bool((x[:, 0] == -1.0).all()) and len(x[:, 1].unique()) == 33
    assert torch.equal(quasi_random(2, [(1.0, 1.0)]), torch.ones(2, 1, dtype=torch.float64))


def test_single_precision_stays_in_the_box():
    x = quasi_random(1000, [(0.0, 0.1)], dtype=torch.float32)
    assert x.dtype is torch.float32 and bool((x.double() <= torch.tensor(0.1).double()).all())


def test_new_points_for_every_batch():
    terms = [Term(lambda u: u.value, torch.zeros(4, 2)), Term(lambda u: u.value, torch.ones(3, 2))]
    draws = [lambda generator: quasi_random(8, BOX, seed=generator), None]
    batches = resampled(terms, draws, seed=5)
    (first, kept), (second, _) = next(batches), next(batches)
    assert not torch.equal(first.points, second.points) and kept is terms[1]
    assert torch.equal(first.points, next(resampled(terms, draws, seed=5))[0].points)


@pytest.mark.parametrize(
    ("arguments", "kind", "match"),
    [
        ((0, BOX), ValueError, "got count 0; it must be at least 1"),
        ((2.0, BOX), ValueError, "got count 2.0"),
        ((2**30 + 1, BOX), ValueError, "'sobol' has at most 1073741824: use 'halton'"),
        ((10**15, BOX, "halton"), ValueError, "needs .* GiB of memory"),
        ((4, [(1.0, 0.0)]), ValueError, "got domain"),
        ((4, BOX, "random"), ValueError, "it must be 'sobol', 'halton' or 'latin'"),
        ((4, BOX, None), ValueError, "got kind None"),
        ((4, BOX, "sobol", -1), TypeError, "got seed -1; give an integer"),
        ((4, BOX, "sobol", None), TypeError, "got seed None"),
    ],
)
def test_refusals(arguments, kind, match):
    with pytest.raises(kind, match=match):
        quasi_random(*arguments)


def test_a_dtype_that_is_none():
    with pytest.raises(TypeError, match="got dtype torch.int64; give torch.float64"):
        quasi_random(4, BOX, dtype=torch.int64)
