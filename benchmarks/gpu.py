"""Everything of mgnet that runs on a GPU, checked and timed in one run of at most eight minutes.

    python benchmarks/gpu.py [--parts splines newton cycle layers burgers compiled]
        [--seconds 400] [--dry-run] [--save]

Every part begins with checks on random inputs against float64 on the CPU, in memory that held NaN
before; what is wrong is not timed. Then: spline layers 64 -> 64 of 5 to 512 intervals on 65 536
samples beside plain torch, Linear + SiLU and efficient-kan's formula; 64 and 1024 layers of width
64, one cycle of MGRIT and serial passes, eager, compiled and as CUDA graphs; a step of
Levenberg-Marquardt with 1365 parameters and 9216 rows, and a V-cycle of PyAMG's hierarchy, beside
the CPU of the same machine; errors over seconds on Burgers' equation. Times are medians of calls
between two events of the device, each beside its floor: bytes over the measured bandwidth or
operations over the measured rate, whichever takes longer.

A part that fails, or for which no time is left, is named in the table and does not stop the others.
Results are saved after each part, and a process that hangs ends itself.
--dry-run runs the same steps on the CPU in tiny sizes, under TRITON_INTERPRET=1 with Triton's
kernels; its times mean nothing, and benchmarks/results never gets them.
"""

import argparse
import faulthandler
import time
import traceback
from collections.abc import Callable, Iterator

import gpu_layers
import gpu_solvers
import gpu_splines
import saved
import torch
from gpu_clock import Machine, Row, bandwidth, rate

LATE = 70.0  # seconds after the last part may begin: a compiler takes most of them
SECTIONS: dict[str, Callable[[Machine], Iterator[Row]]] = {
    "splines": gpu_splines.passes,
    "newton": gpu_solvers.gauss_newton,
    "cycle": gpu_solvers.v_cycle,
    "layers": gpu_layers.passes,
    "burgers": gpu_solvers.burgers_error,
    "compiled": gpu_layers.compiled_passes,
}


def rows_of(name: str, machine: Machine, ends: float) -> list[Row]:
    """Those of one part, as far as it gets until `ends`."""
    rows: list[Row] = []
    try:
        if time.perf_counter() > ends:
            raise TimeoutError("no time is left for it")
        for row in SECTIONS[name](machine):
            rows.append(row)
            print("  " + line(row), flush=True)
            if time.perf_counter() > ends:
                raise TimeoutError("no time is left for the rest")
    except Exception as failure:  # one part must not lose the others
        if not isinstance(failure, TimeoutError):
            traceback.print_exc()
        told = f"{type(failure).__name__}: {failure}".splitlines()[0]
        rows.append({"part": "failures", "case": name, "failure": told})
        print("  " + line(rows[-1]), flush=True)
    if not rows:
        print("  nothing to do without a GPU", flush=True)
    return rows


def line(row: Row) -> str:
    names = {"ms": "{:.4g} ms", "floor_ms": "floor {:.4g} ms", "seconds": "{:.3g} s"}
    names |= {"error": "error {:.1e}", "failure": "FAILED: {}"}
    told = [str(row[key]) for key in ("case", "grid", "method") if key in row]
    return ", ".join(told + [form.format(row[key]) for key, form in names.items() if key in row])


def ms(rows: list[Row], **wanted: object) -> float | None:
    """The least time of the rows with these entries; None without one."""
    own = [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]
    return min((row["ms"] for row in own if "ms" in row), default=None)


def ratio(name: str, goal: str, limit: float, pairs: list[tuple[float | None, float | None]],
          at_least: bool) -> list[saved.Row]:  # fmt: skip
    """A target for the worst of the ratios; none where a time is missing."""
    found = [a / b for a, b in pairs if a is not None and b is not None]
    if not found:
        return []
    worst = min(found) if at_least else max(found)
    met = worst >= limit if at_least else worst <= limit
    return [saved.target(name, goal, f"{worst:.3g}", met)]


def targets(rows: list[Row]) -> list[saved.Row]:
    both, second = "forward + backward", "second derivatives"
    spline = [row for row in rows if row["part"] == "spline layer"]
    grids = sorted({row["grid"] for row in spline})
    kernels = {"part": "spline layer", "method": "Triton"}

    def against(method: str) -> list[tuple[float | None, float | None]]:
        return [(ms(spline, case=both, grid=n, method=method),
                 ms(spline, case=both, grid=n, **kernels)) for n in grids]  # fmt: skip

    floors = [(row.get("ms"), row.get("floor_ms")) for row in spline if row["method"] == "Triton"]
    ours = [ms(spline, case=both, grid=n, **kernels) for n in grids]
    flat = [(t, ours[0]) for t in ours]
    again = [(ms(spline, case=second, grid=n, **kernels), ms(spline, case=both, grid=n, **kernels))
             for n in grids]  # fmt: skip
    turned = [(b, a) for a, b in against("Linear + SiLU")]
    found = ratio("plain torch over Triton", "at least 10", 10.0, against("plain torch"), True)
    found += ratio("Triton over Linear + SiLU", "at most 4", 4.0, turned, False)
    found += ratio("Triton, any grid over grid 5", "at most 1.5", 1.5, flat, False)
    found += ratio("second derivatives over first", "at most 3", 3.0, again, False)
    found += ratio("Triton over the floor", "at most 3", 3.0, floors, False)
    cycle = ms(rows, layers=1024, method="one cycle, CUDA graph")
    marches = [ms(rows, layers=1024, method=f"{name}, CUDA graph")
               for name in ("march", "loop by hand")]  # fmt: skip
    march = min((t for t in marches if t is not None), default=None)
    eager = ms(rows, layers=1024, method="PyTorch eager")
    found += ratio("1024 layers: eager over one cycle", "at least 8", 8.0, [(eager, cycle)], True)
    found += ratio(
        "1024 layers: march as a CUDA graph over one cycle", "at least 1.5", 1.5, [(march, cycle)],
        True,
    )  # fmt: skip
    steps = [row for row in rows if row.get("case", "").startswith("LM step") and "ms" in row]
    pair = ms(steps, method="CPU"), ms(steps, method="device")
    found += ratio("LM step: CPU over device", "at least 10", 10.0, [pair], True)
    errors = [row for row in rows if row["part"] == "Burgers" and row["seconds"] <= 17.0]
    if errors:
        best = min(errors, key=lambda row: row["error"])
        told = f"{best['error']:.1e} in {best['seconds']:.1f} s"
        met = best["error"] <= 3.9e-7
        found.append(saved.target("Burgers, nu = 0.01", "3.9e-07 in 15.6 s (DSGNAR)", told, met))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--seconds", type=float, default=400.0, help="after them no part begins")
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes, on the CPU")
    saved.add_option(parser)
    given = parser.parse_args()
    if given.dry_run and given.save == saved.RESULTS:
        parser.error("--dry-run is not a measurement; give --save another folder")
    if not (given.dry_run or torch.cuda.is_available()):
        print("no GPU was found: nothing is measured (--dry-run tries the script out)")
        return
    # A device that hangs cannot be interrupted: the process ends, and tells where it was.
    faulthandler.dump_traceback_later(given.seconds + LATE, exit=True)
    machine = Machine(torch.device("cpu" if given.dry_run else "cuda"), given.dry_run)
    began, rows = time.perf_counter(), list[Row]()
    single, double = (rate(machine, dtype) / 1e12 for dtype in (torch.float32, torch.float64))
    speed = f"{bandwidth(machine) / 1e9:.4g} GB/s, {single:.3g} and {double:.3g} TFLOP/s in "
    speed += "float32 and float64"
    head = [saved.heading(), f"{machine.name}, CUDA {torch.version.cuda}, measured: {speed}"]
    kind = "a dry run: times mean nothing" if given.dry_run else "medians of events"
    setting = f"{machine.name}, CUDA {torch.version.cuda}, {speed}; {kind}"
    print("\n".join(head), flush=True)
    for name in given.parts:
        print(name, flush=True)
        rows += rows_of(name, machine, began + given.seconds)
        goals = [] if given.dry_run else targets(rows)
        if given.save:  # after every part: the next one may end the process
            lines = [*head, *map(line, rows), *saved.verdicts(goals)]
            saved.save(given.save, "gpu", setting, rows, goals, "\n".join(lines))
    ended = [] if given.dry_run else saved.verdicts(targets(rows))
    print("\n".join(ended or ["a dry run: its times mean nothing"]))
    print(f"{time.perf_counter() - began:.0f} s", flush=True)
    faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main()
