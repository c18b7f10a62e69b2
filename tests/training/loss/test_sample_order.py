"""The first m samples of the order are an even part of the table, for every m."""

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from mgnet.training.loss.sample_order import sample_order, shares


@pytest.mark.parametrize("samples", [1, 2, 7, 1000])
def test_it_is_one_permutation(samples):
    order = sample_order(samples, torch.rand(samples, 2))
    assert sorted(order.tolist()) == list(range(samples))
    assert torch.equal(order, sample_order(samples))


@pytest.mark.parametrize("count", [200, 900, 4000])
def test_a_sorted_table_is_thinned_evenly(count):
    values = np.linspace(0.0, 1.0, 20000)
    kept = values[sample_order(len(values))[:count].numpy()]
    assert kstest(kept, "uniform").pvalue > 1e-3
    grid = np.arange(20000) % 100  # the columns of a grid, written row by row
    counts = np.bincount(grid[sample_order(20000)[:4000].numpy()], minlength=100)
    assert counts.min() > 10 and counts.max() < 90


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", ["classes", "zeros and ones", "one hot"])
def test_labels_keep_their_proportions(seed, kind):
    draw = np.random.default_rng(seed)
    classes = 2 if kind == "zeros and ones" else int(draw.integers(2, 8))
    sizes = draw.integers(1, 900, classes)
    labels = torch.from_numpy(np.repeat(np.arange(classes), sizes))  # sorted
    targets = {
        "classes": labels,
        "zeros and ones": labels.double().unsqueeze(1),
        "one hot": torch.nn.functional.one_hot(labels),
    }[kind]
    order = sample_order(len(labels), targets)
    assert sorted(order.tolist()) == list(range(len(labels)))
    if classes**2 > len(labels):
        return
    for count in draw.integers(classes, len(labels) + 1, 5):
        found = np.bincount(labels[order[:count]].numpy(), minlength=classes)
        assert found.min() >= 1
        assert np.abs(found - count * sizes / len(labels)).max() <= classes


def test_many_values_are_no_labels():
    targets = torch.arange(100)  # 100 values
    assert torch.equal(sample_order(100, targets), sample_order(100))


@pytest.mark.parametrize("seed", range(5))
def test_shares_are_those_of_filling_from_below(seed):
    """The greatest level whose minima with the sizes add up to no more, up to rounding."""
    draw = np.random.default_rng(seed)
    sizes = draw.integers(1, 1000, draw.integers(1, 6))
    count = int(draw.integers(len(sizes), sizes.sum() + 1))
    found = np.array(shares(count, sizes.tolist()))
    level = max(q for q in range(1001) if np.minimum(sizes, q).sum() <= count)
    assert np.abs(found - np.minimum(sizes, level)).max() <= 1
    assert count - len(sizes) < found.sum() <= count
