"""The unit of each unknown: what makes a step in one comparable with a step in another.

Levenberg-Marquardt limits the length of a step, so it needs to know what a long step is. Weights of
a network are of one kind and share a unit: with a unit of its own for each, those that few samples
see run away. Parameters of a formula (a rate, a temperature) have units of their own; the column
norms of the Jacobian tell their sizes, and with these the iteration is the same in every unit.
Source: Moré, "The Levenberg-Marquardt algorithm: implementation and theory" (1978), section 3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import Any

import torch

from mgnet.level import Level
from mgnet.training.least_squares.scaling import precision

__all__ = ["Scale", "Unknowns", "check_scale"]

#: What `x_scale` may be.
Scale = str | float | torch.Tensor | Mapping[str, Any]

FAR = 10.0  # residuals so many times what the unknowns give at their present size


def check_scale(owner: str, x_scale: Any) -> None:
    """Raise unless it is "auto", "jac", a positive number, a tensor, or a mapping of such.

    Raises
    ------
    TypeError, ValueError

    Examples
    --------
    >>> check_scale("levenberg_marquardt", -1.0)
    Traceback (most recent call last):
    ValueError: levenberg_marquardt got x_scale -1.0; scales must be positive and finite
    """
    if isinstance(x_scale, str):
        if x_scale not in ("auto", "jac"):
            raise ValueError(f'{owner} got x_scale {x_scale!r}; give "auto", "jac" or numbers')
        return
    for value in x_scale.values() if isinstance(x_scale, Mapping) else (x_scale,):
        numeric = isinstance(value, Real) and not isinstance(value, bool)
        if not numeric and not isinstance(value, torch.Tensor):
            raise TypeError(
                f'{owner} got x_scale of type {type(value).__name__}; give "auto", "jac", a '
                "number, a tensor with a number for each unknown, or a dict of such by the names "
                "of parameters"
            )
        numbers = torch.as_tensor(value)
        if not bool((torch.isfinite(numbers) & (numbers > 0.0)).all()):
            raise ValueError(f"{owner} got x_scale {value}; scales must be positive and finite")


@dataclass(frozen=True, eq=False)
class Unknowns:
    """The unknowns of a problem, sorted by what their units are.

    Parameters
    ----------
    problem : LeastSquares
    count : int
        Of its unknowns.
    x_scale : str, float, tensor or mapping
        "auto": one unit for the weights of a network, one each for other parameters. "jac": one
        each for all. Numbers are typical sizes of steps, as in SciPy's `least_squares`.

    Examples
    --------
    >>> from mgnet.training import LeastSquares
    >>> module = torch.nn.Module()
    >>> module.rate = torch.nn.Parameter(torch.tensor([500.0, 1e-4]))
    >>> problem = LeastSquares.from_torch(module, lambda module: module.rate)
    >>> Unknowns(problem, 2).own.tolist()
    [True, True]
    >>> Unknowns(LeastSquares.from_torch(torch.nn.Linear(1, 1), lambda m: m.weight), 2).own.tolist()
    [False, False]
    """

    problem: Any
    count: int
    x_scale: Scale = "auto"

    @cached_property
    def tensors(self) -> list[tuple[str, slice]]:
        """The names of the parameters, and where their unknowns are; none in a coarse space."""
        shapes, first, found = self.problem.shapes, 0, []
        for name, shape in shapes.items():
            found.append((name, slice(first, first + math.prod(shape))))
            first += math.prod(shape)
        return found if first == self.count else []

    @cached_property
    def formula(self) -> bool:
        """Whether no unknown is a weight of a network."""
        telling = bool(self.tensors) and self.problem.tells_units
        return telling and not any(self._is_weight(name) for name, _ in self.tensors)

    @cached_property
    def own(self) -> torch.Tensor:
        """Of each unknown, whether the Jacobian tells its unit."""
        found = torch.zeros(self.count, dtype=torch.bool)
        if self.x_scale == "jac" or (self.x_scale == "auto" and self.problem.tells_units):
            for name, place in self.tensors:
                found[place] = self.x_scale == "jac" or not self._is_weight(name)
        return found

    def _is_weight(self, name: str) -> bool:
        """Matrices, what stands beside one, and vectors of PyTorch's own layers."""
        owner, _, _ = name.rpartition(".")
        module = self.problem.flat.module.get_submodule(owner)
        held = module.parameters(recurse=False)
        boxes = torch.nn.ParameterList, torch.nn.ParameterDict
        if isinstance(module, boxes):
            return self.problem.shapes[name].__len__() > 1
        own_layer = type(module).__module__.startswith("torch.nn.modules.")
        return any(p.dim() > 1 for p in held) or (own_layer and type(module) is not torch.nn.Module)

    @cached_property
    def given(self) -> torch.Tensor | None:
        """The scales as numbers, one for each unknown; None where they are not given."""
        if isinstance(self.x_scale, str) or (isinstance(self.x_scale, Real) and self.x_scale == 1):
            return None
        scales = torch.ones(self.count, dtype=torch.float64)
        if not isinstance(self.x_scale, Mapping):
            return scales * self._fitting(self.x_scale, (self.count,), "all unknowns").reshape(-1)
        places = dict(self.tensors)
        for name, value in self.x_scale.items():
            if name not in places:
                raise ValueError(
                    f"x_scale names {name!r}, which is no parameter that is trained; those are "
                    f"{', '.join(places)}"
                )
            shape = tuple(self.problem.shapes[name])
            scales[places[name]] = self._fitting(value, shape, name).reshape(-1)
        return scales

    @staticmethod
    def _fitting(value: Any, shape: tuple[int, ...], name: str) -> torch.Tensor:
        numbers = torch.as_tensor(value).double()
        try:
            return numbers.expand(shape)
        except RuntimeError:
            raise ValueError(
                f"x_scale got shape {tuple(numbers.shape)} for {name}, of shape {shape}; give one "
                "number, or one for each"
            ) from None

    def sizes(
        self, columns: torch.Tensor, units: tuple[float, ...], norms: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """The unit of each unknown, None where all are 1; and the column norms seen so far.

        Parameters
        ----------
        columns : tensor of shape (unknowns,)
            The diagonal of `J^T J`.
        units : tuple of float
            Of each parameter of a network, relative to the others; empty for 1.
        norms : tensor, optional
            The largest column norms so far, of the unknowns with units of their own.
        """
        if self.given is not None:
            return self.given, None
        unit = torch.ones(self.count, dtype=torch.float64)
        if units:
            for (_, place), size in zip(self.tensors, units, strict=True):
                unit[place] = size
        own = self.own
        if not bool(own.any()):
            return (unit if any(size != 1.0 for size in units) else None), None
        now = columns[own].sqrt()
        if norms is None or norms.shape != now.shape:  # another level had others
            norms = now
        norms = torch.maximum(norms, now)
        if not bool(own.all()):
            shared = float((columns * unit.square())[~own].mean()) ** 0.5
            unit = unit / (shared or 1.0)
        # A column that was always zero: any unit will do.
        unit[own] = torch.where(norms > 0.0, norms, 1.0).reciprocal()
        return unit, norms

    def units(
        self, level: Level, u: torch.Tensor, r: torch.Tensor, J: Any, columns: torch.Tensor
    ) -> tuple[float, ...]:
        """Units of the parameters of a network, relative to each other: 1, unless targets are far.

        Where targets are hundreds of times larger than what a network gives, its last layer has to
        grow as much and the others have not. With one unit for all, these saturate on the way. So
        the parameters in which residuals are linear are measured in the size of the targets.

        Parameters
        ----------
        level : Level
            Work is charged to it.
        u, r : tensor
        J : Jacobian
        columns : tensor of shape (unknowns,)
            The diagonal of `J^T J`.
        """
        shared = [(name, place) for name, place in self.tensors if not bool(self.own[place].any())]
        if not shared or self.x_scale != "auto" or not self.problem.tells_units:
            return ()
        typical = float(torch.cat([u[place] for _, place in shared]).double().square().mean())
        if not self._far(r, columns, typical, [place for _, place in shared]):
            return ()
        linear: list[slice] = []
        probe = torch.zeros_like(u)
        for _, place in reversed(shared):
            further = torch.zeros_like(u)
            count = place.stop - place.start
            further[place] = torch.arange(1.0, count + 1.0, dtype=u.dtype).cos()
            if self._linear(level, u, r, J, probe, further):
                linear.append(place)
        ratio = self._far(r, columns, typical, linear)
        if not ratio:
            return ()
        return tuple(ratio if place in linear else 1.0 for _, place in self.tensors)

    def _far(
        self, r: torch.Tensor, columns: torch.Tensor, typical: float, places: list[slice]
    ) -> float:
        """How many times `FAR` larger than what unknowns of typical size give; 0 if not."""
        given = typical * sum(float(columns[place].sum()) for place in places)
        needed = 2.0 * self.problem.half_square(r)
        if not 0.0 < given < math.inf or not needed < math.inf:
            return 0.0
        ratio = (needed / given) ** 0.5 / FAR
        return ratio if ratio > 1.0 else 0.0

    def _linear(
        self,
        level: Level,
        u: torch.Tensor,
        r: torch.Tensor,
        J: Any,
        probe: torch.Tensor,
        further: torch.Tensor,
    ) -> bool:
        """Whether residuals are linear in a further direction beside others; it joins the probe.

        At a length that changes them by their own size: curvature shows there, also in float32.
        """
        half = self.problem.half_square
        change = half(J.matvec(further.double()))
        if not change:
            return False
        d = probe + (half(r) / change) ** 0.5 * further
        image = J.matvec(d.double())
        bend = half(self.problem.residuals(u + d) - r - image)
        level.charge(1.0 / 3.0)
        if not bend <= (1e3 * precision(self.problem)) ** 2 * half(image):
            return False
        probe.copy_(d)
        return True
