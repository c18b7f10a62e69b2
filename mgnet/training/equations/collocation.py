"""Differential equations as least squares: residuals at points, and a fast Jacobian."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from mgnet.training.equations.carried import FixedInputs, carried_derivatives, check_only_carried
from mgnet.training.equations.derivatives import (
    Ansatz,
    Derivatives,
    MixedSamplesError,
    carries,
    derivatives_of,
    differentiated,
)
from mgnet.training.equations.mlp_derivatives import NotCarriedError
from mgnet.training.equations.term import Term
from mgnet.training.least_squares.covariance import pseudoinverse
from mgnet.training.least_squares.jacobian import DenseJacobian, Jacobian
from mgnet.training.least_squares.linearization import RowStream
from mgnet.training.least_squares.memory_pages import zeros
from mgnet.training.least_squares.problem import LeastSquares
from mgnet.training.least_squares.row_blocks import RowBlocks, rows_at_once, streams
from mgnet.training.loss.sample_order import sample_order, shares

__all__ = ["Collocation"]

# The derivatives of a network at points.
At = Callable[[torch.nn.Module, torch.Tensor], Derivatives]
TRIED = 16  # first and last points of a term, used to test whether it can be split


class Collocation(LeastSquares):
    """Least-squares problem for a differential equation: residuals of a network at points.

    The value is `1/2 sum over terms of weight * mean of squares`; `mean_square` gives twice that,
    the loss that papers usually report. For a KAN or a `torch.nn.Sequential` of linear layers and
    pointwise activations, alone or in an `Ansatz`, derivatives up to second order are propagated
    through the layers and the Jacobian is explicit. Other networks are differentiated
    automatically, and so are residuals that need higher derivatives, mix samples or use parameters
    directly.

    Parameters
    ----------
    network : torch.nn.Module
        Network that represents the solution.
    terms : sequence of Term
        Residuals and their points.
    chunk_size : int, optional
        Number of rows of the Jacobian to hold in memory at once, as for `LeastSquares`.

    Raises
    ------
    TypeError, ValueError
        If terms are not a non-empty sequence of Term, or precisions differ.

    Examples
    --------
    u'' = -sin(x) on [0, pi], zero at the ends, and the value in the middle:

    >>> from mgnet.knots import KAN
    >>> from mgnet.training import Ansatz, levenberg_marquardt
    >>> network = Ansatz(KAN([1, 1], 8, 5, domain=(0.0, 3.2)), output=lambda x, y: x * y)
    >>> x = torch.linspace(0.0, torch.pi, 50, dtype=torch.float64).unsqueeze(1)
    >>> terms = [Term(lambda u: u.d(0, 0) + u.points.sin(), x), Term(lambda u: u.value, x[-1:])]
    >>> problem = Collocation(network, terms)
    >>> u = problem.start()
    >>> r, J = problem.linearize(u)
    >>> u = u - torch.linalg.lstsq(J.dense(), r.unsqueeze(1), driver="gelsd").solution.squeeze(1)
    >>> problem.value(u) < 1e-8
    True
    """

    def __init__(
        self, network: torch.nn.Module, terms: Sequence[Term], *, chunk_size: int | None = None
    ):
        if isinstance(terms, Term) or any(not isinstance(term, Term) for term in terms):
            raise TypeError(
                "Collocation got terms that are not a list of Term; give [Term(residual, points), "
                "...]"
            )
        if not terms:
            raise ValueError("Collocation got no terms; give at least one Term")
        super().__init__(network, None, residual=self._terms_of, chunk_size=chunk_size)
        self.terms = tuple(terms)
        self._plain = True  # until a network or a residual needs automatic differentiation
        self._inputs = dict[int, FixedInputs]()

    def with_network(self, network: torch.nn.Module) -> Collocation:
        return Collocation(network, self.terms, chunk_size=self.chunk_size)

    def with_data(self, batch: Any) -> Collocation:
        """The same problem with other terms, for example with other points or weights."""
        return Collocation(self.network, batch, chunk_size=self.chunk_size)

    def subsampled(self, fraction: float) -> Collocation:
        """The same problem on a subset of the points of every term."""
        return self.with_data([term.subsampled(fraction) for term in self.terms])

    @property
    def samples(self) -> int:
        """Number of points of all terms."""
        return sum(term.samples for term in self.terms)

    def split(self, count: int) -> tuple[Collocation, Collocation]:
        """The same problem at `count` of its points, and at the remaining points.

        Terms with few points, such as measurements and corners, keep all points in both problems;
        the other terms have equal numbers of points.
        """
        if count >= self.samples:
            return self, self
        sizes = [term.samples for term in self.terms]
        few, rest = list[Term](), list[Term]()
        for term, kept in zip(self.terms, shares(count, sizes), strict=True):
            order = sample_order(term.samples)
            few.append(term if kept == term.samples else term.at_points(order[:kept]))
            rest.append(term if kept == term.samples else term.at_points(order[kept:]))
        return self.with_data(few), self.with_data(rest)

    def unscaled(self, u: torch.Tensor) -> list[torch.Tensor]:
        """The residuals of each term as returned by its function: (samples, components)."""
        u = u.detach()
        blocks = self._carried(self._blocks_of, u, self._inputs)
        if blocks is None:
            with torch.enable_grad():
                blocks = self.flat.evaluate(self._blocks_of, u)
        return [block.detach() for block in blocks]

    def attended(self, u: torch.Tensor, rate: float = 1e-4) -> Collocation:
        """The same problem with residual-based attention, `(1 - rate) a + rate |r| / max |r|`.

        Source: Anagnostopoulos et al., arXiv 2307.00379, equation (6).

        Parameters
        ----------
        u : tensor
            Parameters at which the residuals are evaluated.
        rate : float
            Rate of the change, above 0 and at most 1.

        Raises
        ------
        ValueError
            If the rate is out of range.
        """
        if not 0.0 < rate <= 1.0:
            raise ValueError(f"attended got rate {rate}; it must be above 0 and at most 1")
        terms = []
        for term, r in zip(self.terms, self.unscaled(u), strict=True):
            size = r.norm(dim=1)
            share = size / size.max().clamp_min(torch.finfo(size.dtype).tiny)
            old = torch.ones_like(share) if term.attention is None else term.attention
            terms.append(replace(term, attention=(1.0 - rate) * old + rate * share))
        return self.with_data(terms)

    def mean_square(self, u: torch.Tensor) -> float:
        """The loss in its usual form: the sum of weighted means of squares."""
        return 2.0 * self.value(u)

    def standard_errors(self, u: torch.Tensor, noise: Sequence[float | None]) -> dict[str, float]:
        """Estimate the errors of the coefficients of the equation from the noise, to first order.

        Noise e in the residuals moves the minimum by `-J^+ e`, J^+ being the pseudoinverse of the
        Jacobian, `(J^T J)^-1 J^T` where it has full rank. Source: Bates and Watts, Nonlinear
        Regression Analysis and Its Applications (Wiley, 1988), chapter 2, for residuals of equal
        standard deviation.

        Parameters
        ----------
        u : tensor
            Parameters at the minimum.
        noise : sequence of (float or None)
            For each term the standard deviation of the noise in its residual, in the unit of the
            residual; None for a term without noise.

        Returns
        -------
        dict of str to float
            Standard errors by name, in the unit of the coefficient; infinite if the residuals do
            not determine the coefficient. Coefficients that are not trained are omitted.

        Raises
        ------
        ValueError
            If there is not one entry per term, or the network has no coefficients.

        Examples
        --------
        The mean of 100 measurements with standard deviation 0.5:

        >>> network = Ansatz(torch.nn.Linear(1, 1), coefficients={"mean": 0.0})
        >>> measured = Term(lambda u: u.coefficients["mean"] - 0.0 * u.points, torch.rand(100, 1))
        >>> problem = Collocation(network, [measured])
        >>> round(problem.standard_errors(problem.start(), noise=[0.5])["mean"], 6)
        0.05
        """
        if len(noise) != len(self.terms) or any(s is not None and not s >= 0.0 for s in noise):
            raise ValueError(
                f"standard_errors got noise {noise} for {len(self.terms)} terms; give a standard "
                "deviation for each, or None"
            )
        if not isinstance(self.network, Ansatz) or not self.network.coefficients:
            raise ValueError(
                f"standard_errors got a {type(self.network).__name__} without coefficients; give "
                "Ansatz(network, coefficients={...})"
            )
        both = zip(self.terms, self.unscaled(u), noise, strict=True)
        blocks = [t.scaled(torch.full_like(r, s or 0.0)).flatten() for t, r, s in both]
        U, V, unknown = pseudoinverse(self.jacobian(u))
        errors = (V @ (U * torch.cat(blocks).unsqueeze(1)).T).norm(dim=1)
        errors[unknown] = math.inf
        named = self.flat.named(errors)
        names = {name: f"coefficients.{name}" for name in self.network.coefficients}
        return {name: float(named[path]) for name, path in names.items() if path in named}

    def _blocks_of(self, network: torch.nn.Module, at: At | None = None) -> list[torch.Tensor]:
        at = at or (derivatives_of if self._plain else differentiated)
        try:
            return [term.at(*(at(network, place) for place in term.places)) for term in self.terms]
        except RuntimeError as error:
            self._check_precision(error)
            raise

    def _check_precision(self, error: RuntimeError) -> None:
        """Explain what to change if points and parameters differ in precision."""
        points = {place.dtype for term in self.terms for place in term.places}
        parameters = {p.dtype for p in self.network.parameters()}
        if len(points | parameters) > 1 and "dtype" in str(error):
            raise TypeError(
                f"Collocation got points of {', '.join(sorted(map(str, points)))} for parameters "
                f"of {', '.join(sorted(map(str, parameters)))}; use network.double(), or points "
                "of the other precision, such as quasi_random(..., dtype=torch.float32)"
            ) from error

    def _terms_of(self, network: torch.nn.Module, at: At | None = None) -> tuple[torch.Tensor, ...]:
        blocks = zip(self.terms, self._blocks_of(network, at), strict=True)
        return tuple(term.scaled(block) for term, block in blocks)

    def _carried(
        self,
        function: Callable[[torch.nn.Module, At], Any],
        u: torch.Tensor,
        known: dict[int, FixedInputs],
    ) -> Any:
        """Apply a function of the network to carried derivatives; None if that is not possible.

        An error ends the attempt. Either it comes from the function and occurs again with automatic
        differentiation, or a residual needs derivatives that are not carried. A network with its
        own derivatives raises a descriptive error for derivatives that it lacks.
        """
        if not self._plain:
            return None
        own = carries(self.network)
        suits_not: Any = (NotCarriedError, RuntimeError) if own else Exception

        def at(network: torch.nn.Module, points: torch.Tensor) -> Derivatives:
            return carried_derivatives(network, points, known)

        def attempt(network: torch.nn.Module) -> Any:
            try:
                return function(network, at)
            except MixedSamplesError:
                raise
            except suits_not:
                self._plain = False
                return None

        # Without parameters that require gradients, such a network keeps no graph.
        with torch.set_grad_enabled(u.requires_grad or not own):
            return self.flat.evaluate(attempt, u)

    def residuals(self, u: torch.Tensor) -> torch.Tensor:
        blocks = self._carried(self._terms_of, u.detach(), self._inputs)
        if blocks is None:
            return super().residuals(u)
        return torch.cat([block.detach().flatten() for block in blocks]).double()

    def residuals_of_many(self, us: torch.Tensor) -> torch.Tensor:
        """The residual vectors of several parameter vectors, such as trial points of one step.

        The vectors are evaluated one after another: with thousands of points, a batched evaluation
        would take as long, because the matrix products dominate.

        Parameters
        ----------
        us : tensor of shape (several, parameters)
            Parameter vectors, one per row.

        Returns
        -------
        tensor of shape (several, residuals), in float64
            Residual vectors, one per row.

        Raises
        ------
        ValueError
            If the shape is not (several, parameters).

        Examples
        --------
        >>> slope = Term(lambda u: u.d(0), torch.zeros(3, 1))
        >>> problem = Collocation(torch.nn.Linear(1, 1), [slope])
        >>> problem.residuals_of_many(torch.tensor([[3.0, 1.0], [6.0, 1.0]])).square().sum(1)
        tensor([ 9., 36.], dtype=torch.float64)
        """
        if us.dim() != 2 or not len(us):
            raise ValueError(
                f"residuals_of_many got shape {tuple(us.shape)}; give (several, parameters), like "
                "u.unsqueeze(0) for one vector"
            )
        return torch.stack([self.residuals(u) for u in us])

    def linearize(self, u: torch.Tensor) -> tuple[torch.Tensor, Jacobian]:
        if not self.flat.all_trainable:
            return super().linearize(u)
        if streams(rows := sum(term.samples for term in self.terms), len(u), self.chunk_size):
            streamed = self._streamed(u.detach(), rows_at_once(rows, len(u), self.chunk_size))
            if streamed is not None:
                return streamed
        made = self._linearized(u, self.terms, self._inputs)
        if made is None:
            return super().linearize(u)
        return made[0], DenseJacobian(made[1])

    def _streamed(self, u: torch.Tensor, most: int) -> tuple[torch.Tensor, RowBlocks] | None:
        """The Jacobian in blocks of rows; None if a residual needs all points of its term."""
        r = self.residuals(u)
        components = [block.shape[1] for block in self.unscaled(u)]
        ends = [t.samples * c for t, c in zip(self.terms, components, strict=True)]

        def blocks(tried: int | None = None) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
            place = 0
            for term, count, end in zip(self.terms, components, ends, strict=True):
                size = tried or max(1, most // count)
                starts = range(0, term.samples, size)
                for begin in starts if tried is None else (0, max(0, term.samples - size)):
                    part = term.part(begin, min(begin + size, term.samples))
                    made = self._linearized(u, [part], {})
                    if made is None:
                        raise NotCarriedError("the network")
                    found, J = made
                    yield slice(place + begin * count, place + begin * count + len(found)), found, J
                place += end

        plain = self._plain
        try:
            for rows, found, _ in blocks(TRIED):
                if not torch.allclose(found, r[rows], rtol=1e-6, atol=1e-6 * float(r.abs().max())):
                    return None
        except Exception:
            self._plain = plain  # its function works only with all points of the term
            return None
        stream = RowStream(self.flat, self._terms_of, u, most)
        exact = u.dtype == torch.float64
        return r, RowBlocks(
            len(r),
            len(u),
            lambda: ((rows, J) for rows, _, J in blocks()),
            stream.push,
            stream.pull if exact else None,
            stream.pull,
        )

    def _linearized(
        self, u: torch.Tensor, terms: Sequence[Term], known: dict[int, FixedInputs]
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """The residuals of some terms and their Jacobian in float64; None if not possible."""

        def filled(network: torch.nn.Module, at: At) -> tuple[torch.Tensor, torch.Tensor]:
            return self._filled(network, terms, at)

        made = self._carried(filled, u.detach().requires_grad_(), known)
        return None if made is None else (made[0].double(), made[1].double())

    def _filled(
        self, network: torch.nn.Module, terms: Sequence[Term], at: At
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The residuals and the Jacobian, term by term."""
        functions = [[at(network, place) for place in t.places] for t in terms]
        blocks = [t.scaled(t.at(*f)) for t, f in zip(terms, functions, strict=True)]
        check_only_carried(network, blocks, functions)
        r = torch.cat([block.detach().flatten() for block in blocks])
        J = zeros(len(self.flat.start()), len(r), r).T
        parts = J.split([block.numel() for block in blocks])
        for block, of_term, rows in zip(blocks, functions, parts, strict=True):
            for number, component in enumerate(block.unbind(1)):
                for function in of_term:
                    function.add_jacobian(component, rows[number :: block.shape[1]])  # type: ignore
        return r, J
