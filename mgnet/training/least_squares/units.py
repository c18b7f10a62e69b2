"""The unit of each unknown, which makes steps in different unknowns comparable.

Levenberg-Marquardt limits the length of a step, so it needs a measure of length. The weights of a
network are of one kind and share a unit. If each had its own, weights that affect few samples would
diverge. Parameters of a formula (a rate, a temperature) have units of their own. The column norms
of the Jacobian give the sizes of these units, which makes the iteration independent of the user's
choice of units.
Source: Moré, "The Levenberg-Marquardt algorithm: implementation and theory" (1978), section 3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import torch

__all__ = ["Proportion", "Scale", "Unknowns", "check_scale", "size_of"]

#: Types of `x_scale`.
Scale = str | float | torch.Tensor | np.ndarray | Sequence[float] | Mapping[str, Any]


def check_scale(owner: str, x_scale: Any) -> None:
    """Check that a scale is "auto", "jac", positive numbers, or a mapping from names to these.

    Raises
    ------
    TypeError, ValueError
        If the scale has the wrong type or value.

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
        if not numeric and not isinstance(value, torch.Tensor | np.ndarray | list | tuple):
            raise TypeError(
                f'{owner} got x_scale of type {type(value).__name__}; give "auto", "jac", a '
                "number, a tensor, array or list with a number for each unknown, or a dict of them "
                "by the names of parameters"
            )
        numbers = torch.as_tensor(value)
        if not bool((torch.isfinite(numbers) & (numbers > 0.0)).all()):
            raise ValueError(f"{owner} got x_scale {value}; scales must be positive and finite")


class Proportion(NamedTuple):
    """Sizes of the parameters of a network relative to each other.

    Attributes
    ----------
    units : tuple of float
        Unit of each parameter; different from 1 only if residuals are linear in it.
    """

    units: tuple[float, ...]

    @property
    def plain(self) -> bool:
        """Whether all units are 1."""
        return all(unit == 1.0 for unit in self.units)


@dataclass(frozen=True, eq=False)
class Unknowns:
    """The unknowns of a problem, grouped by the source of their units.

    Parameters
    ----------
    problem : LeastSquares
        Problem of the unknowns.
    count : int
        Number of unknowns.
    x_scale : str, float, tensor or mapping
        With "auto", the weights of a network share a unit, and every other unknown has its own;
        with "jac", every unknown has its own. Numbers are typical step sizes, as for SciPy's
        `least_squares`.

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
        """The names of the parameters and the slices of their unknowns; empty in a coarse space."""
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
        """For each unknown, whether the Jacobian gives its unit."""
        found = torch.zeros(self.count, dtype=torch.bool)
        if self.x_scale == "jac" or (self.x_scale == "auto" and self.problem.tells_units):
            for name, place in self.tensors:
                found[place] = self.x_scale == "jac" or not self._is_weight(name)
        return found

    def _is_weight(self, name: str) -> bool:
        """Whether the parameter is a matrix, belongs to one, or is a vector in a PyTorch layer."""
        owner, _, _ = name.rpartition(".")
        module = self.problem.flat.module.get_submodule(owner)
        held = module.parameters(recurse=False)
        boxes = torch.nn.ParameterList, torch.nn.ParameterDict
        if isinstance(module, boxes):
            return self.problem.shapes[name].__len__() > 1
        layer = type(module).__module__.startswith(("torch.nn.modules.", "mgnet."))
        return any(p.dim() > 1 for p in held) or (layer and type(module) is not torch.nn.Module)

    @cached_property
    def given(self) -> torch.Tensor | None:
        """The scales as numbers, one for each unknown; None if no numbers are given.

        Raises
        ------
        ValueError
            If a name or a shape does not fit.
        """
        if isinstance(self.x_scale, str) or (isinstance(self.x_scale, Real) and self.x_scale == 1):
            return None
        scales = torch.ones(self.count, dtype=torch.float64)
        if not isinstance(self.x_scale, Mapping):
            return scales * self._fitting(self.x_scale, (self.count,), "all unknowns").reshape(-1)
        places = dict(self.tensors)
        for name, value in self.x_scale.items():
            if name not in places:
                raise ValueError(
                    f"x_scale names {name!r}, which is not a trained parameter; these are "
                    f"{', '.join(places)}"
                )
            shape = tuple(self.problem.shapes[name])
            scales[places[name]] = self._fitting(value, shape, name).reshape(-1)
        return scales

    @staticmethod
    def _fitting(value: Any, shape: tuple[int, ...], name: str) -> torch.Tensor:
        numbers = torch.as_tensor(value).double().cpu()
        try:
            return numbers.expand(shape)
        except RuntimeError:
            raise ValueError(
                f"x_scale got shape {tuple(numbers.shape)} for {name}, of shape {shape}; give one "
                "number, or one for each"
            ) from None

    def sizes(
        self,
        columns: torch.Tensor,
        proportion: Proportion | None,
        norms: torch.Tensor | None,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """The unit of each unknown (None if all are 1), and the largest column norms so far.

        Parameters
        ----------
        columns : tensor of shape (unknowns,)
            The diagonal of `J^T J`.
        proportion : Proportion, optional
            Sizes of the parameters of a network.
        norms : tensor, optional
            The largest column norms so far, for the unknowns with units of their own.
        """
        if self.given is not None:
            return self.given.to(columns.device), None
        unit = torch.ones(self.count, dtype=torch.float64, device=columns.device)
        shares = False
        if proportion is not None and self.knows(proportion) and not proportion.plain:
            shares = True
            for place, size in zip(self.places, proportion.units, strict=True):
                unit[place] = size
        own = self.own
        if not bool(own.any()):
            return (unit if shares else None), None
        far = columns.device.type != "cpu"
        all_own, some = bool(own.all()), own
        if far:  # indices: for a mask the host would wait until the device has counted it
            some = own.nonzero()[:, 0].to(columns.device)
        now = columns[some].sqrt()
        if norms is None or norms.shape != now.shape:  # another level had other unknowns
            norms = now
        norms = torch.maximum(norms, now)
        if not all_own and far:
            others = (~own).nonzero()[:, 0].to(columns.device)
            shared = (columns * unit.square())[others].mean().sqrt()
            unit = unit / torch.where(shared != 0.0, shared, 1.0)
        elif not all_own:
            shared = float((columns * unit.square())[~own].mean()) ** 0.5
            unit = unit / (shared or 1.0)
        # For a column that was always zero, any unit works.
        unit[some] = torch.where(norms > 0.0, norms, 1.0).reciprocal()
        return unit, norms

    def knows(self, proportion: Proportion | None) -> bool:
        """Whether the proportion is known and has the same number of parameters."""
        return proportion is not None and len(proportion.units) == len(self.tensors)

    @property
    def places(self) -> list[slice]:
        """The slice of unknowns that each parameter occupies."""
        return [place for _, place in self.tensors]


def size_of(d: torch.Tensor, unit: torch.Tensor | None) -> float:
    """`|D d|`."""
    return float((d if unit is None else d / unit).norm())
