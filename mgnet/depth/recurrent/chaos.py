"""Detection, after a few cycles, of recurrences in which errors grow."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mgnet.depth.mgrit.layer_equation import LayerEquation
from mgnet.depth.mgrit.lyapunov_exponent import HARMLESS, Lyapunov

__all__ = ["LOOKS", "ChaoticRecurrenceError", "falls", "refuse_chaos"]

LOOKS = 1, 4  # cycles after which an exponent is computed if the residual has not decreased
SLOW = 0.5  # a residual below this fraction of its first value counts as decreasing


class ChaoticRecurrenceError(RuntimeError):
    """The recurrence is chaotic, so no parallel-in-time method converges quickly; see `growth`.

    Examples
    --------
    >>> print(ChaoticRecurrenceError(Lyapunov((0.4,), 1000)))
    TimeParallel was given a chaotic recurrence, exponent 0.4 per step, errors grow 5.2e+173 times \
over all 1000: no parallel method converges in few iterations; use mode='serial', or mode='auto', \
which takes exact steps then, or sequences of about 17 steps
    """

    def __init__(self, growth: Lyapunov):
        what, _, rest = growth.verdict.partition(": ")
        short = rest.partition("parts of about ")[2]
        super().__init__(
            f"TimeParallel was given a chaotic recurrence, {what}: no parallel method converges in "
            "few iterations; use mode='serial', or mode='auto', which takes exact steps then, or "
            f"sequences of about {short}"
        )
        self.growth = growth


def falls(norms: list[float]) -> bool:
    """Whether the residual has decreased since the first one.

    Examples
    --------
    >>> falls([1.0, 0.1]), falls([1.0, 1.2])
    (True, False)
    """
    return norms[-1] <= SLOW * norms[0]


def refuse_chaos(equation: LayerEquation, points: Tensor) -> None:
    """Raise an error if errors grow by a factor of 1000 or more along exact steps near `points`.

    The exponent is a mean over segments of exact steps, which start at every s-th state, where s is
    about the square root of the number of steps, and are computed all at once. If the exponent over
    s steps is clearly positive, the segments are continued to 4 s steps: by then the states depend
    less on where they started, and the errors have turned toward the direction of growth. The
    exponent counts only if it is again clearly positive, by two standard errors. The cost is two
    calls for each of the s (4 s) steps.

    Parameters
    ----------
    equation : LayerEquation
        The forward equation of all time steps.
    points : Tensor of shape (T + 1, batch, S)
        States near the solution, or the solution.

    Raises
    ------
    ChaoticRecurrenceError
        If errors grow.

    Examples
    --------
    >>> class Logistic:
    ...     def advance(self, level, which, states):
    ...         return 4.0 * states * (1.0 - states)
    >>> start = torch.tensor([[0.3]], dtype=torch.float64)
    >>> equation = LayerEquation(Logistic(), 0, 900, start, None)
    >>> try:
    ...     refuse_chaos(equation, equation.march(None))
    ... except ChaoticRecurrenceError as found:
    ...     round(found.growth.exponent, 1)  # it is ln 2
    0.7
    """
    communicator = equation.communicator
    layers = communicator.gather(torch.tensor([[float(equation.layers)]])).sum()
    steps, spacing = int(layers), max(2, round(math.sqrt(float(layers))))
    stretches, exponent = _Stretches(equation, points, spacing), 0.0
    for end, burn in ((spacing, spacing // 2), (4 * spacing, 2 * spacing)):
        found = communicator.gather(stretches.until(end, burn)[None]).flatten()
        # Overlapping segments are not independent of each other.
        independent = len(found) * spacing / max(end - burn, spacing)
        if independent < 2.0:
            return
        exponent = float(found.mean())
        error = float(found.std()) / math.sqrt(independent)
        # If states are not finite, this also returns.
        if not (exponent > 2.0 * error and exponent * steps > HARMLESS):
            return
    raise ChaoticRecurrenceError(Lyapunov((exponent,), steps))


class _Stretches:
    """Exact steps from every s-th point, and also from slightly different states."""

    def __init__(self, equation: LayerEquation, points: Tensor, spacing: int):
        self.equation, self.spacing = equation, spacing
        self.states = points[:-1:spacing]
        generator = torch.Generator().manual_seed(0)
        normal = torch.randn(self.states.shape, generator=generator, dtype=torch.float64)
        self.apart = _unit(normal.to(self.states))[0]
        self.done = 0

    def until(self, end: int, burn: int) -> Tensor:
        """Mean growth per step, as a logarithm, for every segment from its step `burn` to `end`.

        Segments that would leave the sequence (or the part of this process) are omitted.
        """
        advance, spacing = self.equation.propagator.advance, self.spacing
        count = max(0, (self.equation.layers - end) // spacing + 1)
        states, apart = self.states[:count], self.apart[:count]
        logs = states.new_zeros(count, dtype=torch.float64)
        if not count:
            return logs.cpu()
        size = states.norm(dim=-1).max().clamp_min(torch.finfo(states.dtype).tiny)
        size = size * math.sqrt(torch.finfo(states.dtype).eps)
        for j in range(self.done, end):
            which = slice(j, j + (count - 1) * spacing + 1, spacing)
            beside = advance(0, which, states + size * apart)
            states = advance(0, which, states)
            apart, grown = _unit((beside - states) / size)
            if j >= burn:
                logs += grown.mean(1)
        self.states, self.apart, self.done = states, apart, end
        return (logs / (end - burn)).cpu()


def _unit(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors of length 1, and the logarithms of their lengths."""
    lengths = vectors.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(vectors.dtype).tiny)
    return vectors / lengths, lengths[..., 0].double().log()
