"""Solvers on a device beside the CPU of the same machine: for benchmarks/gpu.py."""

import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from gpu_clock import Machine, Row, checked, error, floor, milliseconds
from pinn_accuracy import CASES, ansatz, inputs, problem_of

from mgnet import Chebyshev, CycleRecord, Hierarchy, Level, cycle, gallery, run
from mgnet.training import (
    Ansatz,
    Collocation,
    LevenbergMarquardt,
    Term,
    levenberg_marquardt,
    quasi_random,
)

CPU = torch.device("cpu")
STRIP = [(-1.0, 1.0), (0.0, 1.0)]
SECONDS = 60.0  # DSGNAR is published to take 15.6 to 3.9e-7


def burgers(device: torch.device, hidden: tuple[int, ...], points: int, seed: int) -> Collocation:
    """Burgers' equation, nu = 0.01, as the last row of benchmarks/pinn_accuracy.py has it."""
    problem, setting = problem_of("burgers"), CASES["burgers"].rows[-1]
    network = ansatz(problem, setting._replace(hidden=hidden), seed).to(device)
    drawn = quasi_random(points, STRIP, seed=seed).to(device)
    return Collocation(network, problem.terms(drawn))


def lm_problem(device: torch.device, tiny: bool) -> Collocation:
    """8192 rows of the equation and 1024 of initial values for 1361 weights and 4 coefficients."""
    hidden, rows = ((4,), (32, 8)) if tiny else ((20,) * 4, (8192, 1024))
    torch.manual_seed(0)
    widths = [3, *hidden, 1]
    parts: list[torch.nn.Module] = []
    for before, after in zip(widths[:-1], widths[1:], strict=True):
        parts += [torch.nn.Linear(before, after), torch.nn.Tanh()]
    names = dict.fromkeys("abcd", 0.0)
    network = Ansatz(torch.nn.Sequential(*parts[:-1]).double(), features=inputs, coefficients=names)
    points = quasi_random(sum(rows), STRIP, seed=1).to(device)
    inside, start = points[: rows[0]], points[rows[0] :].clone()
    start[:, 1] = 0.0

    def equation(u):  # type: ignore[no-untyped-def]
        return u.d(1) + u.value * u.d(0) - 0.01 * u.d(0, 0)

    def initial(u):  # type: ignore[no-untyped-def]
        return u.value + torch.sin(torch.pi * u.points[:, :1])

    return Collocation(network.to(device), [Term(equation, inside), Term(initial, start)])


def steps(device: torch.device, tiny: bool) -> tuple[Callable[[], torch.Tensor], int, int]:
    """Each call makes one step of Levenberg-Marquardt; the parameters and the rows."""
    problem, smoother = lm_problem(device, tiny), LevenbergMarquardt()
    level = Level(problem, smoother, name="LM")
    u = problem.start().double()
    memory = smoother.start(level, u)

    def step() -> torch.Tensor:
        nonlocal u, memory
        u, memory = smoother.smooth(level, u, None, 1, memory)
        return u

    return step, len(u), 40 if tiny else 9216


def gauss_newton(machine: Machine) -> Iterator[Row]:
    """A step on the device and on the CPU; the first ones are checked against each other."""
    near, parameters, rows = steps(CPU, machine.tiny)
    far, _, _ = steps(machine.device, machine.tiny)
    off = checked("Levenberg-Marquardt", {"parameters": error(far(), near())}, 1e-5)
    case = f"LM step, {parameters} parameters, {rows} rows"
    yield {"part": "checks", "case": case, "error": off}
    least = floor(
        machine,
        8.0 * rows * parameters * 2.0,
        float(rows) * parameters**2 + parameters**3 / 3.0,
        torch.float64,
    )
    row: Row = {"part": "solvers", "case": case}
    for step in (far, far, near, near):  # the first ones look for the proportion of the layers
        step()
    yield row | {"method": "device", "ms": milliseconds(machine, far, 9)} | least
    yield row | {"method": "CPU", "ms": milliseconds(Machine(CPU, machine.tiny), near, 3)}


def hierarchy(n: int) -> tuple[Hierarchy, str]:
    """PyAMG's hierarchy of Poisson's equation on n x n unknowns, or mgnet's without PyAMG."""
    smoother = Chebyshev(kind="opt_fourth")
    try:
        import pyamg
    except ImportError:
        return gallery.poisson((n, n), smoother=smoother), "mgnet's"
    A = pyamg.gallery.poisson((n, n), format="csr")
    ml = pyamg.ruge_stuben_solver(A, max_coarse=500)
    return Hierarchy.from_pyamg(ml, smoother), "PyAMG's"


def v_cycle(machine: Machine) -> Iterator[Row]:
    """A V(1,1)-cycle on the device and on the CPU, from the same start."""
    n = 31 if machine.tiny else 1023
    levels, whose = hierarchy(n)
    moved = levels.to(machine.device)
    rng = np.random.default_rng(0)
    f, u = rng.standard_normal((2, n * n))
    near = (levels, u, f)
    far = (moved, *(torch.from_numpy(a).to(machine.device) for a in (u, f)))
    schedule = cycle(len(levels))
    values, works = [], []
    for place, start, right in (far, near):
        value, memory = run(schedule, place, start, right)
        values.append(torch.as_tensor(value))
        works.append(
            lambda place=place, start=start, right=right, memory=memory: run(
                schedule, place, start, right, memory
            )
        )
    off = error(*values)
    checked("V-cycle", {"state": off}, 1e-10)
    case = f"V(1,1), {n} x {n} unknowns, {whose} hierarchy, Chebyshev"
    yield {"part": "checks", "case": case, "error": off}
    products = 2 * levels[0].smoother.degree + 1  # type: ignore[attr-defined]
    entries = sum(level.matrix.nnz * products for level in levels[:-1])
    entries += sum(2 * level.transfer.P.nnz for level in levels[:-1])  # type: ignore[union-attr]
    least = floor(machine, 16.0 * entries, 2.0 * entries, torch.float64)
    row: Row = {"part": "solvers", "case": case}
    yield row | {"method": "device", "ms": milliseconds(machine, works[0])} | least
    yield row | {"method": "CPU", "ms": milliseconds(Machine(CPU, machine.tiny), works[1])}


def burgers_error(machine: Machine) -> Iterator[Row]:
    """Errors of u in L2 over seconds on the device's clock, set-up and judging apart."""
    hidden, points = ((4,), 64) if machine.tiny else ((24,) * 4, 6000)
    problem, setting = problem_of("burgers"), CASES["burgers"].rows[-1]
    equation = burgers(machine.device, hidden, points, 1)
    grid, exact = problem.grid.to(machine.device), problem.exact.to(machine.device)
    seconds = 0.2 if machine.tiny else SECONDS
    marks = [seconds * part for part in (1 / 12, 0.26, 0.5, 1.0)]  # the second is 15.6 s
    found: list[Row] = []
    apart, began = 0.0, time.perf_counter()

    def judged(u: torch.Tensor) -> float:
        with torch.no_grad():
            values = equation.flat.evaluate(lambda network: network(grid), u)
        return float((values - exact).norm() / exact.norm())

    def refresh(count: int, now: Collocation, u: torch.Tensor) -> Collocation:
        if count % setting.every:
            return now
        drawn = quasi_random(points, STRIP, seed=1 + count).to(machine.device)
        return now.with_data(problem.terms(drawn))

    def watch(record: CycleRecord, u: torch.Tensor) -> bool:
        nonlocal apart
        machine.wait()
        now = time.perf_counter()
        while len(found) < len(marks) and now - began - apart >= marks[len(found)]:
            row: Row = {"part": "Burgers", "case": "Burgers, nu = 0.01", "method": "device"}
            found.append(row | {"seconds": now - began - apart, "error": judged(u)})
        apart += time.perf_counter() - now
        return len(found) == len(marks)

    try:
        levenberg_marquardt(
            equation,
            refresh=refresh,
            rule=setting.rule,
            corrections=setting.corrections,
            monitor=watch,
            max_cycles=10**6,
            ftol=0.0,
            xtol=0.0,
            gtol=0.0,
        )
    finally:  # what was measured before a failure stays
        yield from found
