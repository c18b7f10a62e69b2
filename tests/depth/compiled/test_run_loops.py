"""Tasks of the run loops are NumPy's products; tasks that are not asked for stay out."""

import numpy as np
import pytest

pytest.importorskip("numba")

from mgnet.depth.compiled import operations as ops  # noqa: E402
from mgnet.depth.compiled.run_loops import backward_runs, forward_runs  # noqa: E402

WIDTH, LAYERS, S, LANES = 3, 5, 8, 8
SIZE = 2 * WIDTH * S  # a state and a slope, which the next layer takes over


def made(seed):
    """Matrices and steps, and where the loops find them: u += step W u."""
    rng = np.random.default_rng(seed)
    W, steps = rng.normal(size=(LAYERS, WIDTH, WIDTH)), rng.uniform(0.1, 1.0, LAYERS)
    par = np.concatenate([steps, W.transpose(0, 2, 1).reshape(-1), W.reshape(-1)])
    each = WIDTH * WIDTH
    par_at = np.array([(0, 1), (LAYERS, each), (LAYERS * (1 + each), each)])
    code = np.array([(ops.LINEAR, 1, 0, 0, WIDTH, WIDTH, 1, 0, 0, 0)])
    return rng, W, steps, (code, np.array([(1.0, 0.0)])), (par, par_at)


@pytest.mark.parametrize("seed", range(3))
def test_some_tasks_of_runs_of_two_parts(seed):
    rng, W, steps, code, par = made(seed)
    batch, runs = 11, (0, 2, 3, 2, 1)  # two parts; layers 0 and 1, 2 and 3, 4
    u = rng.normal(size=(3, batch, WIDTH))
    at = np.array([(0, 0), (WIDTH * S, 0)])
    mem, out = np.zeros(6 * SIZE), np.full(u.size, 7.0)
    block, nothing = (0, batch, 2, S, batch), np.zeros(0)
    forward_runs(
        (1, 6), block, SIZE, runs, *code, at, *par, mem, u.reshape(-1), nothing, out, 1, True,
        WIDTH, LANES,
    )  # fmt: skip
    found, expected = out.reshape(u.shape), u.copy()
    for run, layers in enumerate([(0, 1), (2, 3), (4,)]):
        for n in layers:
            expected[run] += steps[n] * expected[run] @ W[n].T
    expected[0, :S] = 7.0  # task 0 was not asked for
    np.testing.assert_allclose(found, expected, rtol=1e-13)


def test_the_adjoint_goes_through_single_layers_with_what_is_added():
    rng, W, steps, code, par = made(0)
    size = SIZE + 2 * WIDTH * S + WIDTH * S + S * LANES  # adjoints, what is added, turned rows
    at, of = np.array([(0, size), (WIDTH * S, size)]), np.array([(SIZE, 0), (SIZE + WIDTH * S, 0)])
    after = SIZE + 2 * WIDTH * S
    lam, added = rng.normal(size=(1, S, WIDTH)), rng.normal(size=(LAYERS, S, WIDTH))
    out, mem = np.zeros(LAYERS * S * WIDTH), np.zeros(LAYERS * size)
    empty, nowhere = np.zeros((0, 3), np.int64), np.array([(-1, 0)] * 3)
    backward_runs(
        (0, 1), (0, S, 1, S, S), size, 1, (1, 4, 1, 4, 4), *code, at, of, empty, after, size,
        after + WIDTH * S, *par, mem, lam.reshape(-1), added.reshape(-1), out, np.zeros(1),
        nowhere, 1, True, WIDTH, LANES,
    )  # fmt: skip
    now = lam[0]
    for n in (4, 3, 2, 1):
        now = now + steps[n] * now @ W[n] + added[n]
        np.testing.assert_allclose(out.reshape(LAYERS, S, WIDTH)[n], now, rtol=1e-12)
