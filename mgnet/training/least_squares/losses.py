"""Losses beyond squares as squares: each residual replaced by the root of twice its loss.

`1/2 F^2` is then the loss exactly, and all that works for a sum of squares works for it: F has the
Jacobian `diag(dF/dr) J`. Sources: Engels, Stewenius and Nister, "Bundle adjustment rules" (2006),
for robust losses; their names and definitions are those of `scipy.optimize.least_squares`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

__all__ = ["PointwiseLoss", "pointwise_loss", "root_of_loss"]

SMALL = 1e-8  # below, log(1 + s^2) and arctan(s^2) are s^2 in double precision


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
    f_scale : float
        In the unit of the residuals: about where outliers begin.

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
        """F of each residual, in float64: `1/2 F^2` is its loss, and F has its sign."""
        r = r.double()
        root, _ = LOSSES[self.name](r.abs() / self.f_scale)
        return torch.copysign(self.f_scale * root, r)

    def slopes(self, r: torch.Tensor) -> torch.Tensor:
        """The derivative of F at each residual, in float64; 1 at 0."""
        return LOSSES[self.name](r.double().abs() / self.f_scale)[1]


# From s = |r| / f_scale: sqrt(rho(s^2)) and its derivative by s, without a square that overflows.
Root = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def _soft_l1(s: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    h = torch.hypot(s, torch.ones_like(s))
    # The quotient keeps the digits of small s, which h - 1 would lose.
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
    # An overflow of t^4 stands for a derivative that vanishes.
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
    """The loss of that name; None for "linear", plain squares.

    Raises
    ------
    ValueError
        If there is none of that name, or the scale is not a positive number.

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
    """Residuals of any loss that is not negative: `F_i = sqrt(2 loss_i)`, so `1/2 |F|^2 = sum`.

    For use inside a residual function, with one loss per sample: cross entropy, a deviance. Where a
    loss is 0 its root has a kink; the derivative there is taken as 0, which is its limit for a loss
    that only comes near 0, as cross entropy does. Where samples are met exactly, as by a deviance
    at `outputs = targets`, give the sign of the difference: the root is then smooth.

    The Gauss-Newton matrix of F is not the generalized Gauss-Newton matrix of the loss (Schraudolph
    2002): it has rank 1 for each sample, however many outputs. It ignores `F F''`, which does not
    vanish at a minimum with losses, so that the last steps converge linearly. The package
    torch-levenberg-marquardt trains that way, too.

    Parameters
    ----------
    losses : tensor
        Not negative, of any shape: not their mean.
    signs : tensor, optional
        Whose signs F takes, of the same shape.

    Returns
    -------
    tensor of the shape of `losses`

    Raises
    ------
    ValueError
        If a loss is negative, or there is one number only.

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
            "root_of_loss got one number; give the loss of each sample, as with reduction='none'"
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
                "have a root: subtract their least value, as a deviance does"
            )
    zero = losses <= tiny
    roots = torch.where(zero, 0.0, torch.where(zero, tiny, 2.0 * losses).sqrt())
    return roots if signs is None else torch.where(signs < 0.0, -roots, roots)
