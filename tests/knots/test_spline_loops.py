"""The order of samples that the loops work in: all of them, an interval after the other."""

import numpy as np
import pytest

pytest.importorskip("numba")

from mgnet.knots import spline_loops as loops  # noqa: E402


@pytest.mark.parametrize("count", [1, 3, 4, 37, 1024])
@pytest.mark.parametrize("intervals", [1, 2, 7])
def test_samples_by_interval(count, intervals):
    first = np.random.default_rng(count).integers(0, intervals, count).astype(np.int32)
    ranks, ends = np.empty(count, np.uint16), np.empty(intervals, np.int32)
    loops._sort(first, count, ends, ranks)
    np.testing.assert_array_equal(ranks, np.argsort(first, kind="stable"))
    np.testing.assert_array_equal(ends, np.cumsum(np.bincount(first, minlength=intervals)))
    for ways in (1, loops.WAYS):
        room = -(-count // ways)
        ends = np.empty(intervals * ways, np.int32)
        ranks = np.empty(len(ends) * room, np.uint16)
        loops._deal(first, count, ways, room, ends, ranks)
        found = []
        for i, end in enumerate(ends):
            bucket = ranks[i * room : end].tolist()
            assert bucket == sorted(bucket) and set(first[bucket]) <= {i // ways}
            found += bucket
        assert sorted(found) == list(range(count))


def test_all_samples_in_one_interval_fit_their_buckets():
    """As inputs beyond an end of the domain are: none is written behind the last bucket."""
    first = np.full(1023, 2, np.int32)
    ends, ranks = np.empty(3 * loops.WAYS, np.int32), np.full(3 * loops.WAYS * 256 + 1, 9999)
    ranks = ranks.astype(np.uint16)
    loops._deal(first, 1023, loops.WAYS, 256, ends, ranks)
    assert ranks[-1] == 9999 and sorted(ends - 256 * np.arange(12)) == 8 * [0] + [
        255,
        256,
        256,
        256,
    ]


@pytest.mark.parametrize("many", [1, 5, 16])
def test_columns_become_rows_and_columns_again(many):
    table = np.random.default_rng(many).standard_normal((9, 20))
    rows, apart, back = np.full(many * 11, np.nan), 11, np.full_like(table, np.nan)
    loops._turn(table.reshape(-1), 3, 20, 9, many, apart, rows)
    width = min(many, 17)
    np.testing.assert_array_equal(rows.reshape(many, 11)[:width, :9], table.T[3 : 3 + width])
    loops._turn_back(rows, 9, many, apart, back.reshape(-1), 3, 20)
    np.testing.assert_array_equal(back[:, 3 : 3 + width], table[:, 3 : 3 + width])
    assert np.isnan(back).sum() == back.size - 9 * width
