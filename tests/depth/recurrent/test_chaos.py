"""Chaotic recurrences are refused before time is lost; stable ones never are."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from mgnet.depth import CyclesToTolerance, FixedCycles, TimeParallel, lyapunov
from mgnet.depth.recurrent import chaos, cycles

TIGHT = CyclesToTolerance(1e-6)


def scaled(kind, width, scale, memory=0.0, dtype=torch.float64):
    cell = kind(width, width).to(dtype)
    with torch.no_grad():
        cell.weight_hh *= scale
        if kind is not nn.RNNCell:
            cell.bias_hh[width : 2 * width] += memory
    return cell


class Lorenz(nn.Module):
    """Steps of length 0.05 of Runge and Kutta; chaotic for rho = 28, at rest for rho = 10."""

    hidden_size = 3

    def __init__(self, rho):
        super().__init__()
        self.rho = rho

    def slope(self, h):
        x, y, z = h.unbind(-1)
        return torch.stack([10.0 * (y - x), x * (self.rho - z) - y, x * y - 8.0 / 3.0 * z], -1)

    def forward(self, x, h):
        one = self.slope(h)
        two = self.slope(h + 0.025 * one)
        three = self.slope(h + 0.025 * two)
        four = self.slope(h + 0.05 * three)
        return h + 0.05 / 6.0 * (one + 2.0 * two + 2.0 * three + four)


def on_attractor():
    torch.manual_seed(3)
    return torch.randn(1, 2, 3).double() + torch.tensor([1.0, 1.0, 20.0]).double()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("kind", "scale", "memory"),
    [
        (nn.GRUCell, 1.0, 0.0),
        (nn.GRUCell, 1.0, 4.0),
        (nn.GRUCell, 5.0, 0.0),
        (nn.LSTMCell, 1.0, 4.0),
        (nn.LSTMCell, 8.0, 2.0),
        (nn.RNNCell, 3.0, 0.0),
        (nn.RNNCell, 9.0, 0.0),
    ],
)
def test_stable_cells_are_not_refused(kind, scale, memory, seed):
    """Also those that take many cycles; some of these draws are chaotic and prove nothing."""
    torch.manual_seed(seed)
    cell, x = scaled(kind, 8, scale, memory), 0.5 * torch.randn(400, 2, 8).double()
    if not lyapunov(cell, x, directions=1).converges:
        return
    with warnings.catch_warnings(), torch.no_grad():
        warnings.filterwarnings("ignore", "TimeParallel took")
        found = TimeParallel(cell, control=TIGHT)(x)[0]
        exact = TimeParallel(cell, mode="serial")(x)[0]
    assert (found - exact).norm() < 1e-4 * exact.norm()


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    ("kind", "scale", "cycle", "dtype"),
    [
        (nn.GRUCell, 20.0, "V", torch.float64),
        (nn.LSTMCell, 20.0, "V", torch.float32),
        (nn.RNNCell, 10.0, "V", torch.float32),
        (nn.RNNCell, 10.0, "newton", torch.float64),
    ],
)
def test_chaotic_cells_are_refused_with_their_exponent(kind, scale, cycle, dtype, seed):
    torch.manual_seed(seed)
    cell, x = scaled(kind, 48, scale, dtype=dtype), 0.5 * torch.randn(400, 2, 48, dtype=dtype)
    exponent = lyapunov(cell, x, directions=1).exponent
    assert exponent > 0.05
    told = "chaotic recurrence, exponent .* no parallel method .* mode='serial'"
    with pytest.raises(RuntimeError, match=told) as caught:
        TimeParallel(cell, control=TIGHT, cycle=cycle)(x)
    # That of the states after a cycle, which are not yet those of the trajectory.
    assert exponent / 3.0 < caught.value.growth.exponent < 3.0 * exponent


def test_the_equations_of_lorenz():
    x, h = torch.zeros(2000, 2, 1).double(), on_attractor()
    with pytest.raises(RuntimeError, match="exponent 0.0[3-6].* per step"):
        TimeParallel(Lorenz(28.0), control=TIGHT)(x, h)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "TimeParallel took")
        TimeParallel(Lorenz(10.0), control=TIGHT)(x, h)


def test_few_cycles_are_spent_before_a_refusal(monkeypatch):
    taken = []
    take = cycles.run
    monkeypatch.setattr(cycles, "run", lambda *given: (taken.append(1), take(*given))[1])
    torch.manual_seed(0)
    cell, x = scaled(nn.RNNCell, 32, 6.0), 0.5 * torch.randn(500, 2, 32).double()
    with pytest.raises(RuntimeError, match="chaotic"):
        TimeParallel(cell, control=TIGHT)(x)
    assert len(taken) == 2  # the opening, and one cycle


def test_auto_takes_exact_steps_without_a_word():
    """Twice: measured with a stable cell, which then becomes chaotic; and from the start."""
    torch.manual_seed(0)
    x = (0.5 * torch.randn(500, 2, 32).double()).requires_grad_()
    cell = scaled(nn.RNNCell, 32, 6.0)
    auto = TimeParallel(cell, mode="auto", control=TIGHT)
    size = auto._key(x, None)
    auto._faster[size] = "mgrit", 2.0  # what a measurement might have found before
    exact = TimeParallel(cell, mode="serial")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = auto(x)[0]
        # Errors are as large as states after some 100 steps, so only the first ones can agree.
        torch.testing.assert_close(found[:20], exact(x)[0][:20])
        of_found = torch.autograd.grad(found[:20].square().sum(), [x, *cell.parameters()])
        assert auto.last_forward.cycles == auto.last_backward.cycles == 0
        assert auto._faster[size][0] == "serial"
        torch.testing.assert_close(auto(x)[0], exact(x)[0])
        wanted = torch.autograd.grad(exact(x)[0][:20].square().sum(), [x, *cell.parameters()])
        torch.testing.assert_close(of_found, wanted)


def test_training_goes_on_with_one_warning():
    torch.manual_seed(0)
    cell, x = scaled(nn.GRUCell, 16, 1.0), 0.5 * torch.randn(300, 2, 16).double()
    parallel = TimeParallel(cell, control=TIGHT)
    parallel(x)
    with torch.no_grad():
        cell.weight_hh *= 20.0
    with pytest.warns(UserWarning, match="chaotic .* exponent .* steps are computed exactly"):
        found = parallel(x)[0]
    torch.testing.assert_close(found[:20], TimeParallel(cell, mode="serial")(x)[0][:20])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parallel(x)[0].sum().backward()


def test_a_fixed_number_of_cycles_is_what_was_asked_for():
    torch.manual_seed(0)
    cell, x = scaled(nn.RNNCell, 32, 6.0), 0.5 * torch.randn(500, 2, 32).double()
    parallel = TimeParallel(cell, control=FixedCycles(6))
    with pytest.warns(UserWarning, match="estimated relative error"):
        parallel(x)
    assert parallel.last_forward.cycles == 6


def test_the_second_look_sees_what_the_first_one_could_not(monkeypatch):
    """Stretches that begin far from the trajectory are chaotic at first, and then forget it."""
    ends = []
    until = chaos._Stretches.until

    def told(self, end, burn):
        ends.append(end)
        return until(self, end, burn)

    monkeypatch.setattr(chaos._Stretches, "until", told)
    torch.manual_seed(0)
    cell, x = scaled(nn.RNNCell, 16, 10.0), 0.5 * torch.randn(1000, 2, 16).double()
    assert lyapunov(cell, x, directions=1).exponent < -0.5  # but it takes more than 20 cycles
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "TimeParallel took")
        TimeParallel(cell, control=TIGHT)(x)
    assert ends[:2] == [32, 128]
