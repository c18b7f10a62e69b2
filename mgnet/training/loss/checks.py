"""Checks of the inputs of training: data and losses."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from mgnet import vector

if TYPE_CHECKING:
    from mgnet.level import Level

__all__ = ["check_data", "check_finite", "check_loss", "check_range", "not_finite"]


def check_data(owner: str, data: Any) -> None:
    """Check that data are a pair (inputs, targets) of tensors with equally many samples.

    Raises
    ------
    TypeError, ValueError
        If the data have the wrong form.

    Examples
    --------
    >>> check_data("Objective", (torch.zeros(3, 1), torch.zeros(2, 1)))
    Traceback (most recent call last):
    ValueError: Objective got 3 inputs and 2 targets; axis 0 must hold the same samples in both
    """
    pair = isinstance(data, tuple | list) and len(data) == 2
    if not pair or not all(isinstance(part, torch.Tensor) for part in data):
        parts = ", ".join(type(part).__name__ for part in data) if pair else type(data).__name__
        raise TypeError(
            f"{owner} got data of {parts}; give two tensors with the samples on axis 0, such as "
            "(inputs, targets)"
        )
    if len(data[0]) != len(data[1]):
        raise ValueError(
            f"{owner} got {len(data[0])} inputs and {len(data[1])} targets; "
            "axis 0 must hold the same samples in both"
        )
    if not len(data[0]):
        raise ValueError(f"{owner} got data without samples; give at least one")


def check_loss(loss: Any) -> torch.Tensor:
    """Check that the result of a loss function is a tensor with one number, and return it.

    Raises
    ------
    TypeError
        If the result is anything else.

    Examples
    --------
    >>> check_loss(torch.tensor(2.0)).item()
    2.0
    """
    if isinstance(loss, torch.Tensor) and loss.numel() == 1:
        return loss
    got = f"shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else f"{loss!r}"
    raise TypeError(
        f"the loss of an Objective returned {got}; it must return a tensor with one number, such "
        "as a mean over the samples (for vectors of residuals: LeastSquares)"
    )


def check_finite(smoother: Any, level: Level, u: Any, *numbers: Any) -> None:
    """Check that the initial loss and gradient of a smoother are finite.

    A line search or a trust region would treat NaN as a sign that the step is too long, and return
    the initial state as if it were the minimum.

    Parameters
    ----------
    smoother : Smoother
        Smoother that begins.
    level : Level
        Level whose operator is searched for the cause.
    u : state
        State at which the numbers were computed.
    *numbers : float or state
        Values to check.

    Raises
    ------
    FloatingPointError
        If the loss or the gradient is not finite; the message names the cause.

    Examples
    --------
    >>> from mgnet import Jacobi, Level
    >>> level = Level(lambda u: u, Jacobi(), name="level 0")
    >>> try:
    ...     check_finite("LBFGS()", level, torch.tensor([math.nan, 1.0]), math.nan)
    ... except FloatingPointError as error:
    ...     print(str(error).split(": ")[1])
    1 of 2 parameters is not finite, the first at index 0; begin with others
    """
    if not all(map(_is_finite, numbers)):
        raise FloatingPointError(not_finite(f"{smoother} on {level}", level.operator, u))


def check_range(smoother: Any, level: Level, gradient: Any) -> None:
    """Check that the squared norm of a gradient, which line searches use, is representable.

    The check is only for the first visit of a smoother; in later visits the gradient may be tiny
    because the state is close to a minimum.

    Raises
    ------
    FloatingPointError
        If the square overflows or underflows.

    Examples
    --------
    >>> from mgnet import Jacobi, Level
    >>> check_range("LBFGS()", Level(lambda u: u, Jacobi(), name="level 0"), torch.ones(2))
    """
    square = vector.dot(gradient, gradient)
    if 1e-300 < square < math.inf or not vector.as_numpy(gradient).any():
        return
    ending = "overflows" if square > 1.0 else "vanishes"
    raise FloatingPointError(
        f"{smoother} on {level} got a gradient whose square {ending}, so that no step along it can "
        "be judged; measure the loss or its targets in another unit (for least squares "
        "LevenbergMarquardt needs none)"
    )


def not_finite(name: str, problem: Any, u: Any) -> str:
    """The message of `check_finite`, for functions that raise a ValueError.

    Examples
    --------
    >>> not_finite("train", None, torch.zeros(2)).split(": ")[1].split(",")[0]
    'neither data nor parameters hold a NaN or Inf'
    """
    cause = next(_causes(problem, u), None) or (
        "neither data nor parameters hold a NaN or Inf, so check what else the loss or residual "
        "function takes, and scale data so large that the loss overflows"
    )
    return (
        f"{name} got a loss that is not finite (NaN or Inf), in its value or gradient at the "
        f"start: {cause}"
    )


def _is_finite(number: Any) -> bool:
    return math.isfinite(number) if isinstance(number, float) else vector.is_finite(number)


def _causes(problem: Any, u: Any) -> Iterator[str]:
    """Descriptions of the parts that are not finite, most likely causes first, with remedies."""
    yield from _counted("parameters", u, "begin with others")
    while getattr(problem, "fine", None) is not None:  # for a coarse level around a fine state
        yield from _counted("parameters", problem.u, "begin with others")
        problem = problem.fine
    remedy = "leave such samples out, or fill them in"
    data: Any = getattr(problem, "data", None)
    if data is not None:
        yield from _counted("inputs", data[0], remedy)
        yield from _counted("targets", data[1], remedy)
    yield from _counted("rows of the penalty", getattr(problem, "rows", None), "change it")
    terms: Any = getattr(problem, "terms", ())
    for number, term in enumerate(terms):
        for part in term.places:
            yield from _counted(f"points of term {number}", part, "leave such points out")
        yield from _counted(f"factors (attention) of term {number}", term.attention, "change them")
    network = getattr(problem, "network", None)
    if isinstance(network, torch.nn.Module):
        fixed = {n: p for n, p in network.named_parameters() if not p.requires_grad}
        for name, part in (fixed | dict(network.named_buffers())).items():
            yield from _counted(f"entries of {name!r}, which is not trained,", part, "change them")


def _counted(name: str, part: Any, remedy: str) -> Iterator[str]:
    """A description of the entries that are not finite, if the part is a tensor with any."""
    if not isinstance(part, torch.Tensor) or not part.numel():
        return
    if part.layout is not torch.strided:
        part = part.detach().to_sparse_coo().coalesce()
        part = torch.zeros(len(part)).to(part).index_add(0, part.indices()[0], part.values())
    wrong = ~torch.isfinite(part.detach()).reshape(len(part) if part.dim() else 1, -1).all(1)
    count = int(wrong.sum())
    if count:
        yield (
            f"{count} of {len(wrong)} {name} {'is' if count == 1 else 'are'} not finite, the first "
            f"at index {int(wrong.nonzero()[0])}; {remedy}"
        )
