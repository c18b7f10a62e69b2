"""Least squares on a device; `test_device_steps.py` runs this file in a process of its own.

Every problem is drawn, solved on the CPU and on the device, and compared. What the host reads is
counted, of tensors that play those of a device or, with MGNET_CASES=cuda, of a GPU.
"""

import numpy as np
import pytest
import scipy.optimize
import torch
from played_device import DEVICE, PLAYED, watched

from mgnet import Level
from mgnet.knots import KAN, KnotSolver
from mgnet.training import (
    Ansatz,
    Broyden,
    Collocation,
    LastLayer,
    LeastSquares,
    LevenbergMarquardt,
    NewtonKrylov,
    Objective,
    ProbedRadius,
    Term,
    levenberg_marquardt,
    solve_last_layer_,
)
from mgnet.training.least_squares import device_steps
from mgnet.training.least_squares.factorizations import minimum_norm
from mgnet.training.least_squares.step_rules import Damping

torch.set_default_dtype(torch.float64)
CLOSE = {"rtol": 1e-9, "atol": 1e-13} if PLAYED else {"rtol": 1e-5, "atol": 1e-9}


@pytest.fixture
def reads():
    with watched() as seen:
        yield seen


def tanh(*widths, seed=0):
    torch.manual_seed(seed)
    layers = [torch.nn.Linear(a, b) for a, b in zip(widths[:-1], widths[1:], strict=True)]
    parts = [part for layer in layers for part in (layer, torch.nn.Tanh())]
    return torch.nn.Sequential(*parts[:-1])


def points(count, columns=1, seed=0):
    numbers = np.random.default_rng(seed).uniform(-1.0, 1.0, (count, columns))
    return torch.from_numpy(numbers)


def target(x):
    return torch.sin(3.0 * x.sum(1, keepdim=True))


def function(device, seed, network=None, count=60):
    network, x = (network or tanh(1, 7, 7, 1, seed=seed)).to(device), points(count, 1, seed)
    x, y = x.to(device), target(x).to(device)
    return LeastSquares.from_torch(network, lambda network: network(x) - y)


def data(device, seed, network=None, count=60, dtype=torch.float64, **options):
    network = (network or tanh(2, 7, 7, 2, seed=seed)).to(device, dtype)
    x = points(count, network[0].in_features if isinstance(network, torch.nn.Sequential) else 1)
    y = torch.cat([target(x), target(x) ** 2], 1)[:, : network(x[:1].to(device, dtype)).shape[1]]
    options = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in options.items()}
    return LeastSquares(network, (x.to(device, dtype), y.to(device, dtype)), **options)


def equation(device, seed, network=None):
    """U'' + 9 sin(3 x) + u u' - ... = 0, nonlinear, and both ends."""
    network = (network or tanh(1, 8, 8, 1, seed=seed)).to(device)
    x, ends = points(50, 1, seed), torch.tensor([[-1.0], [1.0]])
    values = target(ends).to(device)
    return Collocation(
        network,
        [
            Term(lambda u: u.d(0, 0) + 0.1 * u.value * u.d(0) + 9 * u.points.sin(), x.to(device)),
            Term(lambda u: u.value - values, ends.to(device), weight=10.0),
        ],
    )


def periodic(device, seed):
    inner = tanh(3, 8, 8, 1, seed=seed)
    ansatz = Ansatz(
        inner,
        features=lambda x: torch.cat([(3 * x[:, :1]).cos(), (3 * x[:, :1]).sin(), x[:, 1:]], 1),
    ).to(device)
    x, t = points(80, 2, seed).to(device), points(20, 1, seed)
    first = torch.cat([t, torch.full_like(t, -1.0)], 1).to(device)
    burgers = Term(lambda u: u.d(1) + u.value * u.d(0) - 0.1 * u.d(0, 0), x)
    return Collocation(ansatz, [burgers, Term(lambda u: u.value + u.points[:, :1].sin(), first)])


def inverse(device, seed):
    ansatz = Ansatz(tanh(1, 8, 1, seed=seed), coefficients={"c": 2.0}).to(device)
    x = points(50, 1, seed)
    y = target(x[:20]).to(device)
    return Collocation(
        ansatz,
        [
            Term(lambda u: u.d(0, 0) + u.coefficients["c"] * u.value, x.to(device)),
            Term(lambda u: u.value - y, x[:20].to(device)),
        ],
    )


PROBLEMS = {
    "function": function,
    "streamed": lambda device, seed: LeastSquares.from_torch(
        (of := function(device, seed, count=300)).network, of.residual, chunk_size=64
    ),
    "data": data,
    "float32": lambda device, seed: data(device, seed, dtype=torch.float32),
    "more parameters": lambda device, seed: data(device, seed, count=20),
    "robust": lambda device, seed: data(device, seed, loss="soft_l1", f_scale=0.3),
    "weights": lambda device, seed: data(
        device, seed, sample_weight=1.0 + points(60, 1, seed)[:, 0] ** 2
    ),
    "equation": equation,
    "periodic": periodic,
    "coefficients": inverse,
    "KAN": lambda device, seed: data(device, seed, kan(seed)),
    "equation of a KAN": lambda device, seed: equation(device, seed, kan(seed)),
}


def kan(seed):
    torch.manual_seed(seed)
    return KAN([1, 4, 1], intervals=7)


def course(problem, count, smoother=None):
    """Objectives and states of some steps, one by one."""
    smoother = smoother or LevenbergMarquardt(corrections=3)
    level, u = Level(problem, smoother), problem.start().double()
    memory = smoother.start(level, u)
    for _ in range(count):
        u, memory = smoother.smooth(level, u, None, 1, memory)
        yield u


@pytest.fixture
def trials(monkeypatch):
    """Of each trial on the device, whether it begins with QR."""
    seen, tried = [], device_steps._tried
    monkeypatch.setattr(device_steps, "_tried", lambda b, m: seen.append(b.rows) or tried(b, m))
    return seen


@pytest.mark.parametrize("name", PROBLEMS)
def test_steps_are_those_of_the_cpu_by_one_read_for_each_trial(name, reads, trials):
    seed = int(np.random.default_rng(len(name)).integers(1000))
    expected = list(course(PROBLEMS[name]("cpu", seed), 5))
    counts = [(0, 0)]
    for found, u in zip(course(PROBLEMS[name](DEVICE, seed), 5), expected, strict=True):
        assert found.device.type == DEVICE.type
        counts.append((len(reads), len(trials)))
        torch.testing.assert_close(found.cpu(), u, **CLOSE)
        reads.pop()
    steps = [(b[0] - a[0], b[1] - a[1]) for a, b in zip(counts[:-1], counts[1:], strict=True)]
    assert steps[0][1] == 0  # the host leads it
    if name == "streamed":  # its blocks are looked at
        assert max(read - tried for read, tried in steps[3:]) < 9
    else:
        assert all(read == tried > 0 for read, tried in steps[3:])


def test_the_counter_sees_a_number_that_a_residual_reads(reads):
    problem = function(DEVICE, 0)
    plain = problem.residual

    def looks(network):
        r = plain(network)
        return r * (1.0 if r.detach().abs().max().item() > 0.0 else 2.0)

    counts = []
    for residual in (plain, looks):
        steps = course(LeastSquares.from_torch(tanh(1, 7, 7, 1).to(DEVICE), residual), 5)
        for _ in range(4):
            next(steps)
        before = len(reads)
        next(steps)
        counts.append(len(reads) - before)
    assert counts[1] > counts[0] + 2


@pytest.mark.parametrize("look", [float, bool, torch.Tensor.item, torch.Tensor.cpu])
def test_the_counter_sees_each_kind_of_look(look, reads):
    x = torch.ones((), device=DEVICE)
    look(x)
    assert reads


def test_the_counter_sees_masks_and_tensors_of_the_cpu(reads):
    x = torch.ones(3, device=DEVICE)
    _ = x[x > 0.0]
    assert reads
    with pytest.raises(RuntimeError):
        x + torch.ones(3)


def test_the_function_ends_where_scipy_does(reads):
    seed = 0
    network = tanh(1, 2, 1, seed=seed)
    x = points(40, 1, seed)
    y = x.tanh() + 0.3 * points(40, 1, seed + 9)
    problem = LeastSquares(network, (x, y))
    best = scipy.optimize.least_squares(
        lambda u: problem.residuals(torch.from_numpy(u)).numpy(), problem.start().numpy()
    )
    far = LeastSquares(network.to(DEVICE), (x.to(DEVICE), y.to(DEVICE)))
    solution = levenberg_marquardt(far, max_cycles=30, corrections=1)
    assert solution.value.device.type == DEVICE.type
    assert solution.values[-1] <= 1.001 * best.cost


def test_a_whole_training_is_that_of_the_cpu(reads, trials):
    near, counts = levenberg_marquardt(data("cpu", 3), max_cycles=9, corrections=2), []
    for cycles in (5, 9):
        before = len(reads), len(trials)
        far = levenberg_marquardt(data(DEVICE, 3), max_cycles=cycles, corrections=2)
        counts.append((len(reads) - before[0], len(trials) - before[1]))
    # The loop itself, its history and its tests read nothing more.
    assert counts[1][0] - counts[0][0] == counts[1][1] - counts[0][1] < 18
    count = 10 if PLAYED else 6
    assert near.reason is far.reason
    np.testing.assert_allclose(far.values[:count], near.values[:count], rtol=1e-5)
    np.testing.assert_allclose(far.residual_norms[:count], near.residual_norms[:count], rtol=1e-4)


def ill_conditioned(device):
    """Of a Hilbert matrix and a nonlinear row: Cholesky has no digits for small dampings."""
    torch.manual_seed(0)
    H = torch.from_numpy(1.0 / (np.arange(40)[:, None] + np.arange(12) + 1.0)).to(device)
    network = torch.nn.Linear(12, 1, bias=False).to(device)

    def residual(network):
        r = (network.weight * H).sum(1)
        return r - 1.0 + 1e-3 * r.square()

    return LeastSquares.from_torch(network, residual)


def test_qr_follows_where_cholesky_has_no_digits(reads, trials):
    smoother = LevenbergMarquardt(mu=1e-17, x_scale=1.0)
    expected = list(course(ill_conditioned("cpu"), 3, smoother))
    found = list(course(ill_conditioned(DEVICE), 3, smoother))
    assert trials[:3] == [False, True, True]  # the next step begins with QR
    value = ill_conditioned("cpu").value
    for u, v in zip(found, expected, strict=True):
        assert abs(value(u.cpu()) / value(v) - 1.0) < 1e-3


def test_residuals_that_mix_samples_are_right(reads):
    def problem(device):
        torch.manual_seed(1)
        network, x = tanh(1, 6, 1).to(device), points(30).to(device)
        return LeastSquares.from_torch(network, lambda n: n(x) - n(x).mean() - x)

    expected = list(course(problem("cpu"), 5))
    for found, u in zip(course(problem(DEVICE), 5), expected, strict=True):
        torch.testing.assert_close(found.cpu(), u, **CLOSE)


def test_features_that_change_are_seen(reads):
    """The check that they are those of before is read at the end: the host then leads."""
    kept, factor = [], [1.0]

    def problem(device):
        ansatz = Ansatz(tanh(1, 6, 1), features=lambda x: factor[0] * x).to(device)
        x = points(30).to(device)
        return Collocation(ansatz, [Term(lambda u: u.d(0) + u.value - 1.0, x)])

    for device in ("cpu", DEVICE):
        factor[0], found = 1.0, []
        for step, u in enumerate(course(problem(device), 6)):
            found.append(u.cpu())
            factor[0] = 1.0 if step < 3 else 0.5
        kept.append(found)
    for near, far in zip(*kept, strict=True):
        torch.testing.assert_close(far, near, **CLOSE)


WAYS = {
    "probed": {"rule": ProbedRadius()},
    "no acceleration": {"acceleration": 0.0},
    "no corrections": {"corrections": 0},
    "jac": {"x_scale": "jac"},
    "numbers": {"x_scale": 2.0},
    "bounds": {"bounds": (-0.6, 0.6)},
    "Krylov": {"linear_solver": NewtonKrylov(direct=0)},
}


@pytest.mark.parametrize("name", WAYS)
def test_other_ways_are_those_of_the_cpu(name, reads):
    smoother = LevenbergMarquardt(**WAYS[name])

    def problem(device):
        made = data(device, 2)
        with torch.no_grad():
            for p in made.network.parameters():
                p.clamp_(-0.5, 0.5)
        return made

    expected = list(course(problem("cpu"), 6, smoother))
    for found, u in zip(course(problem(DEVICE), 6, smoother), expected, strict=True):
        torch.testing.assert_close(found.cpu(), u, **CLOSE)


def test_a_formula_is_fitted(reads):
    def problem(device):
        torch.manual_seed(0)
        t = torch.linspace(0.0, 3.0, 40)
        module = torch.nn.ParameterDict({"a": torch.tensor([2.0]), "k": torch.tensor([0.1])})
        module, y = module.to(device), (3.0 * torch.exp(-1.3 * t)).to(device)
        t = t.to(device)
        return LeastSquares.from_torch(module, lambda m: m["a"] * torch.exp(-m["k"] * t) - y)

    solution = levenberg_marquardt(problem(DEVICE))
    torch.testing.assert_close(solution.value.cpu(), torch.tensor([3.0, 1.3]))


def test_a_right_hand_side(reads, trials):
    """As coarse levels have one: values are those of `1/2 |r|^2 - <f, u>`."""
    found = []
    for device in ("cpu", DEVICE):
        problem, smoother = data(device, 0), LevenbergMarquardt()
        level, u = Level(problem, smoother), problem.start()
        f = (1e-3 * torch.cos(torch.arange(1.0, len(u) + 1.0))).to(device)
        memory: Damping = smoother.start(level, u)
        for _ in range(5):
            before = len(reads), len(trials)
            u, memory = smoother.smooth(level, u, f, 1, memory)
        found.append(u.cpu())
    torch.testing.assert_close(found[1], found[0], **CLOSE)
    assert len(trials) > before[1] and len(reads) - before[0] - 1 == len(trials) - before[1]


def test_preconditioners_of_the_cpu_are_refused(reads):
    problem = data(DEVICE, 0, kan(0))
    smoother = LevenbergMarquardt(linear_solver=NewtonKrylov(KnotSolver(), direct=0))
    with pytest.raises(TypeError, match=r"KnotSolver, which computes on the CPU alone; move"):
        list(course(problem, 1, smoother))


@pytest.mark.parametrize("rank", [5, 3])
@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_minimum_norm(rank, ridge, reads):
    A = points(30, rank, 1) @ points(rank, 5, 2)
    b, f = points(30, 2, 3), points(5, 2, 4)
    extended = np.concatenate([A.numpy(), ridge**0.5 * np.eye(5)])
    right = np.concatenate([b.numpy(), np.zeros((5, 2))])
    best = np.linalg.lstsq(extended, right, rcond=1e-12)[0]
    far, b_far = A.to(DEVICE), b.to(DEVICE)
    before = len(reads)
    found = minimum_norm(far, b_far, ridge, 1e-12)
    assert len(reads) == before
    np.testing.assert_allclose(found.cpu().numpy(), best, atol=1e-10)
    pulled = np.linalg.pinv(extended.T @ extended, rcond=1e-12) @ f.numpy()
    found = minimum_norm(far, b_far, ridge, 1e-12, f.to(DEVICE))
    np.testing.assert_allclose(found.cpu().numpy(), best + pulled, rtol=1e-7, atol=1e-8)


def test_the_last_layer(reads):
    near, far = tanh(1, 9, 1), tanh(1, 9, 1).to(DEVICE)
    x = points(50)
    solve_last_layer_(near, [(x[:20], target(x[:20])), (x[20:], target(x[20:]))])
    x, y = x.to(DEVICE), target(x).to(DEVICE)
    solve_last_layer_(far, [(x[:20], y[:20]), (x[20:], y[20:])])
    torch.testing.assert_close(far(x).detach().cpu(), near(x.cpu()).detach(), rtol=1e-6, atol=1e-7)
    problem = data(DEVICE, 0)
    level, u = Level(problem, LastLayer()), problem.start()
    level.smoother.start(level, u)
    before = len(reads)
    solved, _ = level.smoother.smooth(level, u, None, 1, ())
    assert len(reads) - before <= 2
    near_by = data("cpu", 0)
    expected, _ = LastLayer().smooth(Level(near_by, LastLayer()), near_by.start(), None, 1, ())
    torch.testing.assert_close(solved.cpu(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("update", ["broyden", "bfgs"])
def test_broyden(update, reads):
    def objective(device):
        network, x = tanh(1, 6, 1).to(device), points(40)
        return Objective(network, torch.nn.MSELoss(), (x.to(device), target(x).to(device)))

    near, far = objective("cpu"), objective(DEVICE)
    states = []
    for problem in (near, far):
        level = Level(problem, Broyden(update), objective=problem.value)
        u = problem.start()
        u, memory = level.smoother.smooth(level, u, None, 10, level.smoother.start(level, u))
        assert memory.inverse.device == u.device
        states.append(u.cpu())
    torch.testing.assert_close(states[1], states[0], **CLOSE)
