"""`mgnet fit --compare` on the density of carbon dioxide, several seeds.

    python benchmarks/fit_co2.py [seeds, 5] [seconds, 20] [--save [FOLDER]]

A seed, from 1 on, draws the 8000 training rows (the other 12000 are held out), the initial weights
and the settings that boosting tries. The networks are those of `make demo`, whose settings were
chosen on seeds 0 and 11. Standardized held-out MSE. The KAN may end before its seconds are over, by
its validation rows; the others get all the seconds.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command does

import argparse
import statistics
from pathlib import Path

import saved

from mgnet.app.comparison import baselines
from mgnet.app.data import Settings, Trained
from mgnet.app.fit import fit
from mgnet.app.table import read_table, split

TABLE = Path(__file__).parent.parent / "demos" / "data" / "co2_density.csv"


def measured(seeds: int, seconds: float) -> list[saved.Row]:
    table = read_table(TABLE, "rho_kg_m3")
    results: dict[str, list[Trained]] = {}
    for seed in range(1, seeds + 1):
        data = split(table, 0.6, seed)
        settings = Settings((5, 5), degree=5, levels=3, seed=seed, seconds=seconds, held_out=0.6)
        for trained in (fit(data, settings).trained, *baselines(data, settings, seconds)):
            results.setdefault(trained.name, []).append(trained)
    return [
        {
            "method": name,
            "error_median": statistics.median(run.held_loss for run in runs),
            "error_least": min(run.held_loss for run in runs),
            "error_largest": max(run.held_loss for run in runs),
            "training_median": statistics.median(run.train_loss for run in runs),
            "seconds": statistics.median(run.seconds for run in runs),
            "parameters": runs[0].parameters,
        }
        for name, runs in results.items()
    ]


def judged(rows: list[saved.Row]) -> list[saved.Row]:
    own, best = rows[0], min(rows[1:], key=lambda row: row["error_median"])
    error, lowest = own["error_median"], best["error_median"]
    limit, below = "at most 1e-5", f"below {lowest:.1e} ({best['method']})"
    names = "held-out MSE over the variance, KAN by multigrid", "held-out MSE below every other's"
    return [
        saved.target(names[0], limit, f"{error:.1e}", error <= 1e-5),
        saved.target(names[1], below, f"{error:.1e}", error < lowest),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("seeds", type=int, nargs="?", default=5)
    parser.add_argument("seconds", type=float, nargs="?", default=20.0, help="per method")
    saved.add_option(parser)
    told = parser.parse_args()
    rows = measured(told.seeds, told.seconds)
    lines = [saved.heading(), f"{told.seeds} seeds, at most {told.seconds:g} s each", ""]
    lines.append(f"{'':<28} {'held-out MSE':^26} {'training':>9} {'':>8} {'parameters':>11}")
    head = f"{'median':>8} {'least':>8} {'largest':>8}"
    lines.append(f"{'':<28} {head} {'median':>9} {'seconds':>8}")
    for row in rows:
        held = [row[f"error_{kind}"] for kind in ("median", "least", "largest")]
        lines.append(
            f"{row['method']:<28} {held[0]:>8.1e} {held[1]:>8.1e} {held[2]:>8.1e} "
            f"{row['training_median']:>9.1e} {row['seconds']:>8.1f} {row['parameters']:>11}"
        )
    text = "\n".join(lines)
    print(text)
    if told.save:
        setting = f"{told.seeds} seeds, at most {told.seconds:g} s each"
        saved.save(told.save, "fit_co2", setting, rows, judged(rows), text)


if __name__ == "__main__":
    main()
