"""Steps on a device: those of the CPU, by one read for each trial.

Tensors that play those of a device, or of a GPU where there is one, are in `device_cases.py`; here
tensors of the CPU take the same way.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mgnet import Level
from mgnet.training import LeastSquares, LevenbergMarquardt, TrustRegion, levenberg_marquardt
from mgnet.training.least_squares import device_steps
from mgnet.training.least_squares import levenberg_marquardt as led
from mgnet.training.least_squares.device_steps import begun_on_device, leads_itself
from mgnet.training.least_squares.endings import cosine
from mgnet.training.least_squares.step_rules import Damping

ROOT = Path(__file__).resolve().parents[3]


def cases(device):
    """`device_cases.py` in a process of its own: PyTorch takes a device of others once."""
    command = "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"
    environment = {**os.environ, "MGNET_CASES": device}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment.pop("PYTEST_XDIST_WORKER", None)
    return subprocess.run(
        [sys.executable, *command, "tests/training/least_squares/device_cases.py"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_the_cases_hold_on_a_played_device():
    run = cases("played")
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    assert "passed" in run.stdout


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_the_cases_hold_on_a_gpu():
    run = cases("cuda")
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]


def problem(seed, samples=40, outputs=1):
    torch.manual_seed(seed)
    network = torch.nn.Sequential(
        torch.nn.Linear(2, 6), torch.nn.Tanh(), torch.nn.Linear(6, outputs)
    ).double()
    drawn = np.random.default_rng(seed)
    x, y = drawn.uniform(-1, 1, (samples, 2)), drawn.standard_normal((samples, outputs))
    return LeastSquares(network, (torch.from_numpy(x), torch.from_numpy(y)))


@pytest.fixture
def far(monkeypatch):
    """Tensors of the CPU go the way of those of a device."""
    monkeypatch.setattr(led, "is_far", lambda u: True)


@pytest.mark.parametrize("samples", [40, 8])  # by J^T J, and by J J^T
@pytest.mark.parametrize("seed", range(4))
def test_trainings_have_the_same_bits(seed, samples, monkeypatch):
    found = levenberg_marquardt(problem(seed, samples), max_cycles=30)
    monkeypatch.setattr(led, "is_far", lambda u: True)
    other = levenberg_marquardt(problem(seed, samples), max_cycles=30)
    assert other.values == found.values and other.residual_norms == found.residual_norms
    assert torch.equal(other.value, found.value) and other.reason is found.reason


def test_a_fit_that_ends_ends_as_before(monkeypatch):
    """Tests of convergence and what is looked at where one is met."""
    ends = []
    for away in (False, True):
        monkeypatch.setattr(led, "is_far", lambda u, away=away: away)
        torch.manual_seed(0)
        network = torch.nn.Linear(2, 1).double()
        x = torch.rand(30, 2, dtype=torch.float64)
        solution = levenberg_marquardt(LeastSquares(network, (x, x[:, :1].exp())))
        ends.append((solution.reason, len(solution.history), solution.value.tolist()))
    assert ends[0] == ends[1]


def test_nan_is_told_as_on_the_cpu(far):
    bad = problem(0)
    with torch.no_grad():
        next(bad.network.parameters())[0, 0] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        levenberg_marquardt(bad)


@pytest.mark.parametrize("size", [1e-170, 1e170])
def test_squares_that_are_no_numbers_are_left_to_the_host(size, far):
    network = torch.nn.Linear(1, 1, bias=False).double()
    x = torch.ones(1, 1, dtype=torch.float64)
    with torch.no_grad():
        network.weight.fill_(5.0 * size)
    one = LeastSquares.from_torch(network, lambda n: torch.cat([n(x), n(x)]) - 3.0 * size)
    level, u = Level(one, LevenbergMarquardt(x_scale=1.0)), one.start()
    assert begun_on_device(level.smoother, level, u, None, Damping(1.0, 2.0)) is None
    assert not one.checks_at_once
    assert abs(levenberg_marquardt(one).value.item() / size - 3.0) < 1e-8


def test_zero_residuals_and_zero_jacobians_end(far):
    exact = problem(0)
    exact.data = exact.data[0], exact.network(exact.data[0]).detach()
    assert levenberg_marquardt(exact).reason.name == "STATIONARY"
    network = torch.nn.Linear(1, 1).double()
    flat = LeastSquares.from_torch(network, lambda n: 0.0 * n.weight + 0.0 * n.bias + 1.0)
    solution = levenberg_marquardt(flat, max_cycles=20)
    assert solution.values[-1] == 0.5


@pytest.mark.parametrize("samples", [40, 8])
def test_what_is_read_of_a_state_is_what_the_host_finds(samples):
    one = problem(3, samples)
    smoother, memory = LevenbergMarquardt(x_scale="jac"), Damping(1e-2, 2.0)
    level, u = Level(one, smoother), one.start()
    begun = begun_on_device(smoother, level, u, None, memory)
    told = smoother.linearize(level, u, None)
    expected, found = smoother.step(level, told, memory), begun.swept()
    assert begun.gradient == told.gradient and begun.largest == told.largest
    assert begun.half == begun.value == told.half and found.size == expected.size
    assert cosine(found) == cosine(expected) == begun.cosine
    J = told.J.dense().numpy()
    cosines = J.T @ told.r.numpy() / np.linalg.norm(J, axis=0) / np.linalg.norm(told.r)
    assert begun.cosine == pytest.approx(np.abs(cosines).max())
    assert found.trial == expected.trial and torch.equal(found.u, expected.u)


WAYS = {"bounds": {"bounds": (-9.0, 9.0)}, "rule": {"rule": TrustRegion()}}


@pytest.mark.parametrize("name", WAYS)
def test_who_leads(name):
    one, known = problem(0), Damping(1.0, 2.0)
    u, smoother = one.start(), LevenbergMarquardt(x_scale=1.0)
    assert leads_itself(smoother, one, u, None, known)
    assert not leads_itself(LevenbergMarquardt(), one, u, None, known)  # the first step
    assert leads_itself(LevenbergMarquardt(), one, u, u, known)  # f: proportions play no role
    assert not leads_itself(LevenbergMarquardt(x_scale=1.0, **WAYS[name]), one, u, None, known)
    one.checks_at_once = True
    assert not leads_itself(smoother, one, u, None, known)


def test_a_check_that_fails_leaves_the_step_to_the_host(monkeypatch):
    """Wrong rows of J never make a step."""
    torch.manual_seed(0)
    network, x = torch.nn.Linear(1, 1).double(), torch.rand(9, 1, dtype=torch.float64)
    mixed = LeastSquares.from_torch(network, lambda n: n(x) - n(x).mean() - x)
    level = Level(mixed, LevenbergMarquardt(x_scale=1.0))
    assert begun_on_device(level.smoother, level, mixed.start(), None, Damping(1.0, 2.0)) is None
    assert mixed.checks_at_once
    r, J = mixed.linearize(mixed.start())
    slow = torch.autograd.functional.jacobian(mixed.residuals, mixed.start())
    assert J.shape == (9, 2) and len(r) == 9 and slow.shape == J.shape


def test_numbers_are_read_once_for_a_step_that_is_taken(far, monkeypatch):
    counts, read = [], device_steps.read
    monkeypatch.setattr(device_steps, "read", lambda n: counts.append(len(n)) or read(n))
    one = problem(1)
    level, u = Level(one, LevenbergMarquardt()), one.start()
    memory = level.smoother.start(level, u)
    taken = 0
    for _ in range(12):
        before = len(counts)
        u, memory = level.smoother.smooth(level, u, None, 1, memory)
        taken += len(counts) - before == 1
    assert taken > 1 and set(counts) <= {17, 8}
