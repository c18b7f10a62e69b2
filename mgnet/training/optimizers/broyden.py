"""Self-scaled Broyden and BFGS: quasi-Newton methods with a dense inverse Hessian, as a smoother.

After a step `s = -alpha H g` that changed the gradient, the difference being y, with
`h = <y, H y> / <y, s>`, `b = -alpha <s, g> / <y, s>` (which is `<s, H^-1 s> / <y, s>`) and
`a = b h - 1`:

    H+ = (H - H y (H y)^T / <y, H y> + phi <y, H y> v v^T) / tau + s s^T / <y, s>
    v = s / <y, s> - H y / <y, H y>,    phi = (1 - theta) / (1 + a theta)

theta = 0 is BFGS. The self-scaled Broyden method takes

    rho = min(1, h (1 - c)),   c = sqrt(a / (1 + a)),   sigma = 1 + a theta
    theta = max((rho - 1) / a, min(1 / rho, (1 - b) / b))
    tau = min(1, 1 / b) min(sigma^(-1/(n-1)), 1 / theta)       where theta > 0
    tau = min(min(1, 1 / b) sigma^(-1/(n-1)), sigma)           elsewhere

After the very first step, tau = h / sigma instead. Sources: Urban, Stefanou and Pons, "Unveiling
the optimization process of physics informed neural networks: how accurate and competitive can PINNs
be?", J. Comput. Phys. 523 (2025) 113656, arXiv 2405.04230, equations (13) to (23), which is
`SSBroyden2` in their code, after Al-Baali and Khalfan, "Wide interval for efficient self-scaling
quasi-Newton algorithms", Optim. Methods Softw. 20 (2005) 679-691. With theta = 0, tau is min(1, 1 /
b): equation (11) of Urban et al., from Al-Baali, "Numerical experience with a class of self-scaling
quasi-Newton algorithms", J. Optim. Theory Appl. 96 (1998) 533-553.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch

from mgnet.smoother import Smoother
from mgnet.training.loss.checks import check_finite, check_range
from mgnet.training.loss.objective import Objective
from mgnet.training.optimizers.wolfe import Trial, strong_wolfe

if TYPE_CHECKING:
    from mgnet.level import Level
    from mgnet.transfer import Transfer

__all__ = ["Broyden"]


class Curvature(NamedTuple):
    """Memory of Broyden: H (None means I), the gain of its last step, and an empty state."""

    inverse: torch.Tensor | None
    gain: float = math.inf
    # Type and device of states for transfers; those of H without it.
    like: torch.Tensor | None = None


@dataclass(frozen=True)
class Broyden(Smoother):
    """Self-scaled Broyden with a strong Wolfe line search, for levels with an objective.

    One sweep is one step; no step raises the objective. Each visit first evaluates a gradient, so
    it should have tens of sweeps. H is dense, in float64, with n^2 numbers for n unknowns, so the
    method suits up to a few thousand unknowns. H is kept between visits, since the Hessian does not
    depend on f, and is carried to a finer level. For formulas and sources see the docstring of the
    module.

    Parameters
    ----------
    update : "broyden" or "bfgs"
        Formula that updates H.
    scaling : bool
        False sets tau = 1; `Broyden("bfgs", scaling=False)` is the textbook BFGS method.

    Raises
    ------
    ValueError
        If the update is unknown.

    Examples
    --------
    >>> from mgnet import Hierarchy, Level, Solver
    >>> H = torch.tensor([1.0, 10.0, 100.0], dtype=torch.float64)
    >>> energy = lambda u: float((u * H * u).sum()) / 2
    >>> level = Level(lambda u: H * u, Broyden(), objective=energy, size=3)
    >>> solver = Solver(Hierarchy([level]), "V(0,0,25)", max_cycles=1)
    >>> float(solver.solve(u=torch.ones(3, dtype=torch.float64)).value.norm()) < 1e-6
    True
    """

    update: str = "broyden"
    scaling: bool = True
    fixed_work: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.update not in ("broyden", "bfgs"):
            raise ValueError(f"Broyden got update {self.update!r}; it must be 'broyden' or 'bfgs'")

    def start(self, level: Level, u: torch.Tensor) -> Curvature:
        if level.objective is None:
            raise TypeError(f"{self} on {level} needs an objective; give Level(objective=...)")
        return Curvature(None)

    def smooth(
        self, level: Level, u: torch.Tensor, f: torch.Tensor | None, sweeps: int, memory: Curvature
    ) -> tuple[torch.Tensor, Curvature]:
        H, gain, _ = memory
        here = _trial(level, 0.0, u, f)
        check_finite(self, level, u, here.value, here.gradient)
        if H is None:
            check_range(self, level, here.gradient)
        for _ in range(sweeps):
            step = _step(level, u, f, here, H, gain)
            if step is None and H is not None:  # H is not usable; try again along the gradient
                H = None
                step = _step(level, u, f, here, H, gain)
            if step is None:
                break  # at the rounding level; the next sweep would fail as well
            d, new = step
            s, y = new.length * d, new.gradient - here.gradient
            u = u + s.to(u.dtype)
            ours = H is not memory.inverse  # and may be overwritten
            H = self.updated(H, s, y, here.gradient, new.length, in_place=ours)
            here, gain = new, here.value - new.value
        return u, Curvature(H, gain, u.new_empty(0))

    def updated(
        self,
        H: torch.Tensor | None,
        s: torch.Tensor,
        y: torch.Tensor,
        g: torch.Tensor,
        length: float,
        in_place: bool = False,
    ) -> torch.Tensor | None:
        """H after the step `s = -length H g` that changed the gradient g by y; None means I."""
        z = y if H is None else H @ y
        ys, yz, sg = torch.stack([y @ s, y @ z, s @ g]).cpu().tolist()  # one read from a device
        if not ys > 0.0:  # only if the line search used up its trials
            return H
        h, b = yz / ys, -length * sg / ys
        theta, tau = self._theta_tau(h, b, len(s), first=H is None)
        phi = (1.0 - theta) / (1.0 + (b * h - 1.0) * theta)
        # The terms of the update in s and z.
        mixed = torch.tensor(
            [
                [phi * h / ys / tau + 1.0 / ys, -phi / ys / tau],
                [-phi / ys / tau, (phi - 1.0) / yz / tau],
            ],
            dtype=s.dtype,
            device=s.device,
        )
        sides = torch.stack([s, z], dim=1)
        if H is None:
            H, in_place = torch.eye(len(s), dtype=s.dtype, device=s.device), True
        out = H if in_place else torch.empty_like(H)
        return torch.addmm(H, sides @ mixed, sides.T, beta=1.0 / tau, out=out)

    def _theta_tau(self, h: float, b: float, n: int, first: bool) -> tuple[float, float]:
        a = max(b * h - 1.0, 0.0)  # not negative: Cauchy and Schwarz
        theta = 0.0
        # Otherwise H y is parallel to s and theta has no effect.
        if self.update == "broyden" and a > 1e-12:
            rho = min(1.0, h * (1.0 - math.sqrt(a / (1.0 + a))))
            theta = max((rho - 1.0) / a, min(1.0 / rho, (1.0 - b) / b))
        sigma = 1.0 + a * theta
        if not self.scaling:
            return theta, 1.0
        if first:
            return theta, h / sigma
        least, root = min(1.0, 1.0 / b), sigma ** (-1.0 / max(n - 1, 1))
        if theta > 0.0:
            return theta, least * min(root, 1.0 / theta)
        return theta, min(least * root, sigma)

    def carry(self, memory: Curvature, transfer: Transfer) -> Curvature:
        """`P H P^T + gamma Q Q^T`: H on the coarse space, and small steps in the rest.

        Q = I - P R, with R = `transfer.inject` a left inverse of P, spans the part of the space
        that the coarse level lacks (Q = I if there is no R), and gamma is the smallest diagonal
        entry of H. In cascades of 4 levels with 30 steps on each finer one, a regression ended with
        a 10 times lower loss than without H, and a PINN with a 1.4 times lower one.
        """
        H = memory.inverse
        if H is None:
            return memory
        up: Any = torch.func.vmap(transfer.prolong)  # applied to the rows of a matrix
        fine = up(up(H if memory.like is None else H.to(memory.like.dtype)).T)
        Q = torch.eye(len(fine), dtype=fine.dtype, device=H.device)
        if transfer.inject is not None:
            Q = Q - up(torch.func.vmap(transfer.inject)(Q))  # its transpose
        added = H.diagonal().min() * (Q.T @ Q).double()
        return memory._replace(inverse=fine.double() + added)

    def work(self, level: Level, sweeps: int) -> float:
        return 1.25 * sweeps


def value_and_gradient(
    level: Level, u: torch.Tensor, f: torch.Tensor | None
) -> tuple[float, torch.Tensor]:
    """`J(u) - <f, u>` and its gradient, together if that is cheaper; counted as one evaluation."""
    level.charge(1.0)
    if isinstance(level.operator, Objective):
        value, gradient = level.operator.value_and_gradient(u)
    else:
        value, gradient = float(level.objective(u)), level.operator(u)  # type: ignore[misc]
    return (value, gradient) if f is None else (value - float(f @ u), gradient - f)


def _trial(
    level: Level,
    length: float,
    u: torch.Tensor,
    f: torch.Tensor | None,
    d: torch.Tensor | None = None,
) -> Trial:
    """Evaluate at u, with the slope along d; the gradient is in float64."""
    value, gradient = value_and_gradient(level, u, f)
    gradient = gradient.double()
    return Trial(length, value, 0.0 if d is None else float(gradient @ d), gradient)


def _step(
    level: Level,
    u: torch.Tensor,
    f: torch.Tensor | None,
    here: Trial,
    H: torch.Tensor | None,
    gain: float,
) -> tuple[torch.Tensor, Trial] | None:
    """The direction `-H g`, and the point that the line search found along it; None if none.

    `gain` is the decrease of the previous step; the length of the first trial is chosen to predict
    the same decrease (Nocedal and Wright, equation (3.60)).
    """
    g = here.gradient
    d = -g if H is None else -(H @ g)
    slope = float(g @ d)
    if not slope < 0.0:
        return None
    first = min(1.0, -2.02 * gain / slope) if H is not None else min(1.0, (-slope) ** -0.5)
    found = strong_wolfe(
        lambda length: _trial(level, length, u + (length * d).to(u.dtype), f, d),
        Trial(0.0, here.value, slope, g),
        first,
    )
    return None if found is None else (d, found)
