"""Rows count once, by their weight; columns that do not vary are found whatever their unit."""

import numpy as np
import pytest
import torch

from mgnet.estimators.rows import (
    checked_weights,
    constant_inputs,
    distinct_rows,
    finite_targets,
    single_precision,
    validation_rows,
)


@pytest.mark.parametrize("seed", range(6))
def test_a_row_that_is_repeated_is_a_row_of_that_weight(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 3, (40, 2)) / 7.0, rng.integers(0, 2, 40)
    times = rng.integers(0, 4, 40)
    weighted = distinct_rows(x, y, times.astype(float))
    shuffled = rng.permutation(np.repeat(np.arange(40), times))
    repeated = distinct_rows(x[shuffled], y[shuffled])
    for one, other in zip(weighted, repeated, strict=True):
        assert np.array_equal(one, other)
    counted = {}
    for row, label, count in zip(x.tolist(), y.tolist(), times.tolist(), strict=True):
        counted[(*row, label)] = counted.get((*row, label), 0) + count
    rows = ((*row, label) for row, label in zip(weighted[0].tolist(), weighted[1], strict=True))
    assert dict(zip(rows, weighted[2], strict=True)) == {k: n for k, n in counted.items() if n}


def test_rows_of_one_weight_stay_as_they_are():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 2)), rng.normal(size=(30, 1))
    for weights in (None, np.ones(30), np.full(30, 0.3)):
        again = distinct_rows(x, y, weights)
        assert np.array_equal(again[0], x) and np.array_equal(again[1], y) and again[2] is None
    twice = distinct_rows(np.r_[x, x], np.r_[y, y])
    assert np.array_equal(twice[0], x) and np.array_equal(twice[1], y) and twice[2] is None


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ([1.0, -1.0, 1.0], "Negative values in data passed to `sample_weight`"),
        ([1.0, np.nan, 1.0], "NaN"),
        ([1.0, np.inf, 1.0], "infinity"),
        ([1.0, 1.0], r"sample_weight.shape == \(2,\), expected \(3,\)"),
        (np.ones((3, 2)), "must be 1D"),
        ([0.0, 0.0, 0.0], "KANClassifier got a sample_weight of zeros alone; at least one row"),
    ],
)
def test_weights_that_are_none(weights, words):
    with pytest.raises(ValueError, match=words):
        checked_weights("KANClassifier", weights, np.zeros((3, 1)))


@pytest.mark.parametrize("power", [-1040, -300, 0, 300, 1020])
def test_weights_are_ratios(power):
    weights = checked_weights("KANRegressor", np.ldexp([1.0, 3.0, 0.0], power), np.zeros((3, 1)))
    assert (weights / weights.max()).tolist() == [1.0 / 3.0, 1.0, 0.0]


CONSTANT = [0.0, 0.1, -0.1, 7.0, 1e308, -1.7e308, 1e-308, 5e-324]


@pytest.mark.parametrize("value", CONSTANT)
def test_a_column_that_does_not_vary(value):
    rng = np.random.default_rng(0)
    varied = rng.uniform(-1.0, 1.0, 50)
    assert constant_inputs(np.column_stack([np.full(50, value), varied])) == [0]


@pytest.mark.parametrize("seed", range(5))
def test_conversions_of_one_value_are_no_variation(seed):
    """A value read, computed and converted by several ways differs in its last digits."""
    rng = np.random.default_rng(seed)
    value = rng.uniform(0.1, 10.0) * 10.0 ** rng.integers(-300, 300)
    ways = np.array([value, value / 3.0 * 3.0, value * 1.1 / 1.1, value / 7.0 * 7.0, value + 0.0])
    single = (value_of_unit := rng.uniform(0.1, 10.0)) * np.ones(5, np.float32)
    single[1::2] = np.nextafter(single[1::2], np.float32(np.inf))
    assert constant_inputs(ways[:, None]) == [0]
    assert constant_inputs(single[:, None].astype(float), single=True) == [0]
    assert constant_inputs(single[:, None].astype(float)) == [], value_of_unit


@pytest.mark.parametrize("power", [-1060, -1000, 0, 1000, 1023])
def test_a_column_that_varies_does_so_in_every_unit(power):
    times = np.ldexp([1.0, 1.0 + 1e-9, 1.0 + 2e-9][:: 1 if power > -1000 else 2], power)
    signs = np.ldexp([-1.0, 0.0, 1.0], power)
    categories = np.ldexp([0.0, 0.0, 1.0], power)
    assert constant_inputs(np.column_stack([signs, categories])) == []
    if power > -1000:  # a subnormal number has few digits
        assert constant_inputs(times[:, None]) == []


def test_single_precision_of_arrays_tensors_and_frames():
    class Frame:
        dtypes = (np.dtype(np.float32), np.dtype(np.float64))

    assert single_precision(np.zeros((2, 2), np.float32))
    assert single_precision(torch.zeros(2, 2))
    assert not single_precision(np.zeros((2, 2)))
    assert not single_precision([[1.0]])
    assert not single_precision(Frame())
    Frame.dtypes = (np.dtype(np.float32),) * 2
    assert single_precision(Frame())
    Frame.dtypes = np.dtype(np.float64)  # as one column of a frame has
    assert not single_precision(Frame())


def test_every_class_is_kept_for_validation_in_proportion():
    labels = np.repeat([0, 1, 2], [50, 20, 4])
    kept = validation_rows(labels, 0.2, seed=3)
    assert np.bincount(labels[kept], minlength=3).tolist() == [10, 4, 0]
    assert np.array_equal(kept, validation_rows(labels, 0.2, seed=3))


@pytest.mark.parametrize("seed", range(8))
def test_no_more_weight_than_rows_is_kept_for_validation(seed):
    """A row that is most of the table is trained on, whatever is drawn."""
    rng = np.random.default_rng(seed)
    labels, weights = rng.integers(0, 3, 90), np.exp(rng.normal(0.0, 3.0, 90))
    kept = validation_rows(labels, 0.2, seed, weights)
    for label in range(3):
        own = labels == label
        assert 0 < (own & kept).sum() <= int(0.2 * own.sum())
        assert weights[own & kept].sum() <= 0.2 * weights[own].sum() * (1.0 + 1e-12)
    assert np.array_equal(kept, validation_rows(labels, 0.2, seed, 4.0 * weights))
    even = validation_rows(labels, 0.2, seed, np.ones(90))
    assert np.array_equal(even, validation_rows(labels, 0.2, seed))


def test_validation_rows_are_drawn_not_taken_from_the_top():
    labels = np.repeat([0, 1], 100)
    masks = [validation_rows(labels, 0.2, seed) for seed in range(4)]
    for mask in masks:
        places = np.flatnonzero(mask) % 100
        assert places.max() > 50 and 30 < places.mean() < 70  # not the first ones
    assert len({mask.tobytes() for mask in masks}) == 4


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_targets_among_objects_are_looked_at(wrong):
    y = np.array([1, 2.5, wrong, 3, wrong], dtype=object)
    with pytest.raises(ValueError, match="in 2 of 5 rows, first in row 2; leave these rows out"):
        finite_targets(y)
    assert finite_targets(y[:2]).tolist() == [[1.0], [2.5]]
    with pytest.raises(ValueError, match="beyond the largest double"):
        finite_targets(np.array([10**400, 1], dtype=object))
