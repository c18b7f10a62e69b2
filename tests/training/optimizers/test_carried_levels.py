"""Law: below a new finest level, the levels of a refined parameter remember what they did."""

import numpy as np
import pytest
import torch

from mgnet.knots.refinement import refinement_matrix
from mgnet.training.optimizers.carried_levels import carried_levels, refined_transfers
from mgnet.training.optimizers.generating_system import GeneratingSystem
from mgnet.transfer import AxisTransfer


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("levels", [None, 2, 3])
@pytest.mark.parametrize("deep", [False, True])
def test_dense_matrices_give_the_same(axis, levels, deep):
    chain = [AxisTransfer(refinement_matrix(n, 2), axis=axis) for n in (16, 8, 4)]
    shape = [3, 3]
    shape[axis] = 18
    system = GeneratingSystem(shape, chain[1:]) if deep else None
    refined = refined_transfers(system, chain[0], levels)
    assert len(refined) == min(3 if deep else 1, (levels or 9) - 1)
    shape[axis] = 34
    new = GeneratingSystem(shape, refined)
    size = system.packed_shape if deep else ((18, 3) if axis == 0 else (3, 18))
    state = {"step": torch.tensor(3.0)}
    state |= {name: torch.rand(size).double() for name in ("exp_avg", "exp_avg_sq", "prev")}
    carried = carried_levels(state, system, new)
    assert carried["step"] == 3.0 and carried["step"] is not state["step"]
    P = chain[0].P.toarray()
    for name, power in (("exp_avg", 1), ("exp_avg_sq", 2), ("prev", 0)):
        old = state[name].numpy() if deep else np.moveaxis(state[name].numpy(), axis, 0)
        finest = P @ (old[:18] / P.sum(0)[:, None] ** power)
        np.testing.assert_allclose(carried[name][:34].numpy(), finest)
        kept = sum(new.sizes[1:])
        assert np.array_equal(carried[name][34:].numpy(), old[:kept])
        assert carried[name].shape == new.packed_shape


def test_momentum_alone_is_an_average_of_gradients():
    P = AxisTransfer(refinement_matrix(4, 1))
    new = GeneratingSystem((9,), [P])
    buffer = torch.rand(5).double()
    sums = P.P.toarray().sum(0)
    averages = carried_levels({"momentum_buffer": buffer}, None, new)
    np.testing.assert_allclose(averages["momentum_buffer"][:9], P.P @ (buffer.numpy() / sums))
    steps = {"momentum_buffer": buffer, "square_avg": buffer}  # of RMSprop
    found = carried_levels(steps, None, new)["momentum_buffer"]
    np.testing.assert_allclose(found[:9], P.P @ buffer.numpy())
