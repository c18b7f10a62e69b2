"""`mgnet fit --compare` on the density of carbon dioxide, several seeds.

    python benchmarks/fit_co2.py [seeds, 5] [seconds, 20]

A seed, from 1 on, draws the 8000 training rows (the other 12000 are held out), the initial weights
and the settings that boosting tries. The networks are those of `make demo`, whose settings were
chosen on seeds 0 and 11. Standardised held-out MSE. The KAN may end before its seconds are over, by
its validation rows; the others get all the seconds.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command does

import platform
import statistics
import sys
from pathlib import Path

import torch

from mgnet.app.comparison import rivals
from mgnet.app.fit import Settings, Trained, fit
from mgnet.app.table import read_table, split

TABLE = Path(__file__).parent.parent / "demos" / "data" / "co2_density.csv"


def main() -> None:
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 20.0
    table = read_table(TABLE, "rho_kg_m3")
    print(
        f"{seeds} seeds, {seconds:g} s each, {os.cpu_count()} cores, {torch.get_num_threads()} ",
        end="",
    )
    print(f"threads, {platform.machine()}, PyTorch {torch.__version__}\n", flush=True)
    results: dict[str, list[Trained]] = {}
    for seed in range(1, seeds + 1):
        data = split(table, 0.6, seed)
        settings = Settings((5, 5), degree=5, levels=3, seed=seed, seconds=seconds, held_out=0.6)
        for trained in (fit(data, settings).trained, *rivals(data, settings, seconds)):
            results.setdefault(trained.name, []).append(trained)
    head = f"{'median':>8} {'least':>8} {'largest':>8}"
    print(f"{'':<28} {'held-out MSE':^26} {'training':>9} {'':>8} {'parameters':>11}")
    print(f"{'':<28} {head} {'median':>9} {'seconds':>8}")
    for name, runs in results.items():
        held = sorted(run.held_mse for run in runs)
        train = statistics.median(run.train_mse for run in runs)
        took = statistics.median(run.seconds for run in runs)
        print(
            f"{name:<28} {statistics.median(held):>8.1e} {held[0]:>8.1e} {held[-1]:>8.1e} "
            f"{train:>9.1e} {took:>8.1f} {runs[0].parameters:>11}"
        )


if __name__ == "__main__":
    main()
