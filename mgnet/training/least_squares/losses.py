"""Losses other than squares, written as squares: a residual becomes the root of twice its loss.

`1/2 F^2` is then exactly the loss, and methods for sums of squares apply to it: F has the
Jacobian `diag(dF/dr) J`. Sources: Engels, Stewenius and Nister, "Bundle adjustment rules" (2006),
for robust losses; their names and definitions are those of `scipy.optimize.least_squares`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

__all__ = ["PointwiseLoss", "pointwise_loss", "root_of_loss"]

SMALL = 1e-8  # below it, log(1 + s^2) and arctan(s^2) are s^2 in double precision


@dataclass(frozen=True)
class PointwiseLoss:
    """A robust loss of each residual: `1/2 f_scale^2 rho((r / f_scale)^2)`.

    | name | rho(z) |
    | --- | --- |
    | soft_l1 | `2 (sqrt(1 + z) - 1)` |
    | huber | `z` up to 1, `2 sqrt(z) - 1` above |
    | cauchy | `log(1 + z)` |
    | arctan | `arctan(z)` |

    Parameters
    ----------
    name : str
        Name of the loss.
    f_scale : float
        Scale in the unit of the residuals: about the size at which outliers begin.

    Examples
    --------
    >>> huber = PointwiseLoss("huber", 1.0)
    >>> r = torch.tensor([0.5, -5.0], dtype=torch.float64)
    >>> huber.roots(r).tolist(), huber.slopes(r).tolist()
    ([0.5, -3.0], [1.0, 0.3333333333333333])
    """

    name: str
    f_scale: float = 1.0

    def roots(self, r: torch.Tensor) -> torch.Tensor:
        """F of each residual, in float64: `1/2 F^2` is its loss; F has the sign of the residual."""
        r = r.double()
        root, _ = LOSSES[self.name](r.abs() / self.f_scale)
        return torch.copysign(self.f_scale * root, r)

    def slopes(self, r: torch.Tensor) -> torch.Tensor:
        """The derivative of F at each residual, in float64; 1 at 0."""
        return LOSSES[self.name](r.double().abs() / self.f_scale)[1]


# From s = |r| / f_scale: sqrt(rho(s^2)) and its derivative with respect to s, without a square that
# overflows.
Root = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def _soft_l1(s: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    h = torch.hypot(s, torch.ones_like(s))
    # The quotient is accurate for small s, where h - 1 loses digits.
    ratio = ((1.0 + h) / 2.0).sqrt()
    return s / ratio, ratio / h


def _huber(s: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    inside = s <= 1.0
    beyond = (2.0 * s.clamp_min(1.0) - 1.0).sqrt()
    return torch.where(inside, s, beyond), torch.where(inside, 1.0, 1.0 / beyond)


def _cauchy(s: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    t = s.clamp_min(SMALL)
    root = torch.where(t < 1.0 / SMALL, t.square().log1p(), 2.0 * t.log()).sqrt()
    return _near_zero(s, root, 1.0 / ((t + 1.0 / t) * root))


def _arctan(s: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    t = s.clamp_min(SMALL)
    root = t.square().atan().sqrt()
    # An overflow of t^4 means that the derivative vanishes.
    return _near_zero(s, root, t / ((1.0 + t.square().square()) * root))


def _near_zero(
    s: torch.Tensor, root: torch.Tensor, slope: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    small = s < SMALL
    return torch.where(small, s, root), torch.where(small, 1.0, slope)


LOSSES: dict[str, Root] = {
    "soft_l1": _soft_l1,
    "huber": _huber,
    "cauchy": _cauchy,
    "arctan": _arctan,
}


def pointwise_loss(owner: str, name: str, f_scale: float) -> PointwiseLoss | None:
    """The loss with this name; None for "linear", plain squares.

    Raises
    ------
    ValueError
        If the name is unknown, or the scale is not a positive number.

    Examples
    --------
    >>> pointwise_loss("LeastSquares", "cauchy", 0.1)
    PointwiseLoss(name='cauchy', f_scale=0.1)
    >>> pointwise_loss("LeastSquares", "l1", 1.0)
    Traceback (most recent call last):
    ValueError: LeastSquares got loss 'l1'; it must be linear, soft_l1, huber, cauchy or arctan
    """
    if name != "linear" and (not isinstance(name, str) or name not in LOSSES):
        *others, last = ["linear", *LOSSES]
        raise ValueError(f"{owner} got loss {name!r}; it must be {', '.join(others)} or {last}")
    plain = isinstance(f_scale, int | float) and not isinstance(f_scale, bool)
    if not plain or not 0.0 < f_scale < math.inf:
        raise ValueError(f"{owner} got f_scale {f_scale!r}; it must be a positive number")
    return None if name == "linear" else PointwiseLoss(name, float(f_scale))


def root_of_loss(losses: torch.Tensor, signs: torch.Tensor | None = None) -> torch.Tensor:
    """Convert any nonnegative losses to residuals: `F_i = sqrt(2 loss_i)`, so `1/2 |F|^2 = sum`.

    Use it inside a residual function, with one loss per sample, such as cross entropy or a
    deviance. If a loss is 0, its root has a kink; the derivative there is set to 0, which is the
    limit for a loss that only approaches 0, such as cross entropy. If samples can be fitted
    exactly, as with a deviance at `outputs = targets`, give the sign of the difference, which makes
    the root smooth.

    The Gauss-Newton matrix of F is not the generalized Gauss-Newton matrix of the loss (Schraudolph
    2002): it has rank 1 for each sample, whatever the number of outputs. Moreover, it ignores `F
    F''`, which does not vanish at a minimum with nonzero losses, so the last steps converge only
    linearly. The package torch-levenberg-marquardt also trains this way.

    Parameters
    ----------
    losses : tensor
        Nonnegative losses in a tensor of any shape; do not take their mean.
    signs : tensor, optional
        Tensor of the same shape with the signs of F.

    Returns
    -------
    tensor of the shape of `losses`
        The residuals F.

    Raises
    ------
    ValueError
        If a loss is negative, there is only one number, or the signs differ in shape.

    Examples
    --------
    >>> from mgnet.training import levenberg_marquardt
    >>> x = torch.linspace(-1, 1, 40).unsqueeze(1)
    >>> classes = (x[:, 0].abs() > 0.5).long()
    >>> net = torch.nn.Sequential(torch.nn.Linear(1, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
    >>> entropy = torch.nn.CrossEntropyLoss(reduction="none")
    >>> def residual(net):
    ...     return root_of_loss(entropy(net(x), classes))
    >>> solution = levenberg_marquardt(residual, net, max_cycles=30)
    >>> bool(entropy(net(x), classes).mean() < 1e-2)
    True
    """
    if not isinstance(losses, torch.Tensor) or not losses.dim():
        raise ValueError(
            "root_of_loss got one number; give the loss of each sample, for example with "
            "reduction='none'"
        )
    if signs is not None and signs.shape != losses.shape:
        raise ValueError(
            f"root_of_loss got losses of shape {tuple(losses.shape)} and signs of shape "
            f"{tuple(signs.shape)}; give one sign for each loss"
        )
    tiny = torch.finfo(losses.dtype).tiny
    if not torch._C._are_functorch_transforms_active():
        sizes = losses.detach().double().flatten()
        least = float(sizes.min()) if len(sizes) else 0.0
        rounding = torch.finfo(losses.dtype).eps ** 0.5
        if least < -rounding * max(1.0, float(sizes.abs().max())):
            raise ValueError(
                f"root_of_loss got a loss of {least:.4g}; only losses that are never negative "
                "have a root: subtract their smallest value, as a deviance does"
            )
    zero = losses <= tiny
    roots = torch.where(zero, 0.0, torch.where(zero, tiny, 2.0 * losses).sqrt())
    return roots if signs is None else torch.where(signs < 0.0, -roots, roots)
