"""Time marching: a network for each slab of a long interval, which starts where the last ended.

If one network covers a long time, the most difficult moment determines its error, and the residual
has minima that ignore the initial value. In slab number k, from t_k to t_k+1, the solution is

    u(x, t) = u(x, t_k) + s z_k(x, t),    s = (t - t_k) / (t_k+1 - t_k)

It is continuous for all networks z_k, and `u(x, t_k)` is the sum of the initial value and the
increments of all earlier networks at the ends of their slabs. Its derivatives at the points of a
slab are computed once.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from mgnet.limits import is_number, is_whole, shown
from mgnet.solution import Solution
from mgnet.training.equations.collocation import Collocation
from mgnet.training.equations.derivatives import (
    Ansatz,
    Composed,
    Derivatives,
    Points,
    derivatives_of,
)
from mgnet.training.equations.domain import Domain, checked_domain
from mgnet.training.equations.periodic import PeriodicInputs
from mgnet.training.equations.term import Term

__all__ = ["TimeSlabs", "time_slabs"]

MOST_SLABS = 10_000
Box = tuple[tuple[float, float], ...]
_KEPT = 3  # sets of points of a term, such as training points and candidates for new ones


class TimeSlabs(torch.nn.Module):
    """The solution that `time_slabs` returns: a network of all inputs, continuous at the edges.

    Parameters
    ----------
    initial : callable
        Value at the initial time, as a function of the points.
    edges : sequence of float
        Edges of the slabs.
    axis : int
        Index of the input that is the time.

    Attributes
    ----------
    edges : tuple of float
        Edges of the slabs, in the unit of time.
    networks : torch.nn.ModuleList
        One network for each solved slab: an `Ansatz` of the inputs.
    results : list
        Results of `train`, usually a `Solution` each.

    Examples
    --------
    >>> u = TimeSlabs(lambda x: torch.sin(x[:, :1]), [0.0, 1.0], axis=1)
    >>> u(torch.tensor([[torch.pi / 2.0, 0.0]]))
    tensor([[1.]])
    """

    __call__: Callable[..., torch.Tensor]

    def __init__(
        self, initial: Callable[[torch.Tensor], torch.Tensor], edges: Sequence[float], axis: int
    ):
        super().__init__()
        self.initial = initial
        self.edges = tuple(edges)
        self.axis = axis
        self.networks = torch.nn.ModuleList()
        self.results: list[Any] = []

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        """Map (samples, inputs) to (samples, outputs).

        Raises
        ------
        ValueError
            If a time lies outside the solved slabs.
        """
        t = points[:, self.axis]
        first, last = self.edges[0], self.edges[len(self.networks)]
        slack = 8.0 * torch.finfo(t.dtype).eps * max(abs(first), abs(last), last - first)
        if not bool(((t >= first - slack) & (t <= last + slack)).all()):
            raise ValueError(
                f"TimeSlabs got times from {float(t.min()):g} to {float(t.max()):g}; it is solved "
                f"from {first:g} to {last:g}"
            )
        value = self.initial(_at_time(points, self.axis, torch.full_like(t, first)))
        for number, network in enumerate(self.networks):
            begin, end = self.edges[number : number + 2]
            here = t >= begin if number else torch.ones_like(t, dtype=torch.bool)
            if not bool(here.any()):
                break
            # From the next edge on, another network continues from the value there.
            before = t < end if number + 1 < len(self.networks) else torch.ones_like(here)
            time = torch.where(before, t, torch.full_like(t, end))[here]
            part = network(_at_time(points[here], self.axis, time))
            value = value.index_add(
                0, here.nonzero()[:, 0], ((time - begin) / (end - begin)).unsqueeze(1) * part
            )
        return value


def time_slabs(
    network: torch.nn.Module,
    terms: Callable[[Box], Sequence[Term]],
    domain: Domain,
    slabs: int | Sequence[float],
    initial: Callable[[torch.Tensor], torch.Tensor],
    train: Callable[[Collocation], Any],
    *,
    features: Callable[[Box], Callable[[torch.Tensor], torch.Tensor]] | None = None,
    output: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
    axis: int = -1,
    perturbation: float = 0.01,
) -> TimeSlabs:
    """Solve a differential equation in time slab by slab, with one network for each.

    The solution in a slab begins exactly where the last slab ended. Its network starts from the
    last network plus a fraction of the first initial network, since training from a minimum works
    badly. Source of both ideas: DSGNAR, arXiv 2607.02194.

    Parameters
    ----------
    network : torch.nn.Module
        Initial network of the first slab; a copy is trained. Its inputs are the `features`.
    terms : callable
        Function `box -> terms` of a slab, where `box` is the domain with the times of the slab,
        such as `[Term(residual, quasi_random(1000, box))]`. The initial value is built in and needs
        no term.
    domain : sequence of (low, high)
        Interval for each input, in its units.
    slabs : int or sequence of float
        Number of slabs of equal length, or the edges of the slabs from the first to the last time.
    initial : callable
        `points -> tensor of shape (samples, outputs)`, built from torch functions: the value at the
        first time.
    train : callable
        `problem -> result`: trains the network of a slab, such as `lambda problem:
        levenberg_marquardt(problem, seconds=30)`, which trains in place. If the result is a
        `Solution` or a flat vector, it contains the new parameters.
    features : callable, optional
        `box -> features` for an `Ansatz`, such as `lambda box: periodic(box, dims=0)`. By default
        every input is scaled to [-1, 1].
    output : callable, optional
        `(points, outputs) -> outputs`, applied to the changes from the initial value, such as
        `lambda x, y: (1.0 - x[:, :1] ** 2) * y` to keep the values at the ends.
    axis : int
        Index of the input that is the time; the last input by default.
    perturbation : float
        Fraction of the first initial network that is added.

    Returns
    -------
    TimeSlabs
        The solution, a network of all inputs.

    Raises
    ------
    ValueError, TypeError
        If an argument has the wrong type or is out of range.

    Examples
    --------
    u' = -u, u(0) = 1, to time 4:

    >>> from mgnet.training import Term, levenberg_marquardt, quasi_random
    >>> network = torch.nn.Sequential(
    ...     torch.nn.Linear(1, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)
    ... ).double()
    >>> u = time_slabs(
    ...     network,
    ...     lambda box: [Term(lambda u: u.d(0) + u.value, quasi_random(32, box))],
    ...     [(0.0, 4.0)],
    ...     2,
    ...     torch.ones_like,
    ...     lambda problem: levenberg_marquardt(problem, max_cycles=40),
    ... )
    >>> t = torch.linspace(0.0, 4.0, 9, dtype=torch.float64).unsqueeze(1)
    >>> bool((u(t) - torch.exp(-t)).abs().max() < 1e-4)
    True
    """
    box = checked_domain("time_slabs", domain)
    needed = {"terms": terms, "initial": initial, "train": train}
    for name, function in (needed | {"features": features, "output": output}).items():
        if not callable(function) and (name in needed or function is not None):
            raise TypeError(
                f"time_slabs got {name} of type {type(function).__name__}; give a function"
            )
    if not is_whole(axis, -len(box), len(box) - 1):
        raise ValueError(f"time_slabs got axis {shown(axis)} for {len(box)} inputs")
    if not is_number(perturbation, 0.0, 1.0):
        raise ValueError(
            f"time_slabs got perturbation {shown(perturbation)}; it must be from 0 to 1"
        )
    if not isinstance(network, torch.nn.Module) or isinstance(network, Ansatz):
        raise TypeError(
            f"time_slabs got a network of type {type(network).__name__}; give a torch.nn.Module "
            "that is not an Ansatz: features and output are arguments of time_slabs"
        )
    axis = int(axis) % len(box)
    solution = TimeSlabs(initial, _edges(slabs, box[axis]), axis)
    first = [p.detach().clone() for p in network.parameters()]
    inner = copy.deepcopy(network)
    for begin, end in zip(solution.edges[:-1], solution.edges[1:], strict=True):
        own = (*box[:axis], (begin, end), *box[axis + 1 :])
        scaled = PeriodicInputs(own, (), 1) if features is None else features(own)
        slab = _Slab(solution, tuple(solution.networks))
        ansatz = Ansatz(inner, output=output, features=scaled)
        problem = Collocation(ansatz, slab.terms(terms(own)))
        result = train(problem)
        _keep(problem, result)
        solution.networks.append(problem.network)
        solution.results.append(result)
        inner = copy.deepcopy(inner)
        with torch.no_grad():
            for p, q in zip(inner.parameters(), first, strict=True):
                if p.requires_grad:
                    p.add_(q, alpha=perturbation)
    return solution


def _edges(slabs: Any, interval: tuple[float, float]) -> list[float]:
    begin, end = interval
    if is_whole(slabs, 1, MOST_SLABS):
        inner = [begin + (end - begin) * (k / slabs) for k in range(1, slabs)]
        return [begin, *inner, end]
    listed = isinstance(slabs, Sequence) and not isinstance(slabs, str) and len(slabs) > 1
    if not listed or not all(map(is_number, slabs)):
        raise ValueError(
            f"time_slabs got slabs {shown(slabs)}; give their number, 1 to {MOST_SLABS}, or a list "
            "of their edges"
        )
    edges = [float(edge) for edge in slabs]
    rising = all(a < b for a, b in zip(edges[:-1], edges[1:], strict=True))
    if not rising or (edges[0], edges[-1]) != interval:
        raise ValueError(
            f"time_slabs got slabs {shown(slabs)} for times from {begin:g} to {end:g}; their edges "
            "must rise from the first to the last time of the domain"
        )
    return edges


def _keep(problem: Collocation, result: Any) -> None:
    """Write the parameters that a training run found, unless it trains in place."""
    value = result.value if isinstance(result, Solution) else result
    if isinstance(value, torch.Tensor):
        problem.flat.write(value)
    elif value is not None:
        raise TypeError(
            f"time_slabs got {type(result).__name__} from train; it must return a Solution, the "
            "flat vector of the parameters, or nothing where it trains problem.network in place"
        )


class _Slab:
    """Builds the terms of a slab; the residual functions receive the solution, not the network."""

    def __init__(self, solution: TimeSlabs, former: tuple[torch.nn.Module, ...]):
        self.solution = solution
        self.former = former
        self.begin, self.end = solution.edges[len(former) : len(former) + 2]

    def terms(self, terms: Any) -> list[Term]:
        """The terms for the network of this slab."""
        listed = isinstance(terms, Sequence)
        if not listed or not all(isinstance(term, Term) for term in terms):
            raise TypeError(
                f"time_slabs got terms of {shown(terms)}; give a function of the box that returns "
                "a list of Term"
            )
        return [replace(term, residual=_Residual(self, term.residual)) for term in terms]


class _Residual:
    """The residual function of a term, for the network of a slab."""

    def __init__(self, slab: _Slab, residual: Callable[..., torch.Tensor]):
        self.slab = slab
        self.residual = residual
        self._known: list[tuple[torch.Tensor, _Before]] = []  # the latest first

    def __call__(self, *networks: Derivatives) -> torch.Tensor:
        kept = _KEPT * len(networks)
        return self.residual(*(_Within(self.slab, self._before(z, kept), z) for z in networks))

    def _before(self, z: Derivatives, kept: int) -> _Before:
        points = z.points.detach()
        for known, before in self._known:
            if known.shape == points.shape and torch.equal(known, points):
                return before
        before = _Before(self.slab, points)
        self._known = [(points, before), *self._known[: kept - 1]]
        return before


class _Before:
    """The value at the beginning of a slab, as a function of points that is constant in time."""

    def __init__(self, slab: _Slab, points: torch.Tensor):
        solution, self.axis = slab.solution, slab.solution.axis
        t = points[:, self.axis]
        first = _at_time(points, self.axis, torch.full_like(t, solution.edges[0]))
        self.parts: list[Derivatives] = [Composed(lambda x, _: solution.initial(x), Points(first))]
        for end, network in zip(solution.edges[1:], slab.former, strict=False):
            at = _at_time(points, self.axis, torch.full_like(t, end))
            self.parts.append(derivatives_of(network, at))
        self._made: dict[tuple[int, ...], torch.Tensor] = {}

    def d(self, *axes: int) -> torch.Tensor | float:
        if self.axis in axes:
            return 0.0
        if axes not in self._made:
            with torch.enable_grad():
                self._made[axes] = sum(part.d(*axes).detach() for part in self.parts)  # type: ignore
        return self._made[axes]


class _Within:
    """The solution within a slab: see `Derivatives`."""

    def __init__(self, slab: _Slab, before: _Before, z: Derivatives):
        self.points = z.points
        self.axis = slab.solution.axis
        self.length = slab.end - slab.begin
        self.s = (z.points.detach()[:, self.axis] - slab.begin).unsqueeze(1) / self.length
        self.before = before
        self.z = z

    @property
    def value(self) -> torch.Tensor:
        """Values of shape (samples, outputs)."""
        return self.d()

    def d(self, *axes: int) -> torch.Tensor:
        """The value, or a derivative with respect to one or two inputs: (samples, outputs)."""
        if axes:
            Points(self.points).d(*axes)  # refuses invalid axes
        axes = tuple(sorted(axes))
        z = self.z.d(*axes)
        before = self.before.d(*axes)
        if isinstance(before, torch.Tensor) and before.shape != z.shape:
            raise ValueError(
                f"time_slabs got an initial value of shape {tuple(before.shape)} for outputs of "
                f"shape {tuple(z.shape)}; initial must give (samples, outputs), so take columns of "
                "points such as x[:, :1]"
            )
        made = before + self.s * z
        for place, axis in enumerate(axes):
            if axis == self.axis:  # s' is 1 / length, s'' is 0
                made = made + self.z.d(*axes[:place], *axes[place + 1 :]) / self.length
        return made


def _at_time(points: torch.Tensor, axis: int, time: torch.Tensor) -> torch.Tensor:
    """The same points at another time."""
    columns = [time if i == axis else points[:, i] for i in range(points.shape[1])]
    return torch.stack(columns, 1)
