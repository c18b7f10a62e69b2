"""Write matplotlib's elevation sample as a table: longitude, latitude, height.

Run as `python demos/data/make_elevation.py [elevation.csv]`.
"""

import sys
from typing import Any

import matplotlib.cbook
import numpy as np

NAMES = "longitude_deg", "latitude_deg", "height_m"


def elevation_table() -> np.ndarray:
    """Return one row (longitude, latitude, height) per pixel of the 344 x 403 grid."""
    sample: Any = matplotlib.cbook.get_sample_data("jacksboro_fault_dem.npz")
    height = sample["elevation"].astype(float)
    rows, columns = height.shape
    longitude = np.linspace(sample["xmin"], sample["xmax"], columns)
    latitude = np.linspace(sample["ymin"], sample["ymax"], rows)  # ymin is the northern edge
    across, along = np.meshgrid(longitude, latitude)
    return np.column_stack([across.ravel(), along.ravel(), height.ravel()])


def main() -> None:
    file = sys.argv[1] if len(sys.argv) > 1 else "elevation.csv"
    table = elevation_table()
    np.savetxt(file, table, "%.8g", ",", header=",".join(NAMES), comments="")
    print(f"{file}: {len(table)} rows")


if __name__ == "__main__":
    main()
