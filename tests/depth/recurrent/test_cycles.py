"""Law: cycles over time solve the layer equation of any length, or steps do."""

import pytest
import torch
from torch import nn

from mgnet.depth import CyclesToTolerance, FixedCycles, LayerEquation
from mgnet.depth.mgrit.communicator import SERIAL_COMMUNICATOR
from mgnet.depth.recurrent.cycles import TimeCycles
from mgnet.depth.recurrent.gru_steps import GRUSteps
from mgnet.depth.recurrent.propagation import TimeAdjoint, TimeSteps


def test_factors_of_any_length():
    for levels in (1, 2, 3, 5):
        for given in (None, 2, 7):
            for steps in (1, 2, 3, 10, 1000, 12345):
                factors = TimeCycles(levels, given).factors(steps)
                assert len(factors) < levels
                for factor in factors:
                    steps = -(-steps // factor)
                    assert steps >= 2 and given in (None, factor)
    assert TimeCycles(3).factors(1000) == (10, 10)
    assert TimeCycles(3, (4, 8)).factors(1000) == (4, 8)


def recurrence(steps, memory, dtype=torch.float64, width=3, factors=()):
    torch.manual_seed(0)
    weight = torch.randn(3 * width, width, dtype=dtype) / width**0.5
    inputs = torch.randn(steps, 2, 3 * width, dtype=dtype)
    inputs[..., width : 2 * width] += memory
    return TimeSteps(GRUSteps(weight, None), inputs, factors)


@pytest.mark.parametrize("cycle", ["V", "F", "W"])
@pytest.mark.parametrize("relaxation", ["F", "FCF", ("F", "FCF")])
@pytest.mark.parametrize("steps", [17, 130])
@pytest.mark.parametrize("memory", [0.0, 3.0])
def test_both_directions_to_a_tolerance(cycle, relaxation, steps, memory):
    cycles = TimeCycles(3, 4, relaxation, cycle)
    forward = recurrence(steps, memory, factors=cycles.factors(steps))
    start, limit = torch.randn(2, 3, dtype=torch.float64), CyclesToTolerance(1e-10, None, 40)
    serial = LayerEquation(forward, 0, steps, start, None).march(None)
    given = limit.limit("forward"), SERIAL_COMMUNICATOR
    found, made, solved = cycles.solve(forward, steps, start, None, *given)
    assert solved and 0 < made.cycles <= 40
    assert (found - serial).norm() <= 1e-8 * serial.norm()
    adjoint, f = TimeAdjoint(forward, serial), torch.randn_like(serial)
    wanted = LayerEquation(adjoint, 0, steps, f[-1], None, reverse=True).march(f)
    found, made, solved = cycles.solve(adjoint, steps, f[-1], f, *given, reverse=True)
    assert solved and (found - wanted).norm() <= 1e-8 * wanted.norm()


@pytest.mark.parametrize("cycle", ["V", "F", "newton(diagonal)"])
@pytest.mark.parametrize("steps", [17, 130])
def test_a_guess_is_where_cycles_begin(cycle, steps):
    cycles = TimeCycles(3, 4, cycle=cycle)
    forward = recurrence(steps, 1.0, factors=cycles.factors(steps))
    start, limit = torch.randn(2, 3, dtype=torch.float64), CyclesToTolerance(1e-10, None, 40)
    given = limit.limit("forward"), SERIAL_COMMUNICATOR
    cold, made, _ = cycles.solve(forward, steps, start, None, *given)
    guess = cold + 1e-12
    kept = guess.clone()
    warm, again, _ = cycles.solve(forward, steps, start, None, *given, guess=guess)
    assert again.cycles == 1 < made.cycles and torch.equal(guess, kept)
    torch.testing.assert_close(warm, cold, rtol=1e-8, atol=1e-8)
    assert torch.equal(warm[0], start)  # the value of this call, not that of the guess
    adjoint, f = TimeAdjoint(forward, cold), torch.randn_like(cold)
    exact = LayerEquation(adjoint, 0, steps, f[-1], None, reverse=True).march(f)
    warm, again, _ = cycles.solve(
        adjoint, steps, f[-1], f, *given, reverse=True, guess=exact + 1e-12
    )
    assert again.cycles == 1 and torch.equal(warm[-1], f[-1])
    torch.testing.assert_close(warm, exact, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("tolerance", [1e-2, 1e-4, 1e-8])
def test_the_estimate_is_not_far_below_the_error(seed, tolerance):
    torch.manual_seed(seed)
    memory, spread = float(torch.rand(())) * 5.0, 1.0 + float(torch.rand(()))
    forward = recurrence(400, memory, width=1 + seed, factors=(8,))
    forward.steps.weight.mul_(spread)
    start = torch.randn(2, 1 + seed, dtype=torch.float64)
    serial = LayerEquation(forward, 0, 400, start, None).march(None)
    limit = CyclesToTolerance(tolerance, None, 50).limit("forward")
    found, made, _ = TimeCycles(2, 8).solve(forward, 400, start, None, limit, SERIAL_COMMUNICATOR)
    assert (found - serial).norm() <= 10.0 * tolerance * serial.norm()
    assert made.estimate <= tolerance


class Doubling:
    """Steps that forget, on coarse levels ones that grow without bound."""

    def advance(self, level, which, states):
        return 0.5 * states + 1.0 if level == 0 else 1e3 * states**3


def test_what_diverges_is_stepped_or_told():
    start = torch.ones(1, 1, dtype=torch.float64)
    serial = LayerEquation(Doubling(), 0, 100, start, None).march(None)
    cycles = TimeCycles(2, 4, "F")
    limit = CyclesToTolerance(1e-6).limit("forward")
    found, made, solved = cycles.solve(Doubling(), 100, start, None, limit, SERIAL_COMMUNICATOR)
    assert not solved and made.estimate == 0.0
    torch.testing.assert_close(found, serial)
    with pytest.raises(FloatingPointError):
        limit = FixedCycles(3).limit("forward")
        cycles.solve(Doubling(), 100, start, None, limit, SERIAL_COMMUNICATOR)


def test_one_level_is_a_march():
    forward = recurrence(9, 0.0)
    start, limit = torch.zeros(2, 3, dtype=torch.float64), FixedCycles(2).limit("forward")
    found, made, solved = TimeCycles(1).solve(forward, 9, start, None, limit, SERIAL_COMMUNICATOR)
    assert solved and made.cycles == 0 and made.estimate == 0.0
    assert torch.equal(found, LayerEquation(forward, 0, 9, start, None).march(None))


def test_rounding_ends_the_cycles():
    forward = recurrence(200, 0.0, torch.float32, factors=(8,))
    limit = CyclesToTolerance(1e-30).limit("forward")
    start = torch.zeros(2, 3)
    _, made, solved = TimeCycles(2, 8).solve(forward, 200, start, None, limit, SERIAL_COMMUNICATOR)
    assert solved and made.cycles < 20


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0,), "levels = 0"),
        ((2.0,), "levels = 2.0"),
        ((2, 1), "coarsening 1"),
        ((3, (4,)), "sequence of 2"),
        ((2, 4, "FX"), "'FX'"),
        ((2, 4, "F", "Q"), "'Q'"),
    ],
)
def test_malformed_settings(arguments, words):
    with pytest.raises(ValueError) as caught:
        TimeCycles(*arguments)
    assert words in str(caught.value)


def test_nn_is_the_oracle_of_the_march():
    module = nn.GRU(2, 3, dtype=torch.float64)
    x = torch.randn(20, 2, 2, dtype=torch.float64)
    inputs = nn.functional.linear(x, module.weight_ih_l0, module.bias_ih_l0).detach()
    steps = GRUSteps(module.weight_hh_l0.detach(), module.bias_hh_l0.detach())
    start = torch.zeros(2, 3, dtype=torch.float64)
    found = LayerEquation(TimeSteps(steps, inputs, ()), 0, 20, start, None).march(None)
    torch.testing.assert_close(found[1:], module(x)[0].detach())
