"""Which other methods `mgnet fit --compare` trains, and for how long."""

from __future__ import annotations

from collections.abc import Iterator

from mgnet.app.fit import Data, Settings, Trained

__all__ = ["rivals"]

MOST_SPLINE_INPUTS = 3  # a tensor product grows like knots**inputs


def rivals(data: Data, settings: Settings, seconds: float) -> Iterator[Trained]:
    """Train one method after the other; yield each when it is ready.

    Parameters
    ----------
    data : Data
    settings : Settings
        Seed, and the network that the single-level rivals train.
    seconds : float
        For each of them.

    Yields
    ------
    Trained

    Raises
    ------
    ModuleNotFoundError
        Without scikit-learn.
    """
    from mgnet.app.rivals import boosting, spline  # pyright: ignore

    if data.x.shape[1] <= MOST_SPLINE_INPUTS:
        yield spline(data, seconds)
    yield boosting(data, seconds, settings.seed)
