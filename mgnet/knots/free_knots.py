"""Kolmogorov-Arnold networks with trainable knots."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch.nn.functional import pad

from mgnet.knots.kan import KAN
from mgnet.knots.kan_options import check_coefficients, checked_factor
from mgnet.knots.network_state import OptionsInState, check_no_hooks, check_plain, copy_with
from mgnet.knots.nonuniform import spline_layer_on
from mgnet.knots.precision import raised
from mgnet.knots.refinement import knot_insertion
from mgnet.limits import shown

__all__ = ["FreeKnotKAN", "FreeKnots", "NarrowInterval", "continued", "insert_knots"]

Self = TypeVar("Self", bound="FreeKnotKAN")

for _name in ("continued", "knots_of", "raised", "spline_layer_on"):
    torch.fx.wrap(_name)  # one node per call in the graphs of `torch.fx.symbolic_trace`


class NarrowInterval(NamedTuple):
    """A narrow interval between two knots: layer, input, number of the interval, relative width."""

    layer: int
    input: int
    interval: int
    width: float  # relative to the mean interval width of this input, dimensionless


class FreeKnots(torch.nn.Module):
    """One knot vector per input, ordered by construction: widths are a softmax of parameters.

    The ends of the domain stay in place; the knots between them move.

    Parameters
    ----------
    inputs, intervals : int
        Number of inputs, and of intervals per input.
    domain : (float, float)
        The interval of all splines.
    dtype : torch.dtype
        Precision of the knots.
    device : torch.device
        Device of the knots.
    """

    start: torch.Tensor
    length: torch.Tensor

    def __init__(
        self,
        inputs: int,
        intervals: int,
        domain: tuple[float, float],
        dtype: torch.dtype,
        device: torch.device,
    ):
        super().__init__()
        kind = {"dtype": dtype, "device": device}
        self.logits = torch.nn.Parameter(torch.zeros(inputs, intervals, **kind))
        self.register_buffer("start", torch.full((inputs,), domain[0], **kind))
        self.register_buffer("length", torch.full((inputs,), domain[1] - domain[0], **kind))

    def forward(self) -> torch.Tensor:
        """The knots of the domain, including both ends: shape (inputs, intervals + 1)."""
        return knots_of(self.logits, self.start, self.length)

    @torch.no_grad()
    def place(self, knots: torch.Tensor) -> None:
        """Move the knots to `knots`, of shape (inputs, intervals + 1), strictly increasing.

        Raises
        ------
        ValueError
            If the shape is wrong, or the knots do not increase.
        """
        widths = knots.diff(dim=-1)
        rounding = 4.0 * torch.finfo(self.logits.dtype).eps * knots.abs().amax(-1, keepdim=True)
        fits = knots.shape == (len(self.start), self.logits.shape[1] + 1)
        if not fits or not (widths > rounding).all():
            raise ValueError(
                f"FreeKnots.place got knots of shape {tuple(knots.shape)} with smallest distance "
                f"{float(widths.min()):.3g}; it needs {self.logits.shape[1] + 1} strictly "
                f"increasing ones for each of {len(self.start)} inputs"
            )
        self.start.copy_(knots[:, 0])
        self.length.copy_(knots[:, -1] - knots[:, 0])
        self.logits.copy_((widths / widths.mean(-1, keepdim=True)).log())


def knots_of(logits: torch.Tensor, start: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
    """Compute `start + length cumsum(softmax(logits))`, including both ends.

    Examples
    --------
    >>> knots_of(torch.zeros(1, 2), torch.zeros(1), torch.ones(1)).tolist()
    [[0.0, 0.5, 1.0]]
    """
    # The bound, below rounding, keeps slopes finite if a softmax underflows.
    floor = torch.finfo(logits.dtype).eps / logits.shape[1]
    widths = torch.softmax(logits, -1).clamp(min=floor)
    steps = pad(widths.cumsum(-1), (1, 0))
    return start.unsqueeze(-1) + length.unsqueeze(-1) * steps


def continued(knots: torch.Tensor, degree: int) -> torch.Tensor:
    """The knots of the domain, shape (inputs, n + 1), with `degree` more knots on each side.

    Beyond the domain, the widths of the first and last intervals are repeated.

    Examples
    --------
    >>> continued(torch.tensor([[0.0, 1.0, 3.0]]), 1).tolist()
    [[-1.0, 0.0, 1.0, 3.0, 5.0]]
    """
    steps = torch.arange(1, degree + 1, dtype=knots.dtype, device=knots.device)
    left = knots[:, :1] - steps.flip(0) * (knots[:, 1:2] - knots[:, :1])
    right = knots[:, -1:] + steps * (knots[:, -1:] - knots[:, -2:-1])
    return torch.cat([left, knots, right], -1)


def insert_knots(
    coefficients: torch.Tensor, coarse: torch.Tensor, fine: torch.Tensor, degree: int
) -> torch.Tensor:
    """Express the same splines on more knots, separately for each input.

    Parameters
    ----------
    coefficients : tensor of shape (inputs, coarse splines, outputs)
        Coefficients on the coarse knots.
    coarse, fine : tensor of shape (inputs, splines + degree + 1)
        Complete knot vectors; those beyond the domain may differ.

    Returns
    -------
    tensor of shape (inputs, fine splines, outputs)
        Coefficients on the fine knots.
    """
    moved = []
    for u, before, after in zip(coefficients, coarse, fine, strict=True):
        P = knot_insertion(before.cpu().numpy(), after.cpu().numpy(), degree)
        moved.append(torch.as_tensor(P @ u.detach().double().cpu().numpy()))
    return torch.stack(moved).to(coefficients)


class FreeKnotKAN(OptionsInState):
    """A KAN that trains its knots together with its coefficients.

    Each input of a layer has one knot vector, shared by its outputs:
    `t = start + length cumsum(softmax(logits))`. Knots therefore stay in order, and the ends of the
    domain stay in place, for any optimizer. Initially the knots are uniform, and the network equals
    the `KAN` with the same seed. Source of the parametrization: Actor et al., arXiv 2505.18131.

    Knots may coincide, as they should at a kink; the slopes between them then grow without bound.
    `collapsed` lists such intervals, and `refine` warns about them. To keep the knots fixed for
    some time, use `kan.free_knots.requires_grad_(False)`.

    Parameters
    ----------
    widths, intervals, degree, linear, domain, hidden, dtype, device, generator
        The arguments of `KAN`.

    Raises
    ------
    TypeError, ValueError
        If an argument is invalid, as for `KAN`.

    Examples
    --------
    >>> kan = FreeKnotKAN([1, 1], intervals=4)
    >>> x = torch.linspace(-1, 1, 200, dtype=torch.float64).unsqueeze(1)
    >>> bool((kan(x) - KAN([1, 1], intervals=4)(x)).abs().max() < 1e-14)
    True
    >>> optimizer = torch.optim.Adam(kan.parameters(), lr=0.05)
    >>> for _ in range(20):
    ...     optimizer.zero_grad()
    ...     (kan(x) - (x - 0.3).abs()).square().mean().backward()
    ...     optimizer.step()
    >>> kan.knots(0).shape  # 5 knots and 3 more on both sides
    torch.Size([1, 11])
    >>> bool((kan.refine()(x) - kan(x)).abs().max() < 1e-13)
    True
    """

    __call__: Callable[..., torch.Tensor]

    def __init__(
        self,
        widths: Sequence[int],
        intervals: int | Sequence[int] = 4,
        degree: int = 3,
        *,
        linear: bool = False,
        domain: tuple[float, float] = (-1.0, 1.0),
        hidden: str = "tanh",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        kan = KAN(
            widths,
            intervals,
            degree,
            linear=linear,
            domain=domain,
            hidden=hidden,
            dtype=dtype,
            device=device,
            generator=generator,
        )
        self.widths = kan.widths
        self.degree = kan.degree
        self.hidden = kan.hidden
        self.linear = kan.linear
        self.coefficients = kan.coefficients
        self.free_knots: Sequence[FreeKnots] = torch.nn.ModuleList(  # type: ignore[assignment]
            FreeKnots(len(u), n, kan.domain, u.dtype, u.device)
            for u, n in zip(kan.coefficients, kan.intervals, strict=True)
        )

    @classmethod
    def from_kan(cls, kan: KAN) -> FreeKnotKAN:
        """Build a network with the same function whose knots can move."""
        check_plain("FreeKnotKAN.from_kan", kan, KAN)
        first = kan.coefficients[0]
        made = cls(
            kan.widths,
            kan.intervals,
            kan.degree,
            linear=kan.linear is not None,
            domain=kan.domain,
            hidden=kan.hidden,
            dtype=first.dtype,
            device=first.device,
        )
        made.linear = copy.deepcopy(kan.linear)
        made.coefficients.load_state_dict(kan.coefficients.state_dict())
        made.zero_grad()
        return made

    def state_options(self) -> dict[str, Any]:
        return {"degree": self.degree, "hidden": self.hidden}

    @property
    def intervals(self) -> tuple[int, ...]:
        """Number of intervals in each layer."""
        return tuple(u.shape[1] - self.degree for u in self.coefficients)

    def knots(self, layer: int) -> torch.Tensor:
        """All knots of a layer: shape (inputs, intervals + 2 degree + 1).

        The domain of input p is `[knots[p, degree], knots[p, -degree - 1]]`.
        """
        return continued(self.free_knots[layer](), self.degree)

    def into_domain(self, hidden: torch.Tensor, layer: int) -> torch.Tensor:
        """The fixed map of hidden values to the spline interval of a layer."""
        if self.hidden == "identity":
            return hidden
        knots = self.free_knots[layer]
        return knots.start + 0.5 * knots.length * (1.0 + torch.tanh(hidden))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., inputs) to (..., outputs)."""
        check_no_hooks("FreeKnotKAN", self.coefficients)
        if self.linear is not None:
            x = self.into_domain(raised(self.linear(x)), 0)
        for layer, u in enumerate(self.coefficients):
            if layer:
                x = self.into_domain(x, layer)
            x = spline_layer_on(x, u, self.knots(layer), self.degree)
        return x

    def refine(self: Self, factor: int = 2) -> Self:
        """Create a network with the same function and each interval divided into equal parts.

        It warns if there are `collapsed` intervals, and refuses to divide empty ones.
        """
        factor = checked_factor("FreeKnotKAN.refine", factor)
        finest = [factor * n for n in self.intervals]
        what = f"FreeKnotKAN.refine got factor {shown(factor)}"
        check_coefficients(what, self.widths[-len(finest) - 1 :], finest, self.degree)
        narrow = self.collapsed()
        if narrow:
            warnings.warn(
                f"FreeKnotKAN.refine cuts {len(narrow)} collapsed intervals, the first is "
                f"{narrow[0]}; slopes there may be huge: train the knots more slowly, or fix them",
                stacklevel=2,
            )
        parts = torch.arange(factor, dtype=torch.float64) / factor
        finer = []
        for knots in self._places():
            cut = knots[:, :-1, None] + knots.diff(dim=-1)[..., None] * parts
            finer.append(torch.cat([cut.flatten(1), knots[:, -1:]], -1))
        return self._on(finer, "refine")

    def insert(self: Self, layer: int, positions: torch.Tensor) -> Self:
        """Create a network with the same function and more knots in one layer.

        Parameters
        ----------
        layer : int
            Number of the layer.
        positions : tensor of shape (inputs, m)
            m new knots for each input, inside the domain and different from the present knots.

        Returns
        -------
        FreeKnotKAN
            The new network.

        Raises
        ------
        ValueError
            If the positions have the wrong shape, coincide with other knots or lie outside the
            domain.
        """
        finer = self._places()
        inputs = len(finer[layer])
        if positions.dim() != 2 or len(positions) != inputs:
            raise ValueError(
                f"FreeKnotKAN.insert got positions of shape {tuple(positions.shape)}; "
                f"layer {layer} needs equally many for each of its {inputs} inputs"
            )
        finer[layer] = torch.cat([finer[layer], positions.cpu().double()], -1).sort(-1).values
        return self._on(finer, "insert")

    @torch.no_grad()
    def nesting_defect(self, x: torch.Tensor, factor: int = 2) -> float:
        """The largest change by `refine`, relative to the largest output; only rounding."""
        outputs = self(x)
        return float((self.refine(factor)(x) - outputs).abs().max() / outputs.abs().max())

    def collapsed(self, threshold: float = 1e-3) -> list[NarrowInterval]:
        """The intervals that are narrower than `threshold` times the mean width for their input."""
        found = []
        for layer, knots in enumerate(self._places()):
            widths = knots.diff(dim=-1)
            relative = widths / widths.mean(-1, keepdim=True)
            for p, i in (relative < threshold).nonzero().tolist():
                found.append(NarrowInterval(layer, p, i, float(relative[p, i])))
        return found

    @torch.no_grad()
    def _places(self) -> list[torch.Tensor]:
        """The knots of the domains of all layers, without gradients."""
        return [knots().cpu().double() for knots in self.free_knots]

    @torch.no_grad()
    def _on(self: Self, finer: Sequence[torch.Tensor], method: str) -> Self:
        """A copy with the same function on finer knots, which must contain the present knots."""
        knots, coefficients = [], torch.nn.ParameterList()
        layers = zip(self.free_knots, self.coefficients, self._places(), finer, strict=True)
        for own, u, before, after in layers:
            if type(own) is not FreeKnots:
                raise TypeError(
                    f"FreeKnotKAN.{method} got knots of the class {type(own).__name__}; it can "
                    "only place those of FreeKnots"
                )
            made = FreeKnots(len(u), after.shape[1] - 1, (0.0, 1.0), u.dtype, u.device)
            made.place(after)
            made.logits.requires_grad_(own.logits.requires_grad)
            knots.append(made)
            old, new = continued(before, self.degree), continued(after, self.degree)
            moved = insert_knots(u, old, new, self.degree)
            coefficients.append(torch.nn.Parameter(moved, u.requires_grad))
        parts: list[Any] = [self.coefficients, self.free_knots]
        others = coefficients, torch.nn.ModuleList(knots)
        return copy_with(self, f"FreeKnotKAN.{method}", zip(parts, others, strict=True))

    def extra_repr(self) -> str:
        return (
            f"widths={list(self.widths)}, intervals={list(self.intervals)}, degree={self.degree}, "
            f"hidden={self.hidden!r}"
        )
