"""Laws: cells tile the first grid whatever is asked for, and its points stay."""

import numpy as np
import pytest

from mgnet.depth.time_grids.dyadic_grid import MOST_HALVINGS, DyadicGrid


def tiles(grid):
    """Whether the cells follow one another without gap, overlap or rounding."""
    width = np.ldexp(1.0, -grid.halvings)
    assert (grid.starts + width == grid.positions[1:]).all()
    assert grid.positions[0] == 0.0
    assert np.isin(np.arange(len(grid.lengths) + 1.0), grid.positions).all()
    assert (np.ldexp(grid.starts, grid.halvings) % 1.0 == 0.0).all()
    return True


@pytest.mark.parametrize("seed", range(5))
def test_random_changes_tile(seed):
    rng = np.random.default_rng(seed)
    lengths = rng.random(6) + 0.1
    grid = DyadicGrid.first(lengths)
    for _ in range(8):
        before = grid
        more = rng.integers(-3, 3, len(grid))
        grid = grid.changed(more)
        assert tiles(grid)
        assert grid.steps.sum() == pytest.approx(lengths.sum(), rel=1e-14)
        for start, halvings, extra in zip(before.starts, before.halvings, more, strict=True):
            # No point of a cell that wanted to stay or be halved is lost.
            inside = (grid.starts >= start) & (grid.starts < start + 0.5**halvings)
            if extra >= 0:
                assert (grid.halvings[inside] == halvings + extra).all()
                assert inside.any()


def test_joining_undoes_halving():
    grid = DyadicGrid.first(np.array([1.0, 2.0]))
    fine = grid.halved().halved().halved()
    assert len(fine) == 16
    again = fine.changed(np.full(16, -3))
    assert (again.starts == grid.starts).all() and (again.halvings == 0).all()
    assert len(fine.changed(np.full(16, -9))) == 2  # never past the first grid


def test_halves_of_two_cells_are_not_joined():
    grid = DyadicGrid.first(np.array([1.0])).halved().halved()  # quarters
    joined = grid.changed(np.array([0, -1, -1, 0]))
    assert len(joined) == 4


def test_too_many_halvings_are_refused():
    grid = DyadicGrid.first(np.ones(1))
    with pytest.raises(ValueError, match="halvings; at most 40"):
        grid.changed(np.array([MOST_HALVINGS + 1]))
