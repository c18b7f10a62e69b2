"""Products with rows of runs are those of the dense matrix, compiled or not, in both precisions."""

import numpy as np
import pytest
import torch

from mgnet.knots import local_rows
from mgnet.knots.local_rows import InputColumns, LocalJacobian


def drawn(rows, dtype=np.float64, seed=0):
    """Two layers: two inputs with five outputs on 6 intervals, three with one on 4."""
    rng = np.random.default_rng(seed)
    parts, place, offset = [], 0, 0
    for intervals, outputs in [(6, 5)] * 2 + [(4, 1)] * 3:
        parts.append(InputColumns(place, offset, intervals, outputs, 2))
        place, offset = place + parts[-1].count, offset + parts[-1].width
    first = np.stack([rng.integers(0, part.intervals, rows) for part in parts], 1)
    values = rng.standard_normal((rows, offset)).astype(dtype)
    return LocalJacobian(values, first.astype(np.int32), tuple(parts))


def expected(J):
    """Entry by entry."""
    matrix = np.zeros(J.shape)
    for n, p in np.ndindex(J.first.shape):
        part = J.inputs[p]
        for spline, output in np.ndindex(part.degree + 1, part.outputs):
            column = part.place + (int(J.first[n, p]) + spline) * part.outputs + output
            matrix[n, column] = J.values[n, part.offset + spline * part.outputs + output]
    return torch.from_numpy(matrix)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("rows", [1, 700])  # none in most intervals; several in each
def test_every_product(compiled, dtype, rows, monkeypatch):
    if compiled:
        pytest.importorskip("numba")
    monkeypatch.setattr(local_rows, "compiled", compiled)
    monkeypatch.setattr(local_rows, "LOCAL", 1000)
    J = drawn(rows, dtype)
    matrix = expected(J)
    d, y = torch.randn(J.shape[1]).double(), torch.randn(J.rows).double()
    wide = torch.stack([d, d], 1)[:, 0]  # not contiguous
    pairs = [
        (J.dense(), matrix),
        (J.gram(), matrix.T @ matrix),
        (J.matvec(wide), matrix @ d),
        (J.rmatvec(y), matrix.T @ y),
        (J.normal(wide), matrix.T @ (matrix @ d)),
        (J.squares(), matrix.square().sum(0)),
    ]
    assert J.mean_diagonal == pytest.approx(float(matrix.square().sum()) / J.shape[1])
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs.to(ours), rtol=1e-12, atol=1e-11)
    for p, part in enumerate(J.inputs):
        total = torch.zeros(part.count, part.count, dtype=torch.float64)
        for interval, element in enumerate(J.element_matrices(p)):
            begin = interval * part.outputs
            total[begin : begin + part.width, begin : begin + part.width] += torch.as_tensor(
                element
            )
        own = matrix[:, part.place : part.place + part.count]
        torch.testing.assert_close(total, own.T @ own, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("chosen", [None, [True, True, False, False, False], [False] * 4 + [True]])
@pytest.mark.parametrize("rows", [None, 50])
def test_coarsening_is_the_same_without_the_compiler(rows, chosen, monkeypatch):
    pytest.importorskip("numba")
    J = drawn(130)
    compiled = J.coarsened(rows=rows, chosen=chosen)
    single = J.coarsened(rows=rows, dtype=np.float32, chosen=chosen)
    monkeypatch.setattr(local_rows, "compiled", False)
    monkeypatch.setattr(local_rows, "LOCAL", 1000)
    plain = J.coarsened(rows=rows, chosen=chosen)
    np.testing.assert_allclose(compiled.values, plain.values, rtol=1e-13, atol=1e-14)
    np.testing.assert_array_equal(compiled.first, plain.first)
    assert single.values.dtype == np.float32 and compiled.inputs == plain.inputs
    np.testing.assert_allclose(single.values, plain.values, rtol=1e-6, atol=1e-6)
