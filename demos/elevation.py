"""Rough data: matplotlib's elevation sample, for which knot levels help less.

python demos/elevation.py [folder for the pictures] [seconds per training]
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting threads should not spin

import sys
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")

sys.path.insert(0, str(Path(__file__).parent / "data"))
from make_elevation import NAMES, elevation_table  # pyright: ignore

from mgnet.app.comparison import baselines
from mgnet.app.data import Settings
from mgnet.app.fit import fit
from mgnet.app.pictures import plot_fit, plot_training
from mgnet.app.table import Table, split
from mgnet.app.terminal import result_table
from mgnet.options import init

arguments = init(sys.argv)
out = Path(arguments[1] if len(arguments) > 1 else "out/elevation")
seconds = float(arguments[2]) if len(arguments) > 2 else 5.0
out.mkdir(parents=True, exist_ok=True)

rows = elevation_table()
rows = rows[np.random.default_rng(0).choice(len(rows), 20_000, replace=False)]
table = Table.of_numbers(NAMES[:2], NAMES[2], rows[:, :2], rows[:, 2])
data = split(table, held_out=0.6, seed=0)
settings = Settings(hidden=(12,), seconds=seconds, held_out=0.6)
print(f"{len(data.y)} training rows of measured terrain, {len(data.y_held)} held out\n")
results = [fit(data, settings).trained, *baselines(data, settings, seconds)]
print(result_table(results, data))
best = min(results, key=lambda result: result.held_loss).name
ratio = min(r.held_loss for r in results[1:3]) / results[0].held_loss
print(
    f"\nBest on held-out rows: {best}. Terrain is rough on every scale, so coarse knots say little "
    f"about fine ones:\nthe same network on one level alone ends at {ratio:.2f} times the error of "
    "multigrid. On the smooth density\nof carbon dioxide (make demo) the levels gain orders of "
    "magnitude.\n"
)
for name, figure in (
    ("fit", plot_fit(data, results[0].predict)),
    ("convergence", plot_training(results)),
):
    figure.savefig(out / f"{name}.png", dpi=150)
    print(f"wrote {out / name}.png")
