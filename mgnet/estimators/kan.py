"""`KANRegressor`: fit, predict, score, clone, pickle."""

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
    """Least-squares regression by Kolmogorov-Arnold networks: an ensemble, or a single one.

    By default linear, additive and hidden-layer models are trained on parts of the rows, with
    penalties, noise and knots from the data, and mixed by what they predict for the rest: see "How
    it works" for the formulas. `network_` is all of them as one network. Without `seconds` the work
    is counted, so that a table and a seed give the same model on a busy machine.

    With `ensemble=1` a single network is trained, coarse knots first: the training starts on few
    intervals and doubles them when a level is exhausted, which changes no value. Source:
    Southworth et al., arXiv 2603.04827.

    Inputs are scaled to [-1, 1] and targets standardised inside. Beyond the range of the training
    rows the prediction goes on linearly. Columns that do not vary are left out of the network, so
    that predictions do not depend on them.

    Parameters
    ----------
    hidden : "auto", int or sequence of int
        Widths of the hidden layers. An ensemble has one, "auto" begins with 4 units and adds more
        as the data determine them; a single network has 8 by default, and none, empty, is a sum of
        functions of one input each.
    ensemble : int
        Members, fewer on tables of few rows. 1: a single network, to which `most_intervals`,
        `roughness`, `optimizer`, `cycle`, `n_init`, `tol`, `early_stopping`, `validation_fraction`
        and `n_iter_no_change` belong.
    intervals : "auto", int or sequence of int
        Of the splines on the coarsest level, of all layers or of each; "auto": 4.
    levels : "auto" or int
        Each finer level has twice as many intervals. An ensemble refines those that the data
        determine, as long as it predicts better for it, on so many levels at most, "auto": 8. A
        single network has 3 by default; a finest network of more than a million parameters is
        refused. Without `cycle`, levels below the finest see ten rows per parameter of theirs, and
        at least 2000 (`mgnet.training.coarse_rows`).
    most_intervals : int or sequence of (int or None), optional
        That a layer is refined to, one for all layers or one for each; None for no limit. Rough
        functions of single inputs need many knots, the smooth functions behind them few.
    degree : int
        Of the splines, 1 to 5.
    roughness : "auto" or float
        Weight of the integral of the squared second derivative of all edges, for standardised data;
        "auto": 1e-3, which suits tables of some hundred rows; the fewer rows, the more inputs and
        the more noise, the larger. What a grid search over single networks should look at first.
    optimizer : "auto", "lm", "lbfgs" or "adam"
        By default Levenberg-Marquardt; its cost grows with the cube of the number of coefficients
        up to 5000, and in proportion to it above, where its systems are solved iteratively.
    cycle : str
        A schedule over the levels, as "V(1,1)", that is repeated; by default every level once,
        coarsest first, each until it gains little or has used its share of the budget.
    n_init : int or "auto"
        Networks that are drawn and trained on the coarsest level, without `cycle`; half of them go
        on to each finer level, one to the finest, by their loss on the rows kept from training.
        "auto": 8 where the coarsest level sees at most an eighth of the rows, else 1.
    max_iter : int
        Of an ensemble: steps of each model on a level. Of a single network: sweeps, of all levels
        together (the word is scikit-learn's own); one is a step of Levenberg-Marquardt, 10 of
        L-BFGS or 50 of Adam, of all networks on a level.
    seconds : float, optional
        Another limit; results then depend on the machine. However short, there is a linear model.
    tol : float
        The training ends when `n_iter_no_change` sweeps lowered the objective by less than this
        fraction.
    early_stopping : bool
        Keep `validation_fraction` of the rows from training; a level ends when their loss has not
        fallen for `n_iter_no_change` sweeps, and the network that was best on them is returned. So
        they choose the number of knots, too.
    validation_fraction : float
        Of the rows that differ, and at most of their weight.
    n_iter_no_change : int
    random_state : int, RandomState instance or None
        Of initial networks, and of which rows are left out.
    verbose : bool
        Write lines to standard error: for every member; or, of a single network, every few seconds
        sweeps, level, loss, seconds, and how much of the budget is used.

    Attributes
    ----------
    network_ : KAN
        On scaled inputs without those that are left out, for standardised targets; of an ensemble
        the mean of all members, which is one KAN.
    scales_ : Scales
    ensembles_ : list of Ensemble
        One for each target; none with `ensemble=1`.
    n_iter_ : int
        Levels that were kept, of all targets together; of a single network, sweeps that were done.
    loss_curve_ : list of float
        After each, of standardised targets: half the mean squared error on rows left out; of a
        single network, the mean squared error of the training rows that its level sees.
    n_features_in_ : int
    feature_names_in_ : array of str
        Where `fit` was given names.

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
        sample_weight : array-like of shape (rows,), optional
            Weights of the rows' squared errors, such as 1 / variance; only their ratios matter. A
            row of weight 2 is a row that is there twice, one of weight 0 is left out. Decimals
            count for as many rows together as there are.
        budget : TrainingBudget, optional
            Limits and listeners of your own, in place of `max_iter`, `seconds`, `tol`,
            `n_iter_no_change` and `verbose`; for one fit. An ensemble takes its seconds and its
            `progress`. Ctrl-C then ends the training without an error.

        Warns
        -----
        UserWarning
            If columns of X have the same value in all rows that are trained on. They are left out
            of the network, so that predictions do not depend on them.
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
        """(rows, inputs) -> (rows,) or (rows, outputs), as y was.

        Parameters
        ----------
        X : array-like of shape (rows, inputs)
        return_std : bool
            Whether to return the standard deviation of a new measurement, too, of the same shape:
            from the errors on rows that members had not seen, and how far members differ.

        Raises
        ------
        ValueError
            If there is no ensemble to tell it.
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
                "does not tell how far off it is: fit with ensemble=5"
            )
        std = self.scales_.sizes(np.stack([own.deviation(x) for own in self.ensembles_], 1))
        return (y[:, 0], std[:, 0]) if self._flat else (y, std)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The coefficient of determination, R^2, the mean over the outputs.

        Parameters
        ----------
        X : array-like of shape (rows, inputs)
        y : array-like of shape (rows,) or (rows, outputs)
        sample_weight : array-like of shape (rows,), optional
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
            predicted = np.clip(np.ldexp(predicted, -size), -LARGEST, LARGEST)  # it may be far off
        weights = checked_weights("KANRegressor", sample_weight, predicted)
        with as_doubles("KANRegressor"):
            return r2_score(np.ldexp(y, -size), predicted, sample_weight=weights)
