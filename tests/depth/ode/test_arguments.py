"""Law: what cannot be meant is refused in one sentence that says what to give."""

import pytest
import torch

from mgnet.depth import odeint
from mgnet.depth.ode.arguments import ADAPTIVE, check_times, scheme_of

Y0, T = torch.ones(2), torch.linspace(0.0, 1.0, 3)


def decay(t, y):
    return -y


class Scaled(torch.nn.Linear):
    def __init__(self):
        super().__init__(2, 2)

    def forward(self, t, y):
        return super().forward(y)


@pytest.mark.parametrize(
    ("change", "kind", "told"),
    [
        ({"func": 3}, TypeError, "func = 3; give a module or a function"),
        ({"func": torch.nn.Linear(2, 2)}, TypeError, "func Linear with .*the time t first"),
        ({"func": lambda y: y}, TypeError, "it must take two"),
        ({"func": Scaled().double()}, TypeError, "but func has weight of torch.float64; convert"),
        ({"t": [0.0, 1.0]}, TypeError, "give a tensor of floating-point times"),
        ({"t": torch.arange(3)}, TypeError, "floating-point times"),
        ({"t": torch.ones(2, 2)}, ValueError, r"t of shape \(2, 2\); give it one axis"),
        ({"t": torch.ones(0)}, ValueError, "at least one time"),
        ({"t": torch.tensor([0.0, 1.0, 1.0])}, ValueError, "1 after 1; times must increase"),
        ({"t": torch.tensor([0.0, 1.0, 0.5])}, ValueError, "0.5 after 1"),
        ({"t": torch.tensor([0.0, -1.0, 0.5])}, ValueError, "0.5 after -1"),
        ({"t": torch.tensor([0.0, torch.nan])}, ValueError, "not finite"),
        ({"t": torch.tensor([1e9, 1e9 + 1.0], dtype=torch.float64)}, ValueError, "y0 in float64"),
        ({"method": "rk5"}, ValueError, r"one of euler, .* \(did you mean rk4\?\)"),
        ({"method": None}, ValueError, "it must be one of"),
        ({"method": "dopri5"}, ValueError, "with rtol and atol, which chooses all of them at once"),
        ({"step_size": 0.0}, ValueError, "step_size = 0.0; give a positive number"),
        ({"step_size": -0.1}, ValueError, "also for times that decrease"),
        ({"step_size": float("nan")}, ValueError, "positive number"),
        ({"step_size": 1e-7}, ValueError, "more than max_steps = 100000"),
        ({"interp": "linear"}, ValueError, "interp='linear' with a step_size"),
        ({"interp": "cubic", "step_size": 0.1}, ValueError, "interp = 'cubic'"),
        ({"rtol": -1.0}, ValueError, "rtol = -1.0; give a number, at least 0"),
        ({"atol": torch.ones(2)}, ValueError, "for all of y"),
        ({"rtol": 0.0}, ValueError, "both 0"),
        ({"rtol": 1e-3, "step_size": 0.1}, ValueError, "both determine the steps"),
        ({"rtol": 1e-8}, ValueError, "rtol = 1e-08 for states of torch.float32"),
        ({"max_steps": 0}, ValueError, "max_steps = 0; give an integer"),
        ({"max_steps": 1}, ValueError, "grid of 2 steps, more than max_steps = 1"),
        ({"mode": "parallel"}, ValueError, "use one of serial, mgrit, auto"),
        ({"control": 3}, TypeError, "control 3; give CyclesToTolerance"),
        ({"levels": 0}, ValueError, "levels"),
        ({"coarsening": 1}, ValueError, "coarsening"),
    ],
)
def test_what_is_refused(change, kind, told):
    given = {"func": decay, "y0": Y0, "t": T, **change}
    with pytest.raises(kind, match=told):
        odeint(given.pop("func"), given.pop("y0"), given.pop("t"), **given)


@pytest.mark.parametrize("method", ADAPTIVE)
def test_methods_that_choose_their_steps_in_turn(method):
    with pytest.raises(ValueError, match="one after another"):
        scheme_of(method)


def test_times_of_another_precision():
    """float64 times with float32 states, as torchdiffeq takes them."""
    t = torch.linspace(0.0, 1.0, 3, dtype=torch.float64)
    assert check_times(t, Y0) is t
    assert odeint(decay, Y0, t).dtype == torch.float32
