"""Relaxation of the layer equation, and its serial solution on the coarsest level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mgnet.limits import is_number, shown
from mgnet.smoother import Smoother

if TYPE_CHECKING:
    from mgnet.level import Level

__all__ = ["Relaxation", "SerialSweep"]

State = Any
MOST_LETTERS = 64


@dataclass(frozen=True)
class Relaxation(Smoother):
    """Relaxation over F- and C-layers, in an order given as a word.

    F marches from every C-point to the next one, and C replaces the C-points with the values that
    arrive there; all intervals are processed in one batched call. A second F directly after F
    changes nothing and costs nothing. A word that ends in C leaves stale F-points. Source: Falgout
    et al., SIAM J. Sci. Comput. 36 (2014), section 2; for weights, see Sugiyama, Schroder,
    Southworth, Friedhoff, "Weighted relaxation for multigrid reduction in time", Numer. Linear
    Algebra Appl. 30 (2023).

    Parameters
    ----------
    order : str
        The word, such as "F", "FCF", "FCFCF".
    weight : float
        Weight of the new value in C-relaxation, dimensionless; 1 is unweighted.

    Raises
    ------
    ValueError
        If the order or the weight is invalid.

    Examples
    --------
    >>> print(Relaxation("FCF", weight=1.3))
    Relaxation('FCF', 1.3)
    """

    order: str = "F"
    weight: float = 1.0
    fixed_work: ClassVar[bool] = False  # a state that is already relaxed costs nothing

    def __post_init__(self) -> None:
        word = isinstance(self.order, str) and 0 < len(self.order) <= MOST_LETTERS
        if not word or set(self.order) - {"F", "C"}:
            raise ValueError(
                f"Relaxation got the order {shown(self.order)}; give a word of F and C, such as "
                f"'FCF', of at most {MOST_LETTERS} letters"
            )
        if not is_number(self.weight, 0.0, 2.0, open=True):
            raise ValueError(
                f"Relaxation got the weight {shown(self.weight)}; it must lie between 0 and 2"
            )

    def smooth(
        self, level: Level, u: State, f: State | None, sweeps: int, memory: Any
    ) -> tuple[State, Any]:
        equation = level.operator
        for letter in (letter for _ in range(sweeps) for letter in self.order):
            u = equation.relax(u, f) if letter == "F" else equation.relax_c(u, f, self.weight)
        return u, memory

    def work(self, level: Level, sweeps: int) -> float:
        c_part = level.residual_cost
        return sweeps * sum(1.0 - c_part if letter == "F" else c_part for letter in self.order)

    def __str__(self) -> str:
        weight = "" if self.weight == 1.0 else f", {self.weight:g}"
        return f"Relaxation({self.order!r}{weight})"


@dataclass(frozen=True)
class SerialSweep(Smoother):
    """The exact solution, computed layer by layer: the coarse solver of MGRIT.

    Examples
    --------
    >>> print(SerialSweep())
    SerialSweep()
    """

    def smooth(
        self, level: Level, u: State, f: State | None, sweeps: int, memory: Any
    ) -> tuple[State, Any]:
        return level.operator.march(f), memory

    def work(self, level: Level, sweeps: int) -> float:
        return 1.0
