"""Run the benchmarks one after the other: in small, or as they are published.

    python benchmarks/run.py [--full] [--only poisson_vs_pyamg ngd ...]

In small: few seeds and short windows, some twenty minutes on two cores; what is printed is kept in
`out/bench`, and so are the rows where a script can save them elsewhere. With --full: the published
windows, many hours, over the published results; rows of peers that are not given are lost there.
Peers and data that are not installed are given in the environment, as `EFFICIENT_KAN=DIR
FAST_KAN=DIR PYKAN=DIR PYMGRIT=DIR TORCHBRAID=DIR MNIST=FILE`.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
OUT = HERE.parent / "out" / "bench"
SMALL = {  # script -> arguments; in the order of the page
    "poisson_vs_pyamg": "511",
    "knots_speed": "--grids 5 32",
    "knots_regression": "--seeds 1",
    "fit_co2": "1 5",
    "estimators": "1",
    "pinn": "--problems poisson interface regression --rows nested LM --seeds 1 --seconds 5",
    "newton_multigrid": "--widths 2,6,1 --intervals 8 16 32 --rights 2",
    "guarded_cycles": "--seconds 1 --seeds 1",
    "adaptive_basis": "--seconds 0.3 --seeds 2",
    "ngd": "--epochs 5 --seconds 0.5 --seeds 1",
    "depth_vs_serial": "--seeds 1 --start smooth --cases 0 2",
    "mgrit_vs_pymgrit": "--rounds 1",
    "layer_ranks": "--rounds 1 --cases 0 2",
    "sample_parallel": "--samples 20000 --rounds 1",
    "depth_training": "--steps 100 --seeds 2 --data peaks digits",
    "depth_refinement": "--seeds 2",
    "poisson_convergence": "8",
}
FULL = {
    "fit_co2": "5 10",
    "guarded_cycles": "--seconds 2",
    "adaptive_basis": "--seconds 2",
    "ngd": "--seconds 1 2",
    "depth_vs_serial": "--threads 1 2",
}
PEERS = {  # script -> option and the variable that gives its value
    "knots_speed": {"efficient-kan": "EFFICIENT_KAN", "fast-kan": "FAST_KAN", "pykan": "PYKAN"},
    "knots_regression": {"pykan": "PYKAN"},
    "depth_vs_serial": {"torchbraid": "TORCHBRAID"},
    "mgrit_vs_pymgrit": {"pymgrit": "PYMGRIT"},
    "ngd": {"mnist": "MNIST"},
    "depth_training": {"mnist": "MNIST"},
}
RANKS = {"layer_ranks": 2, "sample_parallel": 2}  # started by mpiexec
TWO_THREADS = {"fit_co2", "knots_speed", "depth_vs_serial"}  # they set their own, or use both
# These save without a folder, or join what they find there.
ONLY_HERE = {"pinn", "adaptive_basis", "ngd", "newton_multigrid", "estimators", "sample_parallel"}
NEVER = {"fit_co2"}


def arguments(name: str, full: bool) -> list[str]:
    found = (FULL.get(name, "") if full else SMALL[name]).split()
    for option, variable in PEERS.get(name, {}).items():
        if variable in os.environ:
            found += [f"--{option}", os.environ[variable]]
    if full:
        return found if name in NEVER else [*found, "--save"]
    return found if name in ONLY_HERE | NEVER else [*found, "--save", str(OUT)]


def run(name: str, full: bool) -> bool:
    """Show what a script prints, and keep it; False where it failed."""
    command = [sys.executable, "-u", str(HERE / f"{name}.py"), *arguments(name, full)]
    if name in RANKS:
        launcher = Path(sys.executable).with_name("mpiexec")  # of tools/setup_petsc.py
        if not launcher.is_file():
            print(f"\n== {name}: left out, it needs PETSc and MPI (make test installs them)")
            return True
        command[:0] = [str(launcher), "-n", str(RANKS[name])]
    environment = dict(os.environ)
    if name not in TWO_THREADS:
        environment["OMP_NUM_THREADS"] = "1"
    print(f"\n== {name} {' '.join(arguments(name, full))}", flush=True)
    began, printed = time.perf_counter(), []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment, cwd=HERE.parent
    ) as process:
        for line in process.stdout or []:
            print(line, end="", flush=True)
            printed.append(line)
    print(f"== {name}: {time.perf_counter() - began:.0f} s", flush=True)
    if not full:
        (OUT / f"{name}.txt").write_text("".join(printed))
    return process.returncode == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--only", nargs="+", choices=SMALL, default=list(SMALL))
    given = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    failed = [name for name in given.only if not run(name, given.full)]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
