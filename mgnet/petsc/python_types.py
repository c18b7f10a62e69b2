"""mgnet's cycles and smoothers as PETSc's python types, for `-snes_type python` and the like.

`-snes_python_type mgnet.petsc.Cycle` runs mgnet's schedule with PETSc's monitors, tolerances and
reasons; `-mg_levels_pc_python_type mgnet.petsc.Sweeps` and `-fas_levels_snes_python_type
mgnet.petsc.Sweeps` use mgnet's smoothers in PETSc's multigrid. Both find the hierarchy in the DM.
"""

from __future__ import annotations

import math
import re
from typing import Any

from petsc4py import PETSc

from mgnet import Smoother, parse, run, vector
from mgnet.options.reader import OptionReader, check_names
from mgnet.options.smoother_text import parse_smoother
from mgnet.petsc.dm import Place, petsc_level, place_of
from mgnet.petsc.vectors import assign, copy_of

__all__ = ["Cycle", "Sweeps", "separate_smoothers"]

CONVERGED_ITS = PETSc.SNES.ConvergedReason.CONVERGED_ITS
DIVERGED_NAN = -4  # for SNES; its name changed after PETSc 3.18
# PETSc inserts "up_" before or after its name of a level: fas_up_levels_2_, mg_levels_2_up_.
UP = re.compile(r"(^|_)up_(levels_\d+_)?$")


def separate_smoothers(snes: PETSc.SNES) -> None:
    """Give the up-smoothers of `-snes_type fas` separate options: `-fas_up_levels_2_snes_type`.

    By default PETSc uses one solver for smoothing on the way down and up. Call this function after
    `setFromOptions`. `Sweeps` with such a prefix uses the post-smoother of the level. For PCMG,
    `-pc_mg_distinct_smoothup` has the same effect.

    Parameters
    ----------
    snes : SNES of type fas
        The solver, after `setFromOptions`.

    Raises
    ------
    ValueError
        If the type of the SNES is not fas.

    Examples
    --------
    >>> from mgnet import gallery
    >>> from mgnet.petsc import dmshell
    >>> snes = PETSc.SNES().create(PETSc.COMM_SELF)
    >>> snes.setType("fas")
    >>> snes.setDM(dmshell(gallery.reaction(15)))
    >>> snes.setFASLevels(2)
    >>> separate_smoothers(snes)
    >>> snes.getFASSmootherUp(1).getOptionsPrefix()
    'fas_up_levels_1_'
    """
    if snes.getType() != "fas":
        raise ValueError(f"separate_smoothers got a SNES of type {snes.getType()}; it takes fas")
    for level in range(1, snes.getFASLevels()):
        up = snes.getFASSmootherUp(level)
        up.setOptionsPrefix(f"{snes.getOptionsPrefix() or ''}fas_up_levels_{level}_")
        up.setTolerances(max_it=1)


class Sweeps:
    """mgnet's smoother as a python-type SNES or PC: that of the level, or one set by an option.

    A SNES performs `-snes_max_it` sweeps; a PC performs `-mgnet_sweeps` sweeps from zero, 1 by
    default. The options have the prefix of the solver: `-mg_levels_mgnet_smoother "Jacobi(0.8)"`
    for all levels, `-mg_levels_2_mgnet_smoother` for one level (in PETSc's numbering, from the
    coarsest). The level's post-smoother is used after the correction if PETSc has a separate solver
    for it: with `-pc_mg_distinct_smoothup`, or after `separate_smoothers`.

    Parameters
    ----------
    smoother : Smoother, optional
        The smoother to use instead of the level's own.

    Examples
    --------
    >>> from mgnet import gallery
    >>> from mgnet.petsc import dmshell
    >>> ksp = PETSc.KSP().create(PETSc.COMM_SELF)
    >>> ksp.setDM(dmshell(gallery.poisson(31)))
    >>> ksp.getPC().setType("python")
    >>> ksp.getPC().setPythonContext(Sweeps())
    >>> x, f = ksp.getDM().createGlobalVec(), ksp.getDM().createGlobalVec()
    >>> f.set(1.0)
    >>> ksp.solve(f, x)
    >>> ksp.getConvergedReason() > 0
    True
    """

    def __init__(self, smoother: Smoother | None = None):
        self.smoother = smoother
        self.given = smoother
        self.sweeps = 1
        self.memory: Any = None

    def setFromOptions(self, solver: Any) -> None:  # noqa: N802, PETSc's name
        """Read `-mgnet_smoother` and `-mgnet_sweeps`, with the solver's prefix."""
        check_names()
        values = OptionReader(solver.getOptionsPrefix() or "")
        text = values.get("smoother", None)
        self.sweeps = values.get("sweeps", self.sweeps)
        values.help()
        if text is not None:
            self.given = parse_smoother(text, f"option {values.shown('smoother')}")

    def setUp(self, solver: Any) -> None:  # noqa: N802, PETSc's name
        """Discard factors and eigenvalues of an operator that has changed."""
        self.smoother, self.memory = self._of(solver), None

    def _of(self, solver: Any) -> Smoother:
        level = place_of(solver.getDM()).level
        if self.given is None and UP.search(solver.getOptionsPrefix() or ""):
            return level.post_smoother or level.smoother
        return self.given or level.smoother

    def _smooth(self, place: Place, u: Any, f: Any, sweeps: int) -> Any:
        level = place.level
        smoother = self.smoother or level.smoother
        if self.memory is None:
            self.memory = smoother.start(level, u)
        u, self.memory = smoother.smooth(level, u, f, sweeps, self.memory)
        return u

    def solve(self, snes: PETSc.SNES, b: PETSc.Vec | None, x: PETSc.Vec) -> None:
        """Improve x; called for a SNES."""
        place, most = place_of(snes.getDM()), snes.getTolerances()[3]
        # Copies, because the memory of a smoother may keep references to its arguments.
        u = place.found(copy_of(x, place.sample))
        f = None if b is None else copy_of(b, place.sample)
        if most:
            u = self._smooth(place, u, f, most)
            place.leave(u)
            assign(x, u)
        # FAS reads A(u) - f from here; otherwise it would use an old residual.
        F = snes.getFunction()[0]
        if place.level.residual is None:
            snes.computeFunction(x, F)
        else:
            r = place.level.residual_at(u, f)
            transfer: Any = place.level.transfer
            assign(F, -1.0 * (r if len(r) == len(u) else transfer.prolong(r)))
        norm = F.norm()
        snes.setIterationNumber(most)
        snes.setFunctionNorm(norm)
        snes.setConvergedReason(CONVERGED_ITS if math.isfinite(norm) else DIVERGED_NAN)

    def apply(self, pc: PETSc.PC, x: PETSc.Vec, y: PETSc.Vec) -> None:
        """Apply sweeps from zero; called for a PC."""
        place = place_of(pc.getDM())
        u, f = vector.zeros_like(place.sample), copy_of(x, place.sample)
        assign(y, self._smooth(place, u, f, self.sweeps))

    def view(self, solver: Any, viewer: PETSc.Viewer) -> None:
        """Add one line to PETSc's view of the solver."""
        smoother = self.smoother or "the smoother of the level"
        viewer.printfASCII(f"  mgnet sweeps: {smoother}\n")


class Cycle:
    """mgnet's schedule as a python-type SNES or PC.

    A SNES repeats the cycle until PETSc's convergence test stops it, with PETSc's monitors and
    reasons; a PC applies one cycle from zero, on a linear hierarchy. The option `-mgnet_cycle`,
    with the prefix of the solver, sets the cycle; with `-npc_snes_type python`, it is
    `-npc_mgnet_cycle`.

    Parameters
    ----------
    cycle : str
        The cycle in the notation of `Solver`; the option takes precedence.

    Examples
    --------
    >>> from mgnet import gallery
    >>> from mgnet.petsc import dmshell
    >>> snes = PETSc.SNES().create(PETSc.COMM_SELF)
    >>> snes.setDM(dmshell(gallery.reaction(31)))
    >>> snes.setType("python")
    >>> snes.setPythonContext(Cycle("F(2,1)"))
    >>> x, f = snes.getDM().createGlobalVec(), snes.getDM().createGlobalVec()
    >>> f.set(1.0 / 32)
    >>> snes.solve(f, x)
    >>> snes.getConvergedReason() > 0
    True
    """

    def __init__(self, cycle: str = "V(1,1)"):
        self.cycle = cycle
        self.memory: dict = {}

    def setFromOptions(self, solver: Any) -> None:  # noqa: N802, PETSc's name
        """Read `-mgnet_cycle`, with the solver's prefix."""
        check_names()
        values = OptionReader(solver.getOptionsPrefix() or "")
        self.cycle = values.get("cycle", self.cycle)
        values.help()

    def setUp(self, solver: Any) -> None:  # noqa: N802, PETSc's name
        """Check the cycle, and discard stored data of an operator that has changed."""
        self.memory = {}
        self._schedule(place_of(solver.getDM()))

    def _schedule(self, place: Place) -> Any:
        if place.number:
            raise ValueError(
                "mgnet.petsc.Cycle is on the level "
                f"{petsc_level(place.number, len(place.hierarchy))} of PETSc; a whole cycle runs "
                "on the finest: use mgnet.petsc.Sweeps here"
            )
        return parse(self.cycle, len(place.hierarchy))

    def solve(self, snes: PETSc.SNES, b: PETSc.Vec | None, x: PETSc.Vec) -> None:
        """Repeat the cycle; called for a SNES."""
        place = place_of(snes.getDM())
        schedule = self._schedule(place)
        f = None if b is None else copy_of(b, place.sample)
        F, most = snes.getFunction()[0], snes.getTolerances()[3]
        u, cycles = copy_of(x, place.sample), 0
        while True:
            snes.computeFunction(x, F)
            norm = F.norm()
            snes.setIterationNumber(cycles)
            snes.setFunctionNorm(norm)
            snes.logConvergenceHistory(norm, 0)
            snes.monitor(cycles, norm)
            if math.isfinite(norm):
                reason = snes.callConvergenceTest(cycles, 0.0, 0.0, norm)
            else:
                reason = DIVERGED_NAN  # the convergence test would raise an error
            if not reason and cycles == most:
                reason = PETSc.SNES.ConvergedReason.DIVERGED_MAX_IT
            if reason:
                snes.setConvergedReason(reason)
                return
            try:
                u, self.memory = run(schedule, place.hierarchy, u, f, self.memory)
            except FloatingPointError:  # x remains the last finite state
                snes.setConvergedReason(DIVERGED_NAN)
                return
            assign(x, u)
            cycles += 1

    def apply(self, pc: PETSc.PC, x: PETSc.Vec, y: PETSc.Vec) -> None:
        """Apply one cycle from zero; called for a PC.

        Raises
        ------
        ValueError
            If the levels are not linear.
        """
        place = place_of(pc.getDM())
        if place.level.matrix is None:
            raise ValueError(
                f"mgnet.petsc.Cycle is a preconditioner for linear levels; {place.level} is not: "
                "use it as -snes_type python, or -pc_type mg for Newton's equation"
            )
        f = copy_of(x, place.sample)
        try:
            u, self.memory = run(self._schedule(place), place.hierarchy, None, f, self.memory)
        except FloatingPointError:
            y.set(math.nan)  # KSP then stops and reports a reason
            return
        assign(y, u)

    def view(self, solver: Any, viewer: PETSc.Viewer) -> None:
        """Add the cycle to PETSc's view of the solver."""
        viewer.printfASCII(f"  mgnet cycle: {self.cycle}\n")
