"""Law: extrapolated steps are exact where changes shrink evenly, and bounded elsewhere."""

import pytest
import torch

from mgnet.depth.recurrent.extrapolation import extrapolated


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("k", [1, 4, 50])
def test_exact_for_one_rate(rate, k):
    limit = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)

    def cell(x, h):
        return limit + rate * (h - limit)

    h = torch.randn(4, 3, dtype=torch.float64)
    wanted = limit + rate**k * (h - limit)
    lengths = torch.full((4, 1), float(k), dtype=torch.float64)
    torch.testing.assert_close(extrapolated(cell)(h, h, lengths), wanted)


def test_growth_is_euler_and_oscillation_the_cell():
    h, k = torch.ones(1, 2, dtype=torch.float64), torch.full((1, 1), 5.0, dtype=torch.float64)
    growing = extrapolated(lambda x, h: 1.5 * h)(h, h, k)
    torch.testing.assert_close(growing, h + 5.0 * 0.5 * h, rtol=1e-4, atol=0.0)
    torch.testing.assert_close(extrapolated(lambda x, h: -0.5 * h)(h, h, k), -0.5 * h)
    torch.testing.assert_close(extrapolated(lambda x, h: h)(h, h, k), h)


def test_states_of_several_parts():
    parts = torch.ones(1, 2), torch.zeros(1, 1)
    new = extrapolated(lambda x, state: (0.5 * state[0], state[1]))(
        parts[0], parts, torch.full((1, 1), 3.0)
    )
    torch.testing.assert_close(new, (0.125 * parts[0], parts[1]))
