"""Laws: a scan is the recurrence, for all lengths, shapes, precisions, kinds and directions."""

import numpy as np
import pytest
import torch

from mgnet.depth.mgrit.scan import DENSE_NUMBERS, affine_scan, composed, pushed

LENGTHS = [0, 1, 2, 15, 16, 17, 100, 257]


def drawn(generator, length, shape, structure, dtype):
    rows = generator.standard_normal((length, *shape)).astype(dtype)
    start = generator.standard_normal(shape).astype(dtype)
    if structure == "identity":
        return None, rows, start
    more = shape[-1:] if structure == "dense" else ()
    jacobian = generator.standard_normal((length, *shape, *more)) / np.sqrt(shape[-1])
    return jacobian.astype(dtype), rows, start


def by_a_loop(jacobian, rows, start, reverse):
    """In float64 and one step after another."""
    jacobian = None if jacobian is None else jacobian.astype(float)
    values, count = [start.astype(float)], len(rows)
    for i in reversed(range(count)) if reverse else range(count):
        now = values[-1]
        if jacobian is not None and jacobian.ndim > rows.ndim:
            now = np.einsum("...ij,...j->...i", jacobian[i], now)
        elif jacobian is not None:
            now = jacobian[i] * now
        values.append(now + rows[i])
    return np.array(values[::-1] if reverse else values)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("structure", ["dense", "diagonal", "identity"])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_scan_is_the_recurrence(seed, structure, reverse, kind, dtype):
    generator = np.random.default_rng(seed)
    shape = [(1,), (3,), (2, 3), (30,), (2, 2, 3), (4, 12)][seed]
    assert (12 * 12 * 4 > DENSE_NUMBERS) and 2 * 9 < DENSE_NUMBERS  # both ways are here
    for length in LENGTHS:
        jacobian, rows, start = drawn(generator, length, shape, structure, dtype)
        given = [None if x is None else kind(x) for x in (jacobian, rows, start)]
        found = affine_scan(*given, reverse)
        expected = by_a_loop(jacobian, rows, start, reverse)
        assert found.shape == expected.shape
        assert type(found) is type(given[1]) and found.dtype == given[1].dtype
        size = abs(expected).max()
        assert abs(np.asarray(found) - expected).max() <= 60 * np.finfo(dtype).eps * size


def test_products_that_overflow_do_not_spoil_a_recurrence_that_does_not():
    """Corrections begin as zero: infinity times zero would be NaN."""
    jacobian, rows = np.full((100, 2, 2), 1e150), np.zeros((100, 2))
    rows[-1] = 1.0
    found = affine_scan(jacobian, rows, np.zeros(2))
    assert (found[:-1] == 0.0).all() and (found[-1] == 1.0).all()
    diagonal = affine_scan(jacobian[..., 0], rows, np.zeros(2))
    assert (diagonal[-1] == 1.0).all()


def test_what_is_not_finite_stays_so():
    rows = np.zeros((40, 1))
    rows[20] = np.nan
    found = affine_scan(np.ones((40, 1, 1)), rows, np.zeros(1))
    assert np.isfinite(found[:21]).all() and np.isnan(found[21:]).all()


def test_maps_are_composed_and_applied():
    generator = np.random.default_rng(0)
    one, two = generator.standard_normal((2, 5, 3, 3))
    u = generator.standard_normal((5, 3))
    np.testing.assert_allclose(pushed(composed(two, one, True), u), pushed(two, pushed(one, u)))
    assert composed(None, one, True) is one and composed(one, None, True) is one
    assert pushed(None, u) is u


@pytest.mark.parametrize(
    ("jacobian", "rows", "start"),
    [((4, 3, 2), (4, 3), (3,)), (None, (4, 3), (2,)), ((3,), (4,), ())],
)
def test_refusals(jacobian, rows, start):
    given = None if jacobian is None else np.ones(jacobian)
    with pytest.raises(ValueError, match=r"affine_scan got .* rows have shape"):
        affine_scan(given, np.ones(rows), np.ones(start))
