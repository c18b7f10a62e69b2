"""Law: packed levels restrict by the transposes of all prolongations, and sum what these make."""

import pickle

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from mgnet.knots.refinement import refinement_matrix
from mgnet.knots.spline_operator import SplineOperator
from mgnet.training.optimizers import generating_system
from mgnet.training.optimizers.generating_system import (
    GeneratingSystem,
    PackedLevels,
    coarser_sizes,
)
from mgnet.transfer import AxisTransfer


def chain(n, degree, levels, kind="csr"):
    found = []
    for _ in range(levels - 1):
        n //= 2
        P = refinement_matrix(n, degree)
        made = {
            "csr": lambda P=P: P,
            "dense": lambda P=P: P.toarray(),
            "torch": lambda P=P: torch.from_numpy(P.toarray()).float(),
            "operator": lambda P=P: SplineOperator((P,)),
        }
        found.append(made[kind]())
    return found


@pytest.mark.parametrize("seed", range(6))
def test_dense_matrices_give_the_same(seed):
    rng = np.random.default_rng(seed)
    degree, levels = int(rng.integers(1, 6)), int(rng.integers(2, 5))
    n, axis = 8 * int(rng.integers(1, 9)), int(rng.integers(3))
    shape = [int(k) for k in rng.integers(1, 6, 3)]
    shape[axis] = n + degree
    kind = ("csr", "dense", "torch", "operator")[seed % 4]
    transfers = [AxisTransfer(P, axis=axis) for P in chain(n, degree, levels, kind)]
    system = GeneratingSystem(shape, transfers)
    dtype = (torch.float64, torch.float32)[seed % 2]
    u = torch.from_numpy(rng.normal(size=shape)).to(dtype)
    packed = PackedLevels(system, u)
    g = torch.from_numpy(rng.normal(size=shape)).to(dtype)
    found, steps = packed.restrict(g).clone(), torch.randn(system.packed_shape, dtype=dtype)
    expected, product, start, total = [], np.eye(n + degree), 0, 0.0
    for P in [np.eye(n + degree), *(P.toarray() for P in chain(n, degree, levels))]:
        product = product @ P
        expected.append(np.tensordot(product.T, g.numpy(), (1, axis)))
        part = steps[start : start + P.shape[1]].numpy()
        total = total + np.moveaxis(np.tensordot(product, part, (1, 0)), 0, axis)
        start += P.shape[1]
    close = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {}
    np.testing.assert_allclose(found.numpy(), np.concatenate(expected), **close)
    with torch.no_grad():
        packed.steps.copy_(steps)
        moved = u.clone()
        packed.move(moved)
    np.testing.assert_allclose(moved.numpy(), u.numpy() + total, **close)
    assert not packed.steps.any()


def test_dense_matrices_of_accelerators_give_the_same(monkeypatch):
    shape = 2, 67, 3
    system = GeneratingSystem(shape, [AxisTransfer(P, axis=1) for P in chain(64, 3, 5)])
    g = torch.randn(shape, dtype=torch.float64)
    few = PackedLevels(system, g)
    made = generating_system._as_torch
    monkeypatch.setattr(generating_system, "_as_torch", lambda matrix, _: made(matrix, True))
    dense = PackedLevels(system, g)
    assert (few._W.layout, dense._W.layout) == (torch.sparse_csr, torch.strided)
    torch.testing.assert_close(few.restrict(g), dense.restrict(g))
    ends = [g.clone(), g.clone()]
    for packed, u in zip((few, dense), ends, strict=True):
        with torch.no_grad():
            packed.steps.copy_(few.gradient)
            packed.move(u)
    torch.testing.assert_close(*ends)


def test_half_precision_is_rounded_once():
    shape = (2, 67, 3)
    system = GeneratingSystem(shape, [AxisTransfer(P, axis=1) for P in chain(64, 3, 5)])
    g = torch.randn(shape).bfloat16()
    exact, half = PackedLevels(system, g.float()), PackedLevels(system, g)
    assert torch.equal(half.restrict(g), exact.restrict(g.float()).bfloat16())
    steps = torch.randn(system.packed_shape).bfloat16()
    u = torch.randn(shape).bfloat16()
    moved, expected = u.clone(), u.float()
    with torch.no_grad():
        half.steps.copy_(steps)
        exact.steps.copy_(steps)
        half.move(moved)
        exact.move(expected)
    torch.testing.assert_close(moved, expected.bfloat16(), rtol=1e-2, atol=0.0)


def test_a_pickle_has_no_arrays_but_the_matrix():
    system = GeneratingSystem((19,), [AxisTransfer(P, axis=0) for P in chain(16, 3, 3)])
    again = pickle.loads(pickle.dumps(system))
    g = torch.randn(19)
    first, second = PackedLevels(system, g), PackedLevels(again, g)
    assert torch.equal(first.restrict(g), second.restrict(g))


@pytest.mark.parametrize(
    ("size", "levels", "expected"),
    [
        (256, None, [256, 128, 64, 32, 16, 8, 4]),
        (5, None, [5]),
        (25, 4, [25]),
        (27, None, [27, 9, 3]),
        (4, None, [4]),
        (4, 9, [4, 2, 1]),
        (64, 1, [64]),
    ],
)
def test_sizes(size, levels, expected):
    assert coarser_sizes(size, levels) == expected


def test_refusals():
    P = sp.csr_matrix(np.ones((4, 2)))
    with pytest.raises(TypeError, match="give AxisTransfers on one axis"):
        GeneratingSystem((4,), [AxisTransfer(P, R=P.T)])
    with pytest.raises(TypeError, match="give AxisTransfers on one axis"):
        GeneratingSystem((4, 4), [AxisTransfer((P, P), axis=(0, 1))])
    with pytest.raises(ValueError, match="give at least one, and all on the same axis"):
        GeneratingSystem((4, 4), [AxisTransfer(P, axis=0), AxisTransfer(P, axis=1)])
    with pytest.raises(ValueError, match="from the finest to the coarsest"):
        GeneratingSystem((5,), [AxisTransfer(P)])
    with pytest.raises(ValueError, match="from the finest to the coarsest"):
        GeneratingSystem((4,), [AxisTransfer(P, axis=2)])
