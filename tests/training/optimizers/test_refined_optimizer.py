"""State that has the refined axis goes up with it, whatever its other axes are."""

import pytest
import torch

from mgnet.training.optimizers.refined_optimizer import refined_optimizer
from mgnet.transfer import AxisTransfer


@pytest.mark.parametrize("axis", [0, 1])
def test_moments_go_up_by_their_powers_and_the_rest_stays(axis):
    shape = [3, 3, 2]
    P = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    coarse = torch.nn.Parameter(torch.zeros(shape))
    shape[axis] = 4
    fine, stays = torch.nn.Parameter(torch.zeros(shape)), torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.Adam([{"params": [coarse], "lr": 0.5}, {"params": [stays]}])
    coarse.grad, stays.grad = torch.randn(3, 3, 2), torch.randn(2)
    optimizer.step()
    transfer = AxisTransfer(P, axis=axis)
    carried = refined_optimizer(optimizer, {coarse: fine}, {coarse: transfer})
    assert carried.param_groups[0]["params"] == [fine] and carried.param_groups[0]["lr"] == 0.5
    old, new = optimizer.state[coarse], carried.state[fine]
    shares = P / P.sum(0)
    for name, power in (("exp_avg", 1), ("exp_avg_sq", 2)):
        wanted = torch.tensordot(shares / P.sum(0) ** (power - 1), old[name], ([1], [axis]))
        torch.testing.assert_close(new[name], wanted.movedim(0, axis))
    assert new["step"] == old["step"]
    assert torch.equal(carried.state[stays]["exp_avg"], optimizer.state[stays]["exp_avg"])


def test_an_optimizer_of_something_else_is_refused():
    p, q = (torch.nn.Parameter(torch.ones(1)) for _ in range(2))
    with pytest.raises(ValueError, match="holds no parameter of the coarse network"):
        refined_optimizer(torch.optim.SGD([p], lr=1.0), {q: p}, {})
