"""Pictures with matplotlib (extra `app`): cycles, convergence, training, the edges of a KAN."""

from typing import TYPE_CHECKING, Any

from mgnet.plot.plots import plot_convergence, plot_records, plot_schedule

if TYPE_CHECKING:
    from mgnet.plot.edges import plot_edges

__all__ = ["plot_convergence", "plot_edges", "plot_records", "plot_schedule"]


def __getattr__(name: str) -> Any:
    if name != "plot_edges":
        raise AttributeError(f"module 'mgnet.plot' has no attribute '{name}'")
    from mgnet.plot.edges import plot_edges  # the only one that needs torch

    return plot_edges
