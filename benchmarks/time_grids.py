"""Time grids beside XBraid and pyMGRIT: adaptive grids, Richardson, BDF2, coarsening in space.

    OMP_NUM_THREADS=1 python benchmarks/time_grids.py [--pymgrit PATH] [--tolerances 1e-3 1e-4 1e-5]
        [--times 3 100] [--save]

Four tables; no timings. PATH is a folder with pyMGRIT, as in mgrit_vs_pymgrit.py. XBraid is not
run: its figures are those that its repository publishes, in the headers of its examples and in
test/*.saved (2023).

- Adaptive grids: van der Pol with mu = 1000, 0..2000, from 64 first intervals; the largest error of
  x at their 65 points, beside Radau at 1e-12, and that of uniform grids with so many times as many
  steps. "not finite": Newton's method fails at the jumps.
- Grids of XBraid's ex-01-refinement, u' = -u, backward Euler, 100 steps on 0..5, error per step
  1e-6 of u, factors of at most 2 and F-cycles (-refine 2 -max_rfactor 2 -fmg). mgnet controls the
  error of every two steps, and halves at most thrice at once.
- Figures of XBraid's ex-06 (u' = -4 u - t + 1; backward Euler, SDIRK23), ex-01-expanded-bdf2 and
  ex-02 (heat equation, tolerance scaled as there) with two levels but where told, FCF, its start
  values. XBraid measures after the relaxation that follows a cycle, and counts that cycle as begun;
  so do these rows. An odd last step is not a C-point there: 18 of 19 steps replace it. ex-02 starts
  at random; the number of iterations is the median of 5 seeds.
- pyMGRIT's example_spatial_coarsening: four levels, factor 2 in time, two coarsenings in space by
  full weighting and linear interpolation, zero start; residual norms after each cycle.
"""

import argparse
import importlib.util
import logging
import statistics
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import saved
from scipy.integrate import solve_ivp

from mgnet import Hierarchy, MatrixTransfer, Solver, interpolation_matrix
from mgnet.depth import (
    OneStep,
    SpatialCoarsening,
    adaptive,
    bdf2,
    heat,
    richardson,
    van_der_pol,
)

MU, FIRST = 1000.0, 64


# Adaptive grids


def reference() -> np.ndarray:
    times = np.linspace(0.0, 2.0 * MU, FIRST + 1)
    found = solve_ivp(
        lambda t, u: [u[1], MU * (1.0 - u[0] ** 2) * u[1] - u[0]],
        (0.0, 2.0 * MU),
        [2.0, 0.0],
        "Radau",
        times,
        rtol=1e-12,
        atol=1e-12,
        jac=lambda t, u: [[0.0, 1.0], [-2.0 * MU * u[0] * u[1] - 1.0, MU * (1.0 - u[0] ** 2)]],
    )
    return found.y[0]


def oscillator_rows(tolerances: Sequence[float], times: Sequence[int]) -> list[saved.Row]:
    exact, rows = reference(), list[saved.Row]()
    for method, order in (("ros2", 2), ("sdirk3", 3)):
        problem = van_der_pol(MU, FIRST, 2.0 * MU, method)
        for rtol in tolerances:
            found = adaptive(problem, rtol=rtol, atol=0.1 * rtol, order=order).require()
            at = [np.argmin(abs(found.times - t)) for t in problem.times]
            row: saved.Row = {"table": "oscillator", "method": method, "rtol": rtol}
            row |= {"grid": "adaptive", "steps": len(found.problem.steps)}
            row |= {"grids": len(found.grids), "stepped": found.stepped, "in_a_row": found.in_a_row}
            rows.append(row | {"error": float(abs(found.states[at, 0] - exact).max())})
        first = next(row for row in rows if row["method"] == method)
        for factor in times:
            each = -(-factor * first["steps"] // FIRST)
            with np.errstate(all="ignore"):
                u = van_der_pol(MU, FIRST * each, 2.0 * MU, method).serial()[::each, 0]
            row = {"table": "oscillator", "method": method, "rtol": first["rtol"]}
            row |= {"grid": f"uniform, {factor} times", "steps": FIRST * each}
            error = float(abs(u - exact).max())
            rows.append(row | {"error": error if np.isfinite(error) else None})
    return rows


def oscillator_line(row: saved.Row) -> str:
    error = "not finite" if row["error"] is None else f"{row['error']:.1e}"
    told = f"  {row['method']:<8} {row['rtol']:<7g} {row['grid']:<20} {row['steps']:>7} {error:>11}"
    if "grids" in row:
        told += f" {row['grids']:>6} {row['stepped']:>8} {row['in_a_row']:>9}"
    return told


# Figures of XBraid


def backward_euler(t: np.ndarray, dt: np.ndarray, u: np.ndarray) -> np.ndarray:
    return u / (1.0 + dt[:, None])


def slope(u: np.ndarray, t: np.ndarray, dt: np.ndarray) -> np.ndarray:
    """Solves k = F(u + dt k, t) of ex-06."""
    return (-4.0 * u + 1.0 - t[:, None]) / (1.0 + 4.0 * dt[:, None])


def ex06_euler(t: np.ndarray, dt: np.ndarray, u: np.ndarray) -> np.ndarray:
    return u + dt[:, None] * slope(u, t + dt, dt)


def ex06_sdirk(t: np.ndarray, dt: np.ndarray, u: np.ndarray) -> np.ndarray:
    g, h = 1.0 - 0.5**0.5, dt[:, None]
    first = slope(u, t + g * dt, g * dt)
    second = slope(u + (1.0 - 2.0 * g) * h * first, t + (1.0 - g) * dt, g * dt)
    return u + 0.5 * h * (first + second)


def ex06_exact(t: np.ndarray) -> np.ndarray:
    return (-4.0 * t + 11.0 * np.exp(-4.0 * t) + 5.0) / 16.0


def norm_after(hierarchy: Hierarchy, cycle: str, cycles: int, guess: np.ndarray) -> float:
    """The residual norm after so many cycles and the FCF-relaxation that begins the next one."""
    equation = hierarchy[0].operator
    solver = Solver(hierarchy, cycle, rtol=0.0, max_cycles=max(cycles, 1))
    u = solver.solve(u=guess).value if cycles else guess
    u = equation.relax_c(equation.relax(u, None), None, 1.0)
    return float(np.linalg.norm(equation.residual(u, None)))


def started(problem: OneStep, value: float) -> np.ndarray:
    guess = np.full_like(problem.guess(), value)
    guess[0] = problem.initial
    return guess


def refinement_rows() -> list[saved.Row]:
    problem = OneStep(backward_euler, np.ones(1), np.full(50, 0.1))
    found = adaptive(problem, rtol=1e-6, atol=0.0, order=1).require()
    ours = " ".join(str(grid.steps) for grid in found.grids)
    row = {"table": "XBraid", "example": "ex-01-refinement", "figure": "grids", "digits": False}
    return [row | {"published": "100 200 400 800 1600 3200 6400", "ours": ours}]


def ex06_rows() -> list[saved.Row]:
    named: saved.Row = {"table": "XBraid", "example": "ex-06", "digits": True}
    problem = OneStep(ex06_euler, np.ones(1), np.full(256, 0.5 / 256))
    value = float(problem.serial()[-1, 0])
    rows = [named | {"figure": "u(0.5), 256 steps"}, named | {"figure": "its error"}]
    rows[0] |= {"published": "2.812689592472e-01", "ours": f"{value:.12e}"}
    error = value - float(ex06_exact(np.array(0.5)))
    rows[1] |= {"published": "7.25952022e-04", "ours": f"{error:.8e}"}
    for name, step, count, published in (
        ("Euler", ex06_euler, 4, "0.000000e+00"),
        ("SDIRK23", ex06_sdirk, 1, "8.237048e-05"),
    ):
        problem = OneStep(step, np.ones(1), np.full(18, 0.5 / 19))
        hierarchy = problem.hierarchy(2, 2, "FCF")
        norm = norm_after(hierarchy, "V(1,1)", count, started(problem, 0.456))
        row = named | {"figure": f"{name}, 19 steps, residual in iteration {count + 1}"}
        rows.append(row | {"published": published, "ours": f"{norm:.6e}"})
    return rows


def richardson_rows() -> list[saved.Row]:
    """No published figure: errors of the plain and of the extrapolated solution."""
    rows = []
    for name, step, order in (("Euler", ex06_euler, 1), ("SDIRK23", ex06_sdirk, 2)):
        plain, better = [], []
        for steps in (64, 128, 256):
            found = richardson(OneStep(step, np.ones(1), np.full(steps, 0.5 / steps)), order=order)
            exact = ex06_exact(found.times)[:, None]
            better.append(float(abs(found.states - exact).max()))
            plain.append(float(abs(found.states + found.errors - exact).max()))
        row: saved.Row = {"table": "Richardson", "method": name, "order": order}
        row |= {"plain": plain[-1], "extrapolated": better[-1]}
        row |= {"plain_order": float(np.log2(plain[-2] / plain[-1]))}
        rows.append(row | {"extrapolated_order": float(np.log2(better[-2] / better[-1]))})
    return rows


def bdf2_rows() -> list[saved.Row]:
    def solve(
        t: np.ndarray, weight: np.ndarray, known: np.ndarray, start: np.ndarray
    ) -> np.ndarray:
        return known / (1.0 + weight[:, None])

    named: saved.Row = {"table": "XBraid", "example": "ex-01-expanded-bdf2", "digits": True}
    second = np.array([np.exp(-0.5)])
    last = float(bdf2(solve, np.ones(1), 5, 0.5, second=second).serial()[-1, 1, 0])
    rows = [named | {"figure": "u(5.5), 10 steps", "published": "1.63265357113e-03"}]
    rows[0] |= {"ours": f"{last:.11e}"}
    for pairs, factor, cycles, published in (
        (50, 2, 2, "6.064817e-06"),
        (50, 2, 5, "4.729810e-11"),
        (5000, 10, 1, "3.276738e-11"),
    ):
        problem = bdf2(solve, np.ones(1), pairs, 0.5, second=second)
        guess = started(problem, 0.456)
        norm = norm_after(problem.hierarchy(2, factor, "FCF"), "nested V(1,1)", cycles, guess)
        row = named | {"figure": f"{pairs} pairs, factor {factor}, residual in {cycles + 2}"}
        rows.append(row | {"published": published, "ours": f"{norm:.6e}"})
    return rows


def ex02(points: int, steps: int) -> OneStep:
    """u_t = u_xx + f on 0..pi, u = sin x cos t, with so many points, ends included."""
    x = np.linspace(0.0, np.pi, points)[1:-1]
    inner = heat(points - 2, steps, conductivity=np.pi**-2)

    def step(t: np.ndarray, dt: np.ndarray, u: np.ndarray) -> np.ndarray:
        new = (t + dt)[:, None]
        return inner.step(t, dt, u + dt[:, None] * np.sin(x) * (np.cos(new) - np.sin(new)))

    return OneStep(step, np.sin(x), np.full(steps, 2.0 * np.pi / steps))


def in_space(points: int, steps: int, levels: int) -> list[SpatialCoarsening | None]:
    """Half the intervals on every level, down to 2."""
    found: list[SpatialCoarsening | None] = []
    for _ in range(levels - 1):
        points = (points - 1) // 2 + 1
        if points < 3:
            found.append(None)
            continue
        transfer = MatrixTransfer(interpolation_matrix(points - 2))
        found.append(SpatialCoarsening(ex02(points, steps).step, transfer))
    return found


def ex02_iterations(steps: int, levels: int, factor: int, letter: str, space: bool) -> int:
    problem, points, counts = ex02(33, steps), 33, list[int]()
    spatial = in_space(points, steps, levels) if space else ()
    scale = np.sqrt(2.0 * np.pi / (steps - 1)) * np.sqrt(np.pi / (points - 1))
    for seed in range(5):
        guess = problem.guess()
        guess[1:] = np.random.default_rng(seed).random(guess[1:].shape)
        hierarchy, cycles = problem.hierarchy(levels, factor, ("FCF",), spatial=spatial), 0
        while norm_after(hierarchy, f"{letter}(1,1)", cycles, guess) > 1e-7 / scale:
            cycles += 1
        counts.append(cycles + 1)
    return int(statistics.median(counts))


def ex02_rows() -> list[saved.Row]:
    rows = []
    for steps, levels, factor, letter, space, published in (
        (256, 7, 2, "V", False, 7),
        (256, 7, 2, "F", False, 6),
        (128, 2, 2, "V", True, 6),
        (128, 8, 2, "V", True, 6),
        (128, 2, 4, "V", True, 6),
    ):
        words = f"{steps} steps, {levels} levels, factor {factor}, {letter}"
        row: saved.Row = {"table": "XBraid", "example": "ex-02", "digits": False}
        row |= {"figure": f"{words}{', in space' if space else ''}, iterations"}
        ours = ex02_iterations(steps, levels, factor, letter, space)
        rows.append(row | {"published": str(published), "ours": str(ours)})
    return rows


# Coarsening in space as pyMGRIT does


def pymgrit_problem(points: int, steps: int) -> OneStep:
    """u_t = u_xx + f on 0..2, u = sin(pi x) cos t, for t = 0..2."""
    x = np.linspace(0.0, 2.0, points)[1:-1]
    inner = heat(points - 2, steps, conductivity=0.25)

    def step(t: np.ndarray, dt: np.ndarray, u: np.ndarray) -> np.ndarray:
        new = (t + dt)[:, None]
        force = np.sin(np.pi * x) * (np.pi**2 * np.cos(new) - np.sin(new))
        return inner.step(t, dt, u + dt[:, None] * force)

    return OneStep(step, np.sin(np.pi * x), np.full(steps, 2.0 / steps))


def our_history() -> list[float]:
    problem, spatial = pymgrit_problem(17, 128), list[SpatialCoarsening | None]()
    for points in (9, 5):
        transfer = MatrixTransfer(interpolation_matrix(points - 2))
        spatial.append(SpatialCoarsening(pymgrit_problem(points, 128).step, transfer))
    hierarchy = problem.hierarchy(4, 2, ("FCF",), spatial=[*spatial, None])
    solver = Solver(hierarchy, "V(1,1)", rtol=0.0, atol=1e-7)
    return list(solver.solve(u=started(problem, 0.0)).require().residual_norms[1:])


def their_history() -> list[float]:
    from pymgrit.core.grid_transfer import GridTransfer  # type: ignore
    from pymgrit.core.grid_transfer_copy import GridTransferCopy  # type: ignore
    from pymgrit.core.mgrit import Mgrit  # type: ignore
    from pymgrit.heat.heat_1d import Heat1D, VectorHeat1D  # type: ignore

    class Halves(GridTransfer):
        def restriction(self, u: Any) -> Any:
            fine = u.get_values()
            return of(0.25 * fine[:-2:2] + 0.5 * fine[1:-1:2] + 0.25 * fine[2::2])

        def interpolation(self, u: Any) -> Any:
            return of(interpolation_matrix(len(u.get_values())) @ u.get_values())

    def of(values: np.ndarray) -> Any:
        vector = VectorHeat1D(len(values))
        vector.set_values(values)
        return vector

    def force(x: np.ndarray, t: float) -> np.ndarray:
        return np.sin(np.pi * x) * (np.pi**2 * np.cos(t) - np.sin(t))

    grids = [np.linspace(0.0, 2.0, 129)[:: 2**k] for k in range(4)]
    problems = [
        Heat1D(
            x_start=0.0,
            x_end=2.0,
            nx=points,
            a=1.0,
            rhs=force,
            init_cond=lambda x: np.sin(np.pi * x),
            t_interval=grid,
        )
        for points, grid in zip((17, 9, 5, 5), grids, strict=True)
    ]
    solver = Mgrit(
        problem=problems,
        transfer=[Halves(), Halves(), GridTransferCopy()],
        nested_iteration=False,
        tol=1e-7,
        logging_lvl=logging.WARNING,
    )
    return [float(value) for value in solver.solve()["conv"]]


def space_rows(peer: bool) -> list[saved.Row]:
    histories = {"mgnet": our_history()} | ({"pyMGRIT": their_history()} if peer else {})
    return [
        {"table": "space", "method": name, "iterations": len(norms)}
        | {"norms": " ".join(f"{norm:.6e}" for norm in norms)}
        for name, norms in histories.items()
    ]


def targets(rows: list[saved.Row]) -> list[saved.Row]:
    found = []
    for method in ("ros2", "sdirk3"):
        own = [row for row in rows if row["table"] == "oscillator" and row["method"] == method]
        first, uniform = own[0], [row for row in own if "grids" not in row]
        enough = [row for row in uniform if (row["error"] or np.inf) <= first["error"]]
        least = min([row["steps"] for row in enough], default=np.inf)
        most = max(row["steps"] for row in uniform)
        told = f"{least / first['steps']:.3g}" if enough else f"over {most / first['steps']:.0f}"
        goal = "at least 3 times"
        name = f"uniform steps for the error of the adaptive grid, {method}"
        found.append(saved.target(name, goal, f"{told} times", most >= 3 * first["steps"]))
        found[-1]["met"] = bool(found[-1]["met"] and least >= 3 * first["steps"])
    digits = [row for row in rows if row["table"] == "XBraid" and row["digits"]]
    same = sum(row["published"] == row["ours"] for row in digits)
    name = "published figures of XBraid, digit for digit"
    found.append(saved.target(name, "all", f"{same} of {len(digits)}", same == len(digits)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pymgrit", metavar="PATH")
    parser.add_argument("--tolerances", type=float, nargs="+", default=[1e-3, 1e-4, 1e-5])
    parser.add_argument("--times", type=int, nargs="+", default=[3, 100])
    saved.add_option(parser)
    given = parser.parse_args()
    if given.pymgrit:
        sys.path.append(given.pymgrit)
    peer = importlib.util.find_spec("pymgrit") is not None
    setting = f"tolerances {' '.join(f'{t:g}' for t in given.tolerances)}"
    lines = [setting, saved.heading()]
    if not peer:
        lines.append(
            "pyMGRIT is not installed: mgnet alone (pip install pymgrit, or --pymgrit PATH)"
        )
    print("\n".join(lines), flush=True)
    rows = oscillator_rows(given.tolerances, given.times)
    head = f"  {'method':<8} {'rtol':<7} {'grid':<20} {'steps':>7} {'error':>11}"
    head += f" {'grids':>6} {'stepped':>8} {'in a row':>9}"
    parts = ["\nvan der Pol, mu = 1000", head, *map(oscillator_line, rows)]
    published = [*refinement_rows(), *ex06_rows(), *bdf2_rows(), *ex02_rows()]
    parts += ["\nfigures of XBraid: published, then mgnet's"]
    for row in published:
        parts.append(f"  {row['example']}, {row['figure']}")
        parts += [f"    {row['published']}", f"    {row['ours']}"]
    better = richardson_rows()
    parts += ["\nRichardson extrapolation, ex-06, 256 steps: largest error, order from 128 to 256"]
    for row in better:
        told = f"plain {row['plain']:.1e} ({row['plain_order']:.2f})"
        told += f", extrapolated {row['extrapolated']:.1e} ({row['extrapolated_order']:.2f})"
        parts.append(f"  {row['method']:<8} {told}")
    space = space_rows(peer)
    parts += ["\nheat equation, four levels, coarser in space on two: residual norms"]
    parts += [f"  {row['method']:<8} {row['norms']}" for row in space]
    rows += published + better + space
    found = targets(rows)
    parts += ["", *(f"{t['name']}: {t['measured']} (target {t['target']})" for t in found)]
    print("\n".join(parts), flush=True)
    if given.save:
        saved.save(given.save, "time_grids", setting, rows, found, "\n".join([*lines, *parts]))


if __name__ == "__main__":
    main()
