"""TAO, PETSc's optimizers, as smoothers of levels with an objective."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from petsc4py import PETSc

from mgnet import Smoother, vector
from mgnet.petsc.ksp_smoother import with_options
from mgnet.petsc.petsc_errors import original_errors
from mgnet.petsc.vectors import assign, copy_of, free_dropped, vec_like, view
from mgnet.training import Objective
from mgnet.training.loss.checks import check_finite

if TYPE_CHECKING:
    from mgnet.level import Level

__all__ = ["TAOSmoother"]

State = Any


@dataclass(frozen=True, eq=False)
class TAOSmoother(Smoother):
    """Minimizes `J(u) - <f, u>` with TAO; a sweep is a TAO iteration, and each visit restarts TAO.

    TAO works in double precision: parameters of another precision are converted both ways.

    Parameters
    ----------
    prefix : str
        Prefix of the options for the TAO: `-train_tao_type bncg`.
    options : mapping, optional
        Options set by the script, without the prefix: `{"tao_type": "bncg"}`; the command line
        takes precedence. The default is lmvm, a limited-memory quasi-Newton method.

    Examples
    --------
    >>> import numpy as np
    >>> from mgnet import Hierarchy, Level, Solver
    >>> level = Level(lambda u: u**3, TAOSmoother(), objective=lambda u: float((u**4).sum()) / 4)
    >>> solution = Solver(Hierarchy([level]), "V(0,0,20)", rtol=1e-6).solve(np.array([8.0, 1.0]))
    >>> solution.value.round(4)
    array([2., 1.])
    """

    prefix: str = "train_"
    options: Mapping[str, Any] = field(default_factory=dict)
    fixed_work: ClassVar[bool] = False

    def start(self, level: Level, u: State) -> Any:
        if level.objective is None:
            raise TypeError(f"{self} on {level}: there is no objective to minimize")
        x = vec_like(u)
        tao = PETSc.TAO().create(x.getComm())
        tao.setType("lmvm")
        tao.setOptionsPrefix(self.prefix)
        with with_options(self.prefix, self.options):
            tao.setFromOptions()
        return tao, x

    def smooth(
        self, level: Level, u: State, f: State | None, sweeps: int, memory: Any
    ) -> tuple[State, Any]:
        tao, x = memory
        free_dropped(x.getComm())
        task = _Task(self, level, u, f)
        assign(x, u)
        tao.setObjectiveGradient(task.evaluate, None)
        tao.setSolution(x)
        tao.setMaximumIterations(sweeps)
        try:
            with original_errors(tao):
                tao.solve()
        except PETSc.Error:
            if math.isfinite(task.value):
                raise
            return u * math.nan, memory  # ends the solve with a reason
        return copy_of(x, u), memory

    def __str__(self) -> str:
        return f"TAOSmoother({self.prefix!r})"


class _Task:
    """The minimization problem of one visit."""

    def __init__(self, smoother: TAOSmoother, level: Level, like: State, f: State | None):
        self.smoother = smoother
        self.level = level
        self.like = like
        self.f = f
        self.value = 0.0
        self.began = False

    def evaluate(self, tao: PETSc.TAO, x: PETSc.Vec, g: PETSc.Vec) -> float:
        """Objective and gradient at x."""
        level, f = self.level, self.f
        u = view(x, self.like)
        if isinstance(level.operator, Objective):
            self.value, gradient = level.operator.value_and_gradient(u)
            level.charge(1.0)
            if f is not None:
                self.value -= vector.dot(f, u)
        else:
            self.value, gradient = level.value(u, f), level.apply(u)
        if not self.began:
            check_finite(self.smoother, level, u, self.value, gradient)
            self.began = True
        assign(g, gradient if f is None else gradient - f)
        return self.value
