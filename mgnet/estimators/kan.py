"""`KANRegressor`: regression with scikit-learn's interface."""

from __future__ import annotations

from typing import Any, Literal, overload

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted, validate_data

from mgnet.estimators.estimator import KANEstimator
from mgnet.estimators.inputs import check_arrays
from mgnet.estimators.objectives import squares
from mgnet.estimators.rows import as_doubles, checked_weights, finite_targets, single_precision
from mgnet.estimators.scales import LARGEST, continued, exponents
from mgnet.estimators.training_budget import TrainingBudget

__all__ = ["KANRegressor"]


class KANRegressor(RegressorMixin, KANEstimator):
    """Least-squares regression by Kolmogorov-Arnold networks: an ensemble, or a single network.

    By default, linear, additive and hidden-layer models are trained on parts of the rows; the data
    determine penalties, noise and knots. The mixture of these models that best predicts the rows
    not used in training becomes a single network, `network_`; see "How it works" for the formulas.
    Without `seconds`, the work is counted rather than timed, so that the same table and seed give
    the same model even on a busy machine.

    With `ensemble=1`, a single network is trained, first on coarse knots: the training starts with
    few intervals and doubles their number when a level makes no more progress; the refinement does
    not change the function. Source: Southworth et al., arXiv 2603.04827.

    Inputs are scaled to [-1, 1] and targets are standardized internally. Beyond the range of the
    training rows, the prediction is extended linearly. Columns that do not vary are omitted from
    the network, so that predictions do not depend on them.

    Parameters
    ----------
    hidden : "auto", int or sequence of int
        Widths of the hidden layers. The members of an ensemble have one hidden layer; "auto" begins
        with 4 units and adds more if the data determine them. A single network has one layer of 8
        units by default; an empty sequence means no hidden layer, that is, a sum of functions of
        one input each.
    ensemble : int
        Number of members of the ensemble; there are fewer on tables with few rows. 1 means a single
        network; only single networks use `most_intervals`, `roughness`, `optimizer`, `cycle`,
        `n_init`, `tol`, `early_stopping`, `validation_fraction` and `n_iter_no_change`.
    intervals : "auto", int or sequence of int
        Number of intervals of the splines on the coarsest level: one number for all layers, or one
        for each; "auto" means 4.
    levels : "auto" or int
        Number of levels; each finer level has twice as many intervals. An ensemble refines knots
        where the data determine the new ones, as long as its predictions improve, and on at most
        this many levels ("auto" means 8). A single network has 3 levels by default; a network with
        more than a million parameters on its finest level is refused. Without `cycle`, levels below
        the finest use ten rows per parameter, and at least 2000 (`mgnet.training.coarse_rows`).
    most_intervals : int or sequence of (int or None), optional
        Largest number of intervals: one number for all layers, or one for each; None means no
        limit. The first layer needs many knots if functions of single inputs are rough; the smooth
        functions in later layers need few.
    degree : int
        Degree of the splines, 1 to 5.
    roughness : "auto" or float
        Weight of the integral of the squared second derivative of all edges, for standardized data.
        "auto" means 1e-3, which suits tables of a few hundred rows; use a larger value for fewer
        rows, more inputs or more noise. For single networks, tune this parameter first.
    optimizer : "auto", "lm", "lbfgs" or "adam"
        The default is Levenberg-Marquardt. Its cost grows with the cube of the number of
        coefficients up to 5000 coefficients, and linearly beyond that, where its systems are solved
        iteratively.
    cycle : str
        Multigrid cycle that is repeated, such as "V(1,1)". By default, every level is trained once,
        from the coarsest to the finest, until it makes little progress or has used its share of the
        budget.
    n_init : int or "auto"
        Number of random networks that are trained on the coarsest level if no `cycle` is given.
        Those with the lowest loss on the validation rows continue: half of them on each finer
        level, and a single one on the finest. "auto" means 8 if the coarsest level uses at most an
        eighth of the rows, and 1 otherwise.
    max_iter : int
        Limit on the training (the name is scikit-learn's). For an ensemble, it limits the steps of
        each model on a level. For a single network, it limits the sweeps on all levels together; a
        sweep is one step of Levenberg-Marquardt, 10 steps of L-BFGS or 50 steps of Adam for every
        network on a level.
    seconds : float, optional
        Time limit; results then depend on the speed of the machine. Even a very short limit gives
        at least a linear model.
    tol : float
        The training ends when `n_iter_no_change` sweeps together lower the objective by less than
        this fraction.
    early_stopping : bool
        Whether to exclude a fraction `validation_fraction` of the rows from training, as validation
        rows. The training on a level ends when the loss on these rows has not decreased for
        `n_iter_no_change` sweeps, and the network with the lowest loss on them is returned, so they
        also determine the number of knots.
    validation_fraction : float
        Fraction of the distinct rows that are excluded; their share of the total weight is at most
        this fraction.
    n_iter_no_change : int
        Number of sweeps without progress after which the training on a level ends.
    random_state : int, RandomState instance or None
        Seed or source of the random numbers that determine initial networks and left-out rows.
    verbose : bool
        Whether to write progress to standard error: for an ensemble, a line for every member; for a
        single network, a line every few seconds with the sweeps, level, loss, seconds and used
        budget.

    Attributes
    ----------
    network_ : KAN
        Network from scaled inputs (without omitted columns) to standardized targets; for an
        ensemble, it is the mean of all members, as one KAN.
    scales_ : Scales
        Scaling of inputs and targets.
    ensembles_ : list of Ensemble
        One ensemble for each target; empty with `ensemble=1`.
    n_iter_ : int
        Number of levels that were kept, summed over the targets; for a single network, number of
        sweeps.
    loss_curve_ : list of float
        Loss after each of these levels or sweeps, for standardized targets: half the mean squared
        error on left-out rows; for a single network, the mean squared error on the training rows
        that the level uses.
    n_features_in_ : int
        Number of columns given to `fit`.
    feature_names_in_ : array of str
        Names of the columns, if `fit` was given names.

    Examples
    --------
    >>> x = np.random.default_rng(0).uniform(-1.0, 1.0, (300, 2))
    >>> y = np.exp(x[:, 0]) * np.sin(3 * x[:, 1])
    >>> kan = KANRegressor().fit(x[:200], y[:200])
    >>> kan.score(x[200:], y[200:]) > 0.999
    True
    >>> mean, deviation = kan.predict(x[200:], return_std=True)
    >>> bool(abs(mean - y[200:]).max() < 8.0 * deviation.max())
    True
    """

    @property
    def _optimizers(self) -> tuple[str, ...]:
        return ("lm", "lbfgs", "adam")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        budget: TrainingBudget | None = None,
    ) -> KANRegressor:
        """Train on X of shape (rows, inputs) and y of shape (rows,) or (rows, outputs).

        Parameters
        ----------
        X, y : array-like
            Inputs and targets.
        sample_weight : array-like of shape (rows,), optional
            Weights of the rows' squared errors, such as 1 / variance; only their ratios matter. A
            row of weight 2 is equivalent to two equal rows, and one of weight 0 is omitted. Weights
            that are not integers are scaled so that their sum is the number of rows.
        budget : TrainingBudget, optional
            Limits and callbacks for this fit, which replace `max_iter`, `seconds`, `tol`,
            `n_iter_no_change` and `verbose`. An ensemble uses only the budget's `seconds` and
            `progress`. With a budget, Ctrl-C ends the training without an error.

        Returns
        -------
        KANRegressor
            The estimator itself.

        Warns
        -----
        UserWarning
            If columns of X have the same value in all training rows. They are omitted from the
            network, so that predictions do not depend on them.

        Raises
        ------
        TypeError, ValueError
            If parameters or data are not valid.
        """
        self._forget()
        check_arrays("KANRegressor", X=X, y=y, sample_weight=sample_weight)
        self._single = single_precision(X)
        with as_doubles("KANRegressor"):
            X, y = validate_data(
                self,
                X,
                y,
                dtype=np.float64,
                multi_output=True,
                y_numeric=True,
                ensure_min_samples=2,
            )
        weights = checked_weights("KANRegressor", sample_weight, X)
        self._flat = y.ndim == 1
        y = finite_targets(y)
        self._train(X, y, weights, squares, budget)
        return self

    @overload
    def predict(self, X: Any, return_std: Literal[False] = False) -> np.ndarray: ...
    @overload
    def predict(self, X: Any, return_std: bool) -> tuple[np.ndarray, np.ndarray]: ...
    def predict(
        self, X: Any, return_std: bool = False
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Predict targets of shape (rows,) or (rows, outputs), like y.

        Parameters
        ----------
        X : array-like of shape (rows, inputs)
            Inputs.
        return_std : bool
            Whether to also return the standard deviation of a new measurement, an array of the same
            shape. It is estimated from the errors on left-out rows and the differences among
            members.

        Raises
        ------
        ValueError
            If `return_std` is True for a single network.
        """
        check_is_fitted(self, "network_")
        check_arrays("KANRegressor", X=X)
        with as_doubles("KANRegressor"):
            X = validate_data(self, X, dtype=np.float64, reset=False)
        x = self.scales_.inputs(X)
        y = self.scales_.values(continued(self.network_, x))
        if not return_std:
            return y[:, 0] if self._flat else y
        if not self.ensembles_:
            raise ValueError(
                "KANRegressor got return_std=True, but was fitted with ensemble 1; one network "
                "has no error estimate: fit with ensemble=5"
            )
        std = self.scales_.sizes(np.stack([own.deviation(x) for own in self.ensembles_], 1))
        return (y[:, 0], std[:, 0]) if self._flat else (y, std)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The coefficient of determination, R^2, averaged over the outputs.

        Parameters
        ----------
        X : array-like of shape (rows, inputs)
            Inputs.
        y : array-like of shape (rows,) or (rows, outputs)
            True targets.
        sample_weight : array-like of shape (rows,), optional
            Weights of the rows.

        Raises
        ------
        ValueError
            If the shape of y differs from that of the predictions.
        """
        check_arrays("KANRegressor", y=y, sample_weight=sample_weight)
        predicted = self.predict(X)
        with as_doubles("KANRegressor"):
            y = check_array(y, dtype="float64", ensure_2d=False, input_name="y")
            column = predicted.ndim == 1 and y.shape[1:] == (1,)
            if y.shape[1:] != predicted.shape[1:] and not column:
                raise ValueError(
                    f"KANRegressor.score got y of shape {y.shape}, but predicts "
                    f"{predicted.shape}; give the targets that it was fitted to"
                )
            size = exponents(y)
            # Predictions may be very large.
            predicted = np.clip(np.ldexp(predicted, -size), -LARGEST, LARGEST)
        weights = checked_weights("KANRegressor", sample_weight, predicted)
        with as_doubles("KANRegressor"):
            return r2_score(np.ldexp(y, -size), predicted, sample_weight=weights)
