"""Law: `odeint` gives torchdiffeq's numbers, and the gradients of the steps that it took.

The formulas of torchdiffeq 0.2.5 are written out here, in ordinary autograd.
"""

import copy
import pickle
import warnings

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from mgnet.depth import CyclesToTolerance, FixedCycles, odeint
from mgnet.depth.ode.odeint import kept_of

DOUBLE = torch.float64
TABLES = {  # of torchdiffeq: rows of stages, weights
    "euler": ([], [1.0]),
    "midpoint": ([[1 / 2]], [0.0, 1.0]),
    "heun2": ([[1.0]], [1 / 2, 1 / 2]),
    "heun3": ([[1 / 3], [0.0, 2 / 3]], [1 / 4, 0.0, 3 / 4]),
    "rk4": ([[1 / 3], [-1 / 3, 1.0], [1.0, -1.0, 1.0]], [1 / 8, 3 / 8, 3 / 8, 1 / 8]),
    "rk4_classic": ([[1 / 2], [0.0, 1 / 2], [0.0, 0.0, 1.0]], [1 / 6, 1 / 3, 1 / 3, 1 / 6]),
}
METHODS = [*TABLES]


def one_step(method, func, t, s, y):
    rows, weights = TABLES[method]
    slopes = [func(t, y)]
    for row in rows:
        state = y + s * sum(a * k for a, k in zip(row, slopes, strict=True))
        slopes.append(func(t + s * sum(row), state))
    return y + s * sum(b * k for b, k in zip(weights, slopes, strict=True))


def on_grid(method, func, y, grid):
    states = [y]
    for n in range(len(grid) - 1):
        y = one_step(method, func, grid[n], grid[n + 1] - grid[n], y)
        states.append(y)
    return states


def with_lines(method, func, y, t, step_size):
    """Torchdiffeq with a step size, for times that increase or decrease."""
    sign = 1.0 if t[1] > t[0] else -1.0
    count = int(torch.ceil(sign * (t[-1] - t[0]) / step_size + 1))
    grid = torch.cat([t[0] + sign * step_size * torch.arange(count - 1).to(t), t[-1:]])
    states, found = on_grid(method, func, y, grid), [y]
    for time in t[1:]:
        right = next(n for n in range(1, len(grid)) if sign * (grid[n] - time) >= 0.0)
        share = (time - grid[right - 1]) / (grid[right] - grid[right - 1])
        found.append(states[right - 1] + share * (states[right] - states[right - 1]))
    return torch.stack(found)


class Network(torch.nn.Module):
    """`kind`: time in the compiled loop, in what the loop does not know, or nowhere."""

    def __init__(self, kind="timed", width=5, dtype=DOUBLE):
        super().__init__()
        self.kind = kind
        self.inner = torch.nn.Linear(2, width, dtype=dtype)
        self.outer = torch.nn.Linear(width, 2, dtype=dtype)

    def forward(self, t, y):
        if self.kind == "unknown":
            return torch.sinh(0.1 * y) * t.exp() + self.outer(self.inner(y).tanh())
        inner = self.inner(y)
        return self.outer(torch.tanh(inner + t if self.kind == "timed" else inner))


def drawn(seed=0, points=7, kind="timed", dtype=DOUBLE):
    torch.manual_seed(seed)
    func, y0 = Network(kind, dtype=dtype), torch.randn(3, 2, dtype=dtype)
    t = torch.rand(points, dtype=DOUBLE).cumsum(0) * 0.3 - 0.5
    return func, y0.requires_grad_(), t.requires_grad_()


def gradients(states, inputs):
    weights = torch.sin(torch.arange(states.numel(), dtype=DOUBLE)).view(states.shape)
    return torch.autograd.grad((weights.to(states) * states).sum(), inputs)


def check_same(found, right, inputs, **near):
    torch.testing.assert_close(found, right, **near)
    for one, other in zip(gradients(found, inputs), gradients(right, inputs), strict=True):
        torch.testing.assert_close(one, other, **near)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["timed", "unknown"])
def test_one_step_from_each_time_to_the_next(method, kind):
    """States and gradients by y0, weights and times: forward, and backward in time."""
    func, y0, t = drawn(kind=kind)
    inputs = [y0, *func.parameters(), t]
    for times in (t, t.flip(0)):
        found = odeint(func, y0, times, method=method)
        check_same(found, torch.stack(on_grid(method, func, y0, times)), inputs)


def test_heun_is_heun2():
    func, y0, t = drawn()
    assert torch.equal(odeint(func, y0, t, method="heun"), odeint(func, y0, t, method="heun2"))


@pytest.mark.parametrize("seed", range(4))
def test_drawn_calls(seed):
    """Modes, precisions, grids of all kinds."""
    torch.manual_seed(100 + seed)

    def pick(*values):
        return values[int(torch.randint(len(values), ()))]

    dtype, mode = pick(DOUBLE, torch.float32), pick("serial", "mgrit", "auto")
    func, y0, t = drawn(seed, pick(2, 9, 14), pick("timed", "unknown", ""), dtype)
    method, step_size = pick(*METHODS), pick(0.07, 0.3, 5.0)
    if pick(False, True):
        t = t.flip(0).detach().requires_grad_()
    inputs = [y0, *func.parameters(), *([t] if func.kind else [])]
    near = {"rtol": 2e-4, "atol": 2e-4} if dtype != DOUBLE else {"rtol": 1e-8, "atol": 1e-9}
    options = {"method": method, "mode": mode, "coarsening": pick(2, 3)}
    found = odeint(func, y0, t, step_size=step_size, interp="linear", **options)
    check_same(found, with_lines(method, func, y0, t.to(dtype), step_size), inputs, **near)
    # Steps that end at all times: each interval in equal parts.
    states, y = [y0], y0
    for begin, end in zip(t.to(dtype), t[1:].to(dtype), strict=False):
        parts = int(((end - begin).abs() / step_size).ceil())
        share = torch.arange(parts + 1).to(t) / parts
        y = on_grid(method, func, y, begin + share.to(dtype) * (end - begin))[-1]
        states.append(y)
    found = odeint(func, y0, t, step_size=step_size, **options)
    check_same(found, torch.stack(states), inputs, **near)


@pytest.mark.parametrize("mode", ["serial", "mgrit"])
def test_gradcheck(mode):
    func, y0, t = drawn(points=5)

    def solve(y0, t, *weights):
        return odeint(func, y0, t, mode=mode, coarsening=2)

    assert torch.autograd.gradcheck(solve, (y0, t, *func.parameters()), fast_mode=True)
    inputs = y0, *func.parameters()
    assert torch.autograd.gradgradcheck(lambda y, *w: solve(y, t.detach()), inputs, fast_mode=True)


STRUCTURES = {
    "rows side by side": ((4, 1), (4, 3)),
    "as one vector": ((), (2, 3)),
    "vectors": ((3,), (2,)),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_structures_of_tensors(name):
    torch.manual_seed(0)
    a, b = (torch.randn(shape, dtype=DOUBLE) for shape in STRUCTURES[name])

    def slopes(t, a, b):
        return torch.cos(t) * a + b.mean(), -a.sum() * b

    def stepped(t, s, a, b):  # Euler
        return tuple(x + s * k for x, k in zip((a, b), slopes(t, a, b), strict=True))

    t = torch.linspace(0.0, 1.0, 5, dtype=DOUBLE)
    right = [(a, b)]
    for n in range(4):
        right.append(stepped(t[n], t[n + 1] - t[n], *right[-1]))
    found = odeint(lambda t, y: slopes(t, *y), (a, b), t, method="euler")
    assert isinstance(found, tuple)
    named = odeint(
        lambda t, y: dict(zip("ab", slopes(t, y["a"], y["b"]), strict=True)),
        {"a": a, "b": b},
        t,
        method="euler",
    )
    for n, (key, states) in enumerate(named.items()):
        torch.testing.assert_close(found[n], torch.stack([each[n] for each in right]))
        assert key == "ab"[n] and torch.equal(states, found[n])


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 1, 2)])
def test_states_of_any_shape(shape):
    y0, t = torch.full(shape, 2.0, dtype=DOUBLE), torch.linspace(0.0, 1.0, 41, dtype=DOUBLE)
    for mode in ("serial", "mgrit"):
        y = odeint(lambda t, y: -t * y, y0, t, mode=mode)
        exact = 2.0 * torch.exp(-0.5 * t**2)
        assert y.shape == (41, *shape)
        torch.testing.assert_close(y, exact.view(-1, *(1,) * len(shape)).expand(y.shape))


def test_adaptive_steps_keep_their_promise():
    """Against SciPy: errors fall with the tolerance, which is one of each interval."""
    t = torch.linspace(0.0, 6.0, 4, dtype=DOUBLE)

    def slope(t, y):  # a driven Duffing oscillator
        x, v = y
        return v, np.cos(t) - 0.2 * v - x**3

    def func(t, y):
        x, v = y
        return v, torch.cos(t) - 0.2 * v - x**3

    exact = solve_ivp(
        slope, (0.0, 6.0), [1.0, 0.0], t_eval=t.numpy(), rtol=1e-11, atol=1e-12, method="DOP853"
    ).y
    y0 = torch.tensor(1.0, dtype=DOUBLE), torch.tensor(0.0, dtype=DOUBLE)
    for method, tolerances in (("heun2", (1e-3, 1e-5)), ("rk4", (1e-4, 1e-7))):
        for tolerance in tolerances:
            y = odeint(func, y0, t, method=method, rtol=tolerance, atol=tolerance)
            error = np.abs(torch.stack(y).numpy() - exact).max()
            assert error < 200.0 * tolerance


def test_adaptive_gradients_are_those_of_the_grid():
    """Of the exact solution to the tolerance, in both directions of time, with cycles too."""
    rate = torch.nn.Parameter(torch.tensor(1.5, dtype=DOUBLE))

    class Growth(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.rate = rate

        def forward(self, t, y):
            return self.rate * torch.cos(t) * y

    func, y0 = Growth(), torch.ones(2, dtype=DOUBLE, requires_grad=True)
    for begin, end in ((0.0, 2.0), (2.0, -1.0)):
        t = torch.tensor([begin, end], dtype=DOUBLE, requires_grad=True)
        span = torch.sin(t[1]) - torch.sin(t[0])
        exact = gradients((y0 * torch.exp(rate * span))[None], [y0, rate, t])
        for mode in ("serial", "mgrit"):
            y = odeint(func, y0, t, rtol=1e-7, atol=1e-7, mode=mode)
            for one, other in zip(gradients(y[1:], [y0, rate, t]), exact, strict=True):
                torch.testing.assert_close(one, other, rtol=2e-5, atol=2e-5)


def test_a_loss_of_the_last_state_costs_one_pass_back():
    """Evaluations and products grow with the steps, and not with the asked times."""
    func, y0, _ = drawn()
    block = next(iter([]), None)
    work = []
    for points, size in ((2, 0.02), (51, None)):
        t = torch.linspace(0.0, 1.0, points, dtype=DOUBLE)
        y = odeint(func, y0, t, method="euler", step_size=size)
        block = next(iter(kept_of(func).blocks.values()))
        before = block.evaluations, block.vjps
        y = odeint(func, y0, t, method="euler", step_size=size)
        y[-1].sum().backward()
        work.append((block.evaluations - before[0], block.vjps - before[1]))
    assert work == [(50, 50), (50, 50)]


def test_closures_are_left_to_autograd():
    rate, t = torch.ones(2, dtype=DOUBLE, requires_grad=True), torch.linspace(0, 1, 5).double()
    y0 = torch.ones(2, dtype=DOUBLE)

    def func(t, y):
        return -rate * y

    right = torch.stack(on_grid("rk4", func, y0, t))
    check_same(odeint(func, y0, t), right, [rate])
    with pytest.raises(ValueError, match="tensors with a gradient besides its parameters"):
        odeint(func, y0, t, mode="mgrit")


def test_transforms_of_torch():
    func, y0, t = drawn(points=4)
    t = t.detach()
    jacobian = torch.func.jacrev(lambda y: odeint(func, y, t)[-1])(y0.detach())
    right = torch.autograd.functional.jacobian(lambda y: on_grid("rk4", func, y, t)[-1], y0)
    torch.testing.assert_close(jacobian, right)
    with pytest.raises(ValueError, match=r"odeint was called with torch.func"):
        torch.func.vmap(lambda y: odeint(func, y, t, mode="mgrit"))(y0.detach())


def test_one_time_is_the_start():
    y0 = torch.ones(3, dtype=DOUBLE, requires_grad=True)
    y = odeint(lambda t, y: y, y0, torch.zeros(1, dtype=DOUBLE), rtol=1e-3)
    assert torch.equal(y, y0[None])
    assert torch.equal(*[torch.autograd.grad(y.sum(), y0)[0], torch.ones_like(y0)])


def test_weights_may_change_between_calls():
    """And modules in the right-hand side, and their mode."""
    func, y0, t = drawn()
    func.inner = torch.nn.Sequential(torch.nn.Dropout(), func.inner).eval()
    for change in (
        lambda: func.outer.weight.data.mul_(2.0),
        lambda: setattr(func, "outer", torch.nn.Linear(5, 2, bias=False, dtype=DOUBLE)),
        lambda: setattr(func, "kind", ""),
    ):
        odeint(func, y0, t)
        change()
        right = torch.stack(on_grid("rk4", func, y0, t))
        check_same(odeint(func, y0, t), right, [y0, *func.parameters()])
    func.train()
    with pytest.raises(ValueError, match=r"in evaluation mode, as with func.eval"):
        odeint(func, y0, t)


def test_copies_of_a_right_hand_side():
    func, y0, t = drawn()
    right = odeint(func, y0, t)
    for other in (copy.deepcopy(func), pickle.loads(pickle.dumps(func))):
        other.outer.bias.data.zero_()
        assert not torch.equal(odeint(other, y0, t), right)
    assert torch.equal(odeint(func, y0, t), right)
    assert not any("mgnet" in name for name in func.state_dict())


def test_cycles_that_do_not_get_there_are_told_of():
    """Coarse steps that are not stable: the steps are taken one after another."""
    y0, t = torch.ones(2, dtype=DOUBLE), torch.linspace(0.0, 1.0, 41, dtype=DOUBLE)
    with pytest.warns(UserWarning, match="takes its 40 steps one after another, for cycles"):
        control = CyclesToTolerance(1e-9, max_cycles=3)
        y = odeint(lambda t, y: -110.0 * y, y0, t, mode="mgrit", control=control)
    assert torch.equal(y, odeint(lambda t, y: -110.0 * y, y0, t))


def test_a_number_of_cycles():
    func, y0, _ = drawn()
    t = torch.linspace(0.0, 1.0, 33, dtype=DOUBLE)
    right = odeint(func, y0, t)
    (by_start,) = gradients(right, [y0])
    errors = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for cycles in (0, 1, 8):
            y = odeint(func, y0, t, mode="mgrit", control=FixedCycles(cycles))
            errors.append(float((y - right).detach().abs().max()))
            # The opening already knows of the loss at every time, on its coarse level.
            (found,) = gradients(y, [y0])
            assert (found - by_start).norm() < 0.1 * by_start.norm()
    assert errors[0] > 10.0 * errors[1] > 100.0 * errors[2]
    assert errors[2] < 1e-13


def test_torch_compile_meets_a_plain_call():
    func, y0, t = drawn()
    found = torch.compile(lambda y: 2.0 * odeint(func, y, t.detach()), backend="eager")(y0)
    torch.testing.assert_close(found, 2.0 * odeint(func, y0, t.detach()))


def test_batch_norm_is_told_of():
    func = Network()
    func.inner = torch.nn.Sequential(torch.nn.BatchNorm1d(2).double(), func.inner)
    y0, t = torch.randn(5, 2, dtype=DOUBLE), torch.linspace(0.0, 1.0, 4, dtype=DOUBLE)
    with pytest.raises(ValueError, match=r"changes its buffer .* evaluation mode"):
        odeint(func, y0, t)
    func.eval()
    torch.testing.assert_close(odeint(func, y0, t), torch.stack(on_grid("rk4", func, y0, t)))


def test_ranks_give_no_gradient_to_times():
    with pytest.raises(ValueError, match="ranks and t with a gradient"):
        t = torch.tensor([0.0, 1.0], requires_grad=True)
        odeint(lambda t, y: y, torch.ones(1), t, ranks=object())  # type: ignore[arg-type]
