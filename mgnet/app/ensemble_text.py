"""Describe ensembles in words: their members, models, splines and losses."""

from __future__ import annotations

from collections.abc import Sequence

from mgnet.estimators.evidence.ensemble import Ensemble

__all__ = ["ensemble_text"]


def ensemble_text(ensembles: Sequence[Ensemble], outputs: Sequence[str], loss: str = "MSE") -> str:
    """Describe the members, the share of each kind of model, and the loss of each level.

    Parameters
    ----------
    ensembles : sequence of Ensemble
        One ensemble for each target, or one for all classes.
    outputs : sequence of str
        Names of the targets.
    loss : "MSE" or "log loss"
        Name of the losses, as `Data.loss_name`; training minimizes half of the MSE.

    Examples
    --------
    >>> ensemble_text([], [])
    ''
    """
    parts = []
    for number, own in enumerate(ensembles):
        linear, additive, hidden = (
            f"{100.0 * share:.0f} %" for share in own.shares / own.shares.sum()
        )
        name = f"{outputs[number]}: " if len(ensembles) > 1 else ""
        first, second = own.intervals
        levels = "1 level" if own.levels == 1 else f"{own.levels} levels"
        members = "1 member" if len(own.fitted) == 1 else f"{len(own.fitted)} members"
        factor = 2.0 if loss == "MSE" else 1.0
        losses = ", ".join(f"{factor * value:.3g}" for value in own.losses)
        parts.append(
            f"{name}ensemble of {members} on parts of the rows: {linear} linear, "
            f"{additive} additive, {hidden} with a hidden layer of {own.units} units;\n"
            f"splines of {first} and {second} intervals after {levels}; {loss} on rows that "
            f"members were not trained on, level by level: {losses}"
        )
    return "\n".join(parts)
