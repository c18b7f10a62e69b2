"""The kinds of coarse layers."""

from __future__ import annotations

from mgnet.limits import is_one_of, shown

__all__ = ["COARSE", "check_coarse"]

COARSE = "mean", "first", "fused", "identity"  # see `LayerParallel`


def check_coarse(owner: str, coarse: str) -> None:
    """Raise an error unless the argument is a kind of coarse layer.

    Raises
    ------
    ValueError
        If the kind is unknown.

    Examples
    --------
    >>> check_coarse("plan", "injected")
    Traceback (most recent call last):
    ValueError: plan got coarse 'injected'; it must be one of mean, first, fused, identity
    """
    if not is_one_of(coarse, COARSE):
        raise ValueError(
            f"{owner} got coarse {shown(coarse)}; it must be one of {', '.join(COARSE)}"
        )
