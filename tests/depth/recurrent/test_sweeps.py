"""Newton's sweeps end at PyTorch's recurrence, with gradients, whatever the Jacobians."""

import pytest
import torch
from torch import nn

from mgnet.depth import CyclesToTolerance, FixedCycles, TimeParallel
from mgnet.depth.mgrit.layer_hierarchy import layer_hierarchy
from mgnet.depth.mgrit.newton import NewtonSweep
from mgnet.depth.parallel.control import CycleLimit
from mgnet.depth.recurrent.cycles import TimeCycles
from mgnet.depth.recurrent.gru_steps import GRUSteps
from mgnet.depth.recurrent.propagation import TimeSteps, check_jacobians
from mgnet.depth.recurrent.sweeps import newton_sweeps

TIGHT = CyclesToTolerance(1e-13, max_cycles=60)


@pytest.mark.filterwarnings("ignore:TimeParallel took 60 cycles")
@pytest.mark.parametrize("cycle", ["newton", "newton(diagonal)", "newton(identity)"])
@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
@pytest.mark.parametrize("T, batch, width", [(2, 1, 1), (57, 3, 4), (200, 2, 3)])
def test_output_and_gradients(kind, cycle, T, batch, width):
    torch.manual_seed(T)
    module = kind(3, width, num_layers=2).double()
    ours = TimeParallel(module, control=TIGHT, cycle=cycle)
    x = torch.randn(T, batch, 3, dtype=torch.float64, requires_grad=True)
    found = []
    for run in (ours, module):
        y, _ = run(x)
        found.append([y, *torch.autograd.grad(y.square().sum(), [x, *module.parameters()])])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)
    assert 0 < ours.last_forward.cycles < 60 or cycle == "newton(identity)"  # solved step by step


def test_dense_sweeps_are_few_and_the_adjoint_takes_one():
    torch.manual_seed(0)
    gru, x = nn.GRU(3, 4).double(), torch.randn(1000, 2, 3, dtype=torch.float64)
    ours = TimeParallel(gru, control=CyclesToTolerance(1e-8), cycle="newton")
    ours(x.requires_grad_())[0].sum().backward()
    assert ours.last_forward.cycles <= 6 and ours.last_backward.cycles <= 2


def test_any_cell():
    torch.manual_seed(0)
    cell = nn.RNNCell(3, 4).double()
    x = torch.randn(60, 2, 3, dtype=torch.float64)
    y, _ = TimeParallel(cell, control=TIGHT, cycle="newton")(x, torch.zeros(1, 2, 4).double())
    h = torch.zeros(2, 4).double()
    for row, wanted in zip(y, x, strict=True):
        h = cell(wanted, h)
        torch.testing.assert_close(row, h, rtol=1e-9, atol=1e-10)


def test_a_chaotic_cell_is_refused_or_right_in_the_end():
    torch.manual_seed(0)
    cell = nn.RNNCell(2, 24, bias=False).double()
    with torch.no_grad():
        cell.weight_hh.mul_(8.0)
    x = torch.randn(300, 1, 2, dtype=torch.float64)
    h, control = torch.zeros(1, 1, 24).double(), CyclesToTolerance(1e-8, max_cycles=8)
    with pytest.raises(RuntimeError, match="chaotic recurrence, exponent 0"):
        TimeParallel(cell, control=control, cycle="newton")(x, h)
    control = CyclesToTolerance(1e-8, max_cycles=1)  # too few to be looked at
    with pytest.warns(UserWarning, match="solved step by step"):
        y, _ = TimeParallel(cell, control=control, cycle="newton")(x, h)
    serial, _ = TimeParallel(cell, mode="serial")(x, h)
    torch.testing.assert_close(y, serial)


def test_a_fixed_number_of_sweeps():
    gru, x = nn.GRU(2, 3), torch.randn(80, 1, 2)
    ours = TimeParallel(gru, control=FixedCycles(3, tolerance=9.0), cycle="newton(diagonal)")
    ours(x)
    assert ours.last_forward.cycles == 3


def test_what_is_reported_is_the_residual_too():
    torch.manual_seed(1)
    weight = torch.randn(9, 3, dtype=torch.float64)
    steps = TimeSteps(GRUSteps(weight, None), torch.randn(40, 2, 9, dtype=torch.float64), ())
    start = torch.ones(2, 3, dtype=torch.float64)
    level = layer_hierarchy(steps, 40, start, levels=1)[0]
    points = start.expand(41, 2, 3)
    norm = torch.linalg.vector_norm
    for sweep in (NewtonSweep(), NewtonSweep("dense", 0.9), NewtonSweep("identity")):
        found, made = newton_sweeps(sweep, level, points, None, CycleLimit(60, 1e-9), norm, 1e-15)
        wanted = level.operator.march(None)
        assert norm(found - wanted) <= 1e-6 * norm(wanted) and made.estimate <= 1e-9


def test_texts():
    assert not TimeCycles(cycle="newton").are_serial(2) and TimeCycles(cycle="newton").are_serial(1)
    assert TimeCycles(cycle="newton(identity)").factors(100) == ()
    with pytest.raises(ValueError, match="dense, diagonal or identity"):
        TimeParallel(nn.GRUCell(2, 3), cycle="newton(full)")


def test_jacobians_that_no_memory_holds_are_refused():
    states = torch.zeros(1, device="meta").expand(20000, 8, 4000)
    with pytest.raises(ValueError, match=r"20000 steps.*take newton\(diagonal\)"):
        check_jacobians(states, "dense")
    check_jacobians(states, "diagonal")
