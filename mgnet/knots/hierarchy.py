"""A hierarchy of KANs that differ only in their knots."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import scipy.sparse as sp
import torch

from mgnet.hierarchy import Hierarchy
from mgnet.knots.kan import KAN
from mgnet.knots.kan_options import (
    check_coefficients,
    check_layers,
    checked_factor,
    layer_factors,
    told_intervals,
)
from mgnet.knots.network_state import check_plain_tensors
from mgnet.knots.refinement import coarsening_matrices, refinement_matrices
from mgnet.knots.spline_operator import SplineOperator, is_long
from mgnet.level import Level
from mgnet.limits import is_count, shown
from mgnet.smoother import Smoother
from mgnet.training.levels import network_levels
from mgnet.training.loss.objective import Objective, check_objective
from mgnet.training.loss.parameters import FlatParameters, lift
from mgnet.transfer import AxisTransfer, PackedTransfer

__all__ = ["knot_hierarchy", "knot_transfer", "kronecker_matrix"]

MOST_LEVELS = 200  # for these, only the finest is checked: 2^199 intervals fit into no machine


def knot_transfer(
    kan: torch.nn.Module, factor: int = 2, layers: Sequence[int] | None = None
) -> PackedTransfer:
    """The transfer between the trained parameters of `kan` and of `kan.refine(factor, layers)`.

    Prolongation is knot insertion on the spline axis of every refined layer. Solutions are
    restricted by L2 projection, as in `kan.coarsen`. All other parameters are copied; those that
    require no gradient are not part of the vector.

    Parameters
    ----------
    kan : torch.nn.Module
        The coarse network: a KAN, or a module that contains one, such as `mgnet.training.Ansatz`.
    factor : int
        Refinement factor, at least 2.
    layers : sequence of int, optional
        The layers to refine, as in `KAN.refine`.

    Returns
    -------
    PackedTransfer
        The transfer of flat vectors.

    Raises
    ------
    TypeError
        If there is not exactly one KAN.

    Examples
    --------
    >>> kan = KAN([1, 1], intervals=1, degree=1)
    >>> u = torch.tensor([0.0, 1.0], dtype=torch.float64)
    >>> knot_transfer(kan).prolong(u).tolist()
    [0.0, 0.5, 1.0]
    """
    pairs = parameter_transfers(kan, factor, layers)
    return PackedTransfer(tuple((tuple(p.shape), t) for p, t in pairs if p.requires_grad))


def parameter_transfers(
    kan: torch.nn.Module, factor: int = 2, layers: Sequence[int] | None = None
) -> list[tuple[torch.nn.Parameter, AxisTransfer | None]]:
    """Each parameter, trained or not, with its transfer, or None if it is copied."""
    inner = held_kan(kan)
    check_plain_tensors(inner.coefficients, "knot_transfer")
    factors = layer_factors("knot_transfer", factor, layers, inner.coefficients)
    ups = refinement_matrices(inner.intervals, inner.degree, factors)
    downs = coarsening_matrices(inner.intervals, inner.degree, factors)
    of_splines = {}
    for by, up, down, u in zip(factors, ups, downs, inner.coefficients, strict=True):
        if by == 1:
            continue
        # Not torch's sparse matrices, because `torch.func.vmap`, which `ProlongedJacobian` needs,
        # has no product for them.
        P: Any = SplineOperator((up,)) if is_long(up) else up.toarray()
        P, R = (_as_tensor(matrix, u) for matrix in (P, down))
        of_splines[id(u)] = AxisTransfer(P, axis=1, injection=R)
    return [(p, of_splines.get(id(p))) for p in kan.parameters()]


def _as_tensor(matrix: Any, u: torch.Tensor) -> Any:
    """An object that multiplies the coefficients u, in at least single precision."""
    if isinstance(matrix, SplineOperator):
        return matrix
    return torch.as_tensor(matrix).to(lift(u.detach()))


def held_kan(network: torch.nn.Module) -> KAN:
    """Return the only KAN in a module.

    Raises
    ------
    TypeError
        If there is not exactly one KAN.
    """
    found = [part for part in network.modules() if isinstance(part, KAN)]
    if len(found) != 1:
        raise TypeError(
            f"a hierarchy of knots got a {type(network).__name__} with {len(found)} KANs in it; "
            "it must be a KAN or contain one"
        )
    return found[0]


def refined(network: torch.nn.Module, factor: int, layers: Sequence[int]) -> torch.nn.Module:
    """The same module with its KAN refined and all other parameters copied."""
    inner = held_kan(network)
    # A deep copy looks into the memo first, and so uses the fine KAN in place of the coarse one.
    return copy.deepcopy(network, {id(inner): inner.refine(factor, layers)})


def kronecker_matrix(
    kan: KAN, factor: int = 2, layers: Sequence[int] | None = None
) -> sp.csr_matrix:
    """The prolongation of `knot_transfer(kan, factor, layers)` as a matrix for PETSc and SciPy.

    It is block diagonal over the layers: `I_inputs (x) P (x) I_outputs`, and the identity for
    parameters that are not splines. `mgnet.petsc.matrices` multiplies without forming the Kronecker
    products.

    Parameters
    ----------
    kan : KAN
        The coarse network.
    factor : int
        Refinement factor, at least 2.
    layers : sequence of int, optional
        The layers to refine, as in `KAN.refine`.

    Returns
    -------
    csr_matrix of shape (parameters of kan.refine(factor, layers), parameters of kan)
        The prolongation.

    Examples
    --------
    >>> kronecker_matrix(KAN([2, 3, 1], intervals=4)).shape
    (99, 63)
    """
    check_plain_tensors(kan.coefficients, "kronecker_matrix")
    matrices = zip(kan.refinement_matrices(factor, layers), kan.coefficients, strict=True)
    of_splines = {id(u): P for P, u in matrices}
    blocks = []
    for u in kan.parameters():
        if id(u) in of_splines:
            inputs, _, outputs = u.shape
            P = of_splines[id(u)]
            blocks.append(sp.kron(sp.kron(sp.eye(inputs), P), sp.eye(outputs)))
        else:
            blocks.append(sp.eye(u.numel()))
    return sp.csr_matrix(sp.block_diag(blocks))


def _plan(kan: KAN, levels: int, factor: int, most: Any) -> list[list[int]]:
    """The layers that take part in each refinement, coarsest first.

    An error is raised before the first refinement if the finest network does not fit into memory.
    """
    what, intervals, plan = f"knot_hierarchy got {shown(levels)} levels", [*kan.intervals], []
    caps = _checked_caps(kan, most)
    for level in range(1, min(levels, MOST_LEVELS)):
        own = [n for n, cap in enumerate(caps) if cap is None or factor * intervals[n] <= cap]
        if not own:
            raise ValueError(
                f"{what}, but with most_intervals {shown(most)} and factor {factor} no layer of "
                f"{told_intervals(kan.intervals)} can be refined more than {level - 1} times; "
                f"give levels={level} at most"
            )
        check_layers(f"knot_hierarchy got most_intervals {shown(most)}", own, kan.coefficients)
        intervals = [factor * n if k in own else n for k, n in enumerate(intervals)]
        plan.append(own)
    told = f"{what} and factor {shown(factor)}: the finest has {shown(intervals)} intervals"
    check_coefficients(told, kan.widths[-len(intervals) - 1 :], intervals, kan.degree)
    return plan


def _checked_caps(kan: KAN, most: Any) -> list[int | None]:
    several = isinstance(most, Sequence) and not isinstance(most, str)
    caps: list[Any] = list(most) if several else [most] * len(kan.intervals)
    if len(caps) != len(kan.intervals) or not all(cap is None or is_count(cap) for cap in caps):
        raise ValueError(
            f"knot_hierarchy got most_intervals {shown(most)} for {len(kan.intervals)} spline "
            "layers; give a positive integer, or one (or None) per layer"
        )
    for number, (cap, n) in enumerate(zip(caps, kan.intervals, strict=True)):
        if cap is not None and cap < n:
            raise ValueError(
                f"knot_hierarchy got most_intervals {shown(most)}, but layer {number} has "
                f"{n} intervals already; for a layer that shall not be refined, give its own number"
            )
    return caps


def knot_hierarchy(
    kan: torch.nn.Module,
    objective: Objective,
    levels: int,
    smoother: Smoother,
    *,
    factor: int = 2,
    form: str = "subspace",
    samples: Sequence[float] | None = None,
    most_intervals: int | Sequence[int | None] | None = None,
) -> Hierarchy:
    """Build levels of KANs, each with `factor` times as many intervals as the next coarser one.

    With `most_intervals`, a layer is refined until it has this many intervals: starting from 8
    intervals, `(None, 16)` gives two layers (8, 8), (16, 16), (32, 16), (64, 16) and so on.

    The levels are nested: the coarse network with coefficients u is the fine network with P u, so
    refinement changes no output. The two values of `form` differ in the coarse problem for a fine
    state u. With both, a line search safeguards the correction, so no correction raises the
    objective.

    Parameters
    ----------
    kan : torch.nn.Module
        The coarsest network: a KAN, or a module that contains one, such as `mgnet.training.Ansatz`.
        Parameters that require no gradient are not trained, but refined exactly.
    objective : Objective
        The objective, bound to any of the networks; `objective.with_network(network)` binds it to
        the network of a level.
    levels : int
        Number of levels.
    smoother : Smoother
        The smoother of all levels, including the coarsest.
    factor : int
        Refinement factor, at least 2.
    form : "subspace" or "injected"
        The coarse problem. "subspace": minimization of the fine objective over u + P w, at the cost
        of the fine level, in the coarse space around u. "injected": the objective of the coarse
        network, starting from the L2 projection of u, with a linear term that makes the gradients
        agree (MG/OPT: Nash, Optim. Methods Softw. 14 (2000) 99-116); after second-order smoothing,
        the line search often shortens or rejects its corrections.
    samples : sequence of float, optional
        The fraction of the samples that each level uses, finest first, for schedules that go from
        coarse to fine; coarse networks need fewer samples. By default all levels use all samples.
    most_intervals : int or sequence of (int or None), optional
        Largest number of intervals of a layer, one for all layers or one for each; None means no
        limit. A layer with a smooth function needs few intervals, and more would fit the noise of
        sparse data.

    Returns
    -------
    Hierarchy
        The levels. `hierarchy.network(level, u)` returns the network of a level with the parameters
        u; `hierarchy.with_data(batch)` returns the same levels with `objective.with_data(batch)`.

    Raises
    ------
    TypeError
        If the module does not contain exactly one KAN.
    ValueError
        If another argument is invalid, or the finest network does not fit into memory.

    Examples
    --------
    >>> from mgnet import cascade, run
    >>> from mgnet.training import LeastSquares, LevenbergMarquardt
    >>> x = torch.linspace(-1, 1, 200, dtype=torch.float64).unsqueeze(1)
    >>> kan = KAN([1, 3, 1], intervals=2)
    >>> problem = LeastSquares(kan, (x, torch.sin(8 * x)))
    >>> hierarchy = knot_hierarchy(kan, problem, 3, LevenbergMarquardt())
    >>> u, _ = run(cascade([10, 10, 10]), hierarchy, hierarchy[0].operator.start(), None)
    >>> hierarchy[0].operator.value(u) < 1e-6
    True
    """
    check_objective("knot_hierarchy", objective)
    if not is_count(levels):
        raise ValueError(f"knot_hierarchy got {shown(levels)} levels; it needs at least 1")
    factor = checked_factor("knot_hierarchy", factor)
    plan = _plan(held_kan(kan), int(levels), factor, most_intervals)
    if form not in ("subspace", "injected"):
        raise ValueError(f"knot_hierarchy got form {form!r}; it must be 'subspace' or 'injected'")
    if samples is not None and len(samples) != levels:
        raise ValueError(
            f"knot_hierarchy got samples for {len(samples)} levels; give {levels}, finest first"
        )
    networks, transfers = [kan], []
    for layers in plan:
        transfers.insert(0, knot_transfer(networks[0], factor, layers))
        networks.insert(0, refined(networks[0], factor, layers))

    # With local evaluation, a gradient costs the same for any number of intervals.
    parts = [1.0] * levels if samples is None else samples
    names = [told_intervals(held_kan(network).intervals) for network in networks]

    def built(objective: Objective) -> list[Level]:
        problems = [objective.with_network(network) for network in networks]
        if samples is not None:
            problems = [p.subsampled(part) for p, part in zip(problems, parts, strict=True)]
        return network_levels(problems, transfers, smoother, form, parts, names)

    def network_of(level: int, u: torch.Tensor) -> torch.nn.Module:
        made = copy.deepcopy(networks[level])
        FlatParameters(made).write(u)
        return made

    return Hierarchy(
        built(objective),
        bind=lambda batch: built(objective.with_data(batch)),
        nested=samples is None,
        network=network_of,
    )
