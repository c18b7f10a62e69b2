"""Does the Lyapunov exponent say whether methods parallel in time converge? 24 systems.

    OMP_NUM_THREADS=1 python benchmarks/lyapunov_verdict.py [--seeds 5] [--steps 512]
        [--only lorenz] [--save]

ODEs, maps, residual networks and recurrent cells with drawn weights (a seed draws weights, inputs
and the initial state), each for 512 steps of a one-step method. Predicted: `lyapunov(problem)`, the
sign of its exponent, and `.converges`, which also forgives a growth of errors up to a thousandfold
over all steps. Measured: iterations until the largest error of the trajectory, relative to its
largest state, is 1e-6, of MGRIT (two levels, factor 4, FCF; coarse steps of ODEs and residual
networks are steps of four times the length, of maps and cells the first of the four), and of
Newton's method with dense and with diagonal Jacobians; all begin with the solution on the coarse
level, carried up. Given up after 24 iterations ("-"), 1/21 of the steps. Medians over the seeds;
the exponent has its smallest and largest value. A verdict agrees with a method if it predicts
"converges" and the method does on most seeds, or neither.
"""

import argparse
import math
import statistics
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import saved

from mgnet.depth import NewtonSweep, OneStep, lyapunov, mgrit
from mgnet.depth.mgrit.lyapunov_exponent import HARMLESS
from mgnet.interpreter import run

FEW, RTOL = 24, 1e-6
METHODS = "mgrit", "dense", "diagonal"
Array = np.ndarray
Slope = Callable[[Array], Array]


class System(NamedTuple):
    """`make(generator, steps)` gives the problem of a seed."""

    kind: str
    make: Callable[[np.random.Generator, int], OneStep]


def ode(slope: Slope, dt: float, start: Callable[[np.random.Generator], Array]) -> System:
    """By the classical Runge-Kutta method."""

    def step(t: Array, lengths: Array, u: Array) -> Array:
        h = lengths[:, None]
        a = slope(u)
        b = slope(u + h / 2 * a)
        c = slope(u + h / 2 * b)
        return u + h / 6 * (a + 2 * b + 2 * c + slope(u + h * c))

    return System("ODE", lambda g, steps: OneStep(step, start(g), np.full(steps, dt)))


def near(*point: float) -> Callable[[np.random.Generator], Array]:
    return lambda g: np.array(point) + 0.1 * g.standard_normal(len(point))


def a_map(image: Slope, *point: float) -> System:
    def make(g: np.random.Generator, steps: int) -> OneStep:
        start = np.array(point) + 0.01 * g.standard_normal(len(point))
        return OneStep(lambda t, dt, u: image(u), start, np.ones(steps))

    return System("map", make)


def lorenz(u: Array) -> Array:
    x, y, z = u.T
    return np.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z], 1)


def roessler(u: Array) -> Array:
    x, y, z = u.T
    return np.stack([-y - z, x + 0.2 * y, 0.2 + z * (x - 5.7)], 1)


def lorenz96(u: Array) -> Array:
    return (np.roll(u, -1, 1) - np.roll(u, 2, 1)) * np.roll(u, 1, 1) - u + 8.0


def van_der_pol(u: Array) -> Array:
    return np.stack([u[:, 1], (1 - u[:, 0] ** 2) * u[:, 1] - u[:, 0]], 1)


def pendulum(friction: float) -> Slope:
    return lambda u: np.stack([u[:, 1], -np.sin(u[:, 0]) - friction * u[:, 1]], 1)


def fitzhugh_nagumo(u: Array) -> Array:
    v, w = u.T
    return np.stack([v - v**3 / 3 - w + 0.5, 0.08 * (v + 0.7 - 0.8 * w)], 1)


def lotka_volterra(u: Array) -> Array:
    x, y = u.T
    return np.stack([x * (1 - y), y * (x - 1)], 1)


def logistic(r: float) -> System:
    return a_map(lambda u: r * u * (1 - u), 0.3)


def henon(u: Array) -> Array:
    return np.stack([1 - 1.4 * u[:, 0] ** 2 + u[:, 1], 0.3 * u[:, 0]], 1)


def rnn(gain: float, width: int = 16) -> System:
    """`tanh(W u)`, without inputs."""

    def make(g: np.random.Generator, steps: int) -> OneStep:
        weights = gain / math.sqrt(width) * g.standard_normal((width, width))
        start = g.standard_normal(width)
        return OneStep(lambda t, dt, u: np.tanh(u @ weights.T), start, np.ones(steps))

    return System("cell", make)


def sigmoid(x: Array) -> Array:
    return 0.5 + 0.5 * np.tanh(0.5 * x)


def gru(gain: float, width: int = 16) -> System:
    """With inputs; gain 1 is about PyTorch's start."""

    def make(g: np.random.Generator, steps: int) -> OneStep:
        size = gain / math.sqrt(3 * width)
        r, z, n = size * g.standard_normal((3, width, width))
        drive = g.standard_normal((steps, 3, width))

        def step(t: Array, dt: Array, u: Array) -> Array:
            given = drive[np.rint(t).astype(int)]
            reset, update = sigmoid(u @ r.T + given[:, 0]), sigmoid(u @ z.T + given[:, 1])
            new = np.tanh(reset * (u @ n.T) + given[:, 2])
            return (1 - update) * new + update * u

        return OneStep(step, np.zeros(width), np.ones(steps))

    return System("cell", make)


def lstm(gain: float, width: int = 8) -> System:
    def make(g: np.random.Generator, steps: int) -> OneStep:
        weights = gain / math.sqrt(3 * width) * g.standard_normal((4, width, width))
        drive = g.standard_normal((steps, 4, width))

        def step(t: Array, dt: Array, u: Array) -> Array:
            h, c = u[:, :width], u[:, width:]
            i, f, o, n = np.einsum("gij,kj->gki", weights, h) + np.swapaxes(
                drive[np.rint(t).astype(int)], 0, 1
            )
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(n)
            return np.concatenate([sigmoid(o) * np.tanh(c), c], 1)

        return OneStep(step, np.zeros(2 * width), np.ones(steps))

    return System("cell", make)


def residual_net(total: float, gain: float, leak: float = 0.0, width: int = 16) -> System:
    """`u + h (tanh(W_n u) - leak u)`, independent weights, h = total / steps."""

    def make(g: np.random.Generator, steps: int) -> OneStep:
        weights = gain / math.sqrt(width) * g.standard_normal((steps, width, width))
        h = total / steps

        def step(t: Array, dt: Array, u: Array) -> Array:
            own = weights[np.rint(t / h).astype(int)]
            slope = np.tanh((own @ u[:, :, None])[:, :, 0]) - leak * u
            return u + dt[:, None] * slope

        return OneStep(step, g.standard_normal(width), np.full(steps, h))

    return System("network", make)


SYSTEMS = {
    "lorenz": ode(lorenz, 0.02, near(-10.0, -10.0, 28.0)),
    "roessler": ode(roessler, 0.1, near(1.0, 1.0, 0.0)),
    "lorenz96": ode(lorenz96, 0.02, lambda g: 8.0 + g.standard_normal(12)),
    "van der pol": ode(van_der_pol, 0.05, near(2.0, 0.0)),
    "pendulum": ode(pendulum(0.0), 0.05, near(1.0, 0.0)),
    "damped pendulum": ode(pendulum(0.5), 0.05, near(1.0, 0.0)),
    "fitzhugh-nagumo": ode(fitzhugh_nagumo, 0.1, near(0.0, 0.0)),
    "lotka-volterra": ode(lotka_volterra, 0.05, near(1.0, 0.5)),
    "logistic r=4": logistic(4.0),
    "logistic r=3.2": logistic(3.2),
    "henon": a_map(henon, 0.1, 0.1),
    "rnn gain 0.5": rnn(0.5),
    "rnn gain 0.9": rnn(0.9),
    "rnn gain 1.2": rnn(1.2),
    "rnn gain 2": rnn(2.0, width=48),
    "gru gain 1": gru(1.0),
    "gru gain 4": gru(4.0),
    "gru gain 12": gru(12.0),
    "lstm gain 1": lstm(1.0),
    "lstm gain 6": lstm(6.0),
    "resnet T=1": residual_net(1.0, 1.0),
    "resnet T=8": residual_net(8.0, 1.0),
    "resnet T=512": residual_net(512.0, 1.0),
    "leaky resnet T=64": residual_net(64.0, 1.5, leak=1.0),
}


def iterations(problem: OneStep, method: str, exact: Array) -> float:
    """Until the error is small enough; infinite if that is not within `FEW`."""
    hierarchy = problem.hierarchy(coarsening=4, relaxation=("FCF",))
    opening, cycle = mgrit(2)
    assert opening is not None
    u, memory, allowed = problem.guess(), None, RTOL * abs(exact).max()
    try:
        u, _ = run(opening, hierarchy, u, None)
        u = hierarchy[0].operator.relax(u, None)
    except FloatingPointError:  # coarse steps are not stable
        u = problem.guess()
    if method != "mgrit":
        hierarchy = problem.hierarchy(levels=1, solver=NewtonSweep(method))
        _, cycle = mgrit(1, "newton")
    if not np.isfinite(u).all():
        u = problem.guess()
    try:
        for count in range(1, FEW + 1):
            u, memory = run(cycle, hierarchy, u, None, memory)
            now = hierarchy[0].operator.relax(u, None) if method == "mgrit" else u
            if abs(now - exact).max() <= allowed:
                return count
    except FloatingPointError:
        pass
    return math.inf


def measured(name: str, seeds: int, steps: int) -> saved.Row:
    system, exponents, growths = SYSTEMS[name], [], []
    counts: dict[str, list[float]] = {method: [] for method in METHODS}
    for seed in range(seeds):
        problem = system.make(np.random.default_rng(seed), steps)
        exact = problem.serial()
        found = lyapunov(problem)
        exponents.append(found.exponent)
        growths.append(found.log_growth)
        for method in METHODS:
            counts[method].append(iterations(problem, method, exact))
    row: saved.Row = {
        "system": name,
        "kind": system.kind,
        "exponent_median": statistics.median(exponents),
        "exponent_least": min(exponents),
        "exponent_largest": max(exponents),
        "log_growth_median": statistics.median(growths),
        "shrinks": statistics.median(exponents) < 0,
        "converges": sum(growth <= HARMLESS for growth in growths) * 2 > seeds,
    }
    for method in METHODS:
        median = statistics.median_low(counts[method])
        row[f"{method}_median"] = median if math.isfinite(median) else None
    return row


def agreement(rows: list[saved.Row], verdict: str, method: str) -> int:
    return sum(row[verdict] == (row[f"{method}_median"] is not None) for row in rows)


def told(rows: list[saved.Row]) -> list[str]:
    """The table, the counts, and where the verdict was wrong."""
    lines = [
        f"{'':<18} {'exponent (least, largest)':<28} {'e^':>6}  sign   verdict  "
        + "  ".join(f"{method:>8}" for method in METHODS)
    ]
    for row in rows:
        spread = f"({row['exponent_least']:.2g}, {row['exponent_largest']:.2g})"
        counted = [row[f"{method}_median"] for method in METHODS]
        lines.append(
            f"{row['system']:<18} {row['exponent_median']:>8.2g} {spread:<19} "
            f"{row['log_growth_median']:>6.1f}  {'-' if row['shrinks'] else '+'}      "
            f"{'yes' if row['converges'] else 'no':<7}  "
            + "  ".join(f"{'-' if count is None else int(count):>8}" for count in counted)
        )
    for verdict, words in (("shrinks", "sign"), ("converges", "verdict")):
        found = ", ".join(f"{method} {agreement(rows, verdict, method)}" for method in METHODS)
        lines.append(f"the {words} agrees, of {len(rows)} systems: {found}")
    for method in METHODS:
        wrong = [
            f"{row['system']} ({'said yes' if row['converges'] else 'said no'})"
            for row in rows
            if row["converges"] == (row[f"{method}_median"] is None)
        ]
        lines.append(f"the verdict is wrong for {method}: {', '.join(wrong) or 'nowhere'}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=512)
    parser.add_argument("--only", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    saved.add_option(parser)
    given = parser.parse_args()
    with np.errstate(all="ignore"):
        rows = [measured(name, given.seeds, given.steps) for name in given.only]
    lines = [saved.heading(), "", *told(rows)]
    print("\n".join(lines))
    if given.save:
        setting = f"{given.steps} steps, medians of {given.seeds} seeds"
        right = [agreement(rows, "converges", method) for method in METHODS]
        goals = [
            saved.target(
                f"the verdict agrees with {method}",
                "everywhere",
                f"{n} of {len(rows)}",
                n == len(rows),
            )
            for method, n in zip(METHODS, right, strict=True)
        ]
        saved.save(given.save, "lyapunov_verdict", setting, rows, goals, "\n".join(lines))


if __name__ == "__main__":
    main()
