"""`KANRegressor` and `KANClassifier`: fit, predict, score, clone, pickle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, overload

import numpy as np
import torch
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils import check_array, column_or_1d
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from mgnet.estimators.estimator import KANEstimator
from mgnet.estimators.objectives import entropy, squares
from mgnet.estimators.rows import as_doubles, checked_weights, finite_targets, single_precision
from mgnet.estimators.scales import LARGEST, continued, exponents
from mgnet.estimators.training_budget import TrainingBudget

__all__ = ["KANClassifier", "KANRegressor"]


class KANRegressor(RegressorMixin, KANEstimator):
    """Least-squares regression by Kolmogorov-Arnold networks, trained coarse knots first.

    Inputs are scaled to [-1, 1] and targets standardised inside. By default an ensemble is trained:
    linear, additive and hidden-layer models on parts of the rows, whose penalties and noise come
    from the data, mixed by what they predict for the other rows, on finer knots as long as that
    helps; its work is counted. `ensemble=1` trains a single network: every edge is a spline, the
    training starts on few intervals and doubles them when a level is exhausted, which changes no
    value (Southworth et al., arXiv 2603.04827). Beyond the range of the training rows the
    prediction goes on linearly. Columns that do not vary are left out of the network, so that
    predictions do not depend on them.

    Parameters
    ----------
    hidden : int, sequence of int or "auto"
        Units of the hidden layer; "auto": 4, and twice as many while the data determine them. Of a
        single network the widths of all hidden layers, by default 8; empty for a sum of functions
        of one input each.
    ensemble : int
        Members; 1 for a single network. An ensemble takes no `roughness`, `most_intervals`,
        `optimizer`, `cycle` and `n_init`, and does not use `max_iter`, `tol`, `early_stopping`,
        `validation_fraction` and `n_iter_no_change`.
    intervals : int, sequence of int or "auto"
        Of the splines on the coarsest level, by default 4; of a single network of all layers or of
        each.
    levels : int or "auto"
        At most, each with twice as many intervals; of a single network 3 by default. A finest
        network of more than a million parameters is refused. Without `cycle`, its levels below the
        finest see ten rows per parameter of theirs, and at least 2000
        (`mgnet.training.coarse_rows`).
    most_intervals : int or sequence of (int or None), optional
        That a layer is refined to, one for all layers or one for each; None for no limit. Rough
        functions of single inputs need many knots, the smooth functions behind them few.
    degree : int
        Of the splines, 1 to 5.
    roughness : float or "auto"
        Weight of the integral of the squared second derivative of all edges, for standardised data.
        The default, 1e-3, suits tables of some hundred rows; the fewer rows, the more inputs and
        the more noise, the larger. What a grid search should look at first.
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
        Sweeps, of all levels together (the word is scikit-learn's own). One is a step of
        Levenberg-Marquardt, 10 of L-BFGS or 50 of Adam, of all networks on a level.
    seconds : float, optional
        Another limit; results then depend on the machine.
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
        Of the initial network and the validation rows.
    verbose : bool
        Write a line to standard error every few seconds: sweeps, level, loss, seconds, and how much
        of the budget is used.

    Attributes
    ----------
    network_ : KAN
        On scaled inputs without those that are left out, for standardised targets; of an ensemble
        the mean of all members, which is one KAN.
    ensembles_ : list of Ensemble
        One for each target; of an ensemble only.
    scales_ : Scales
    n_iter_ : int
        Levels that were kept; of a single network the sweeps that were done.
    loss_curve_ : list of float
        Half the mean squared error of the rows that members were not trained on, after each level.
        Of a single network the mean squared error after each sweep, of the standardised training
        rows that its level sees.
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
            row of weight 2 is a row that is there twice, one of weight 0 is left out.
        budget : TrainingBudget, optional
            Limits and listeners of your own, in place of `max_iter`, `seconds`, `tol`,
            `n_iter_no_change` and `verbose`. Ctrl-C then ends the training without an error.

        Warns
        -----
        UserWarning
            If columns of X have the same value in all rows that are trained on. They are left out
            of the network, so that predictions do not depend on them.
        """
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
        check_is_fitted(self)
        with as_doubles("KANRegressor"):
            X = validate_data(self, X, dtype=np.float64, reset=False)
        x = self.scales_.inputs(X)
        y = self.scales_.values(continued(self.network_, x))
        if not return_std:
            return y[:, 0] if self._flat else y
        if self.ensemble == 1:
            raise ValueError(
                "KANRegressor got return_std=True and ensemble 1; one network does not tell how "
                "far off it is: fit with ensemble=5"
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


class KANClassifier(ClassifierMixin, KANEstimator):
    """Classification by Kolmogorov-Arnold networks: softmax of their outputs, one per class.

    By default an ensemble, as of `KANRegressor`, for the cross entropy. For a single network
    cross entropy and a penalty are minimised by L-BFGS (or Adam), coarse knots first. Out of the
    range of the training rows the nearest point of the range answers. Columns that do not vary are
    left out of the network.

    Parameters
    ----------
    hidden, ensemble, intervals, levels, most_intervals, degree, roughness
        As for `KANRegressor`.
    optimizer : "auto", "lbfgs" or "adam"
        By default L-BFGS.
    cycle, n_init, max_iter, seconds, tol
        As for `KANRegressor`.
    early_stopping, validation_fraction, n_iter_no_change
        The same, with the same part of every class.
    class_weight : dict, "balanced" or None
        Factors of the weights of rows, by their class.
    random_state : int, RandomState instance or None
    verbose : bool

    Attributes
    ----------
    classes_ : array of shape (classes,)
    network_ : KAN
        From scaled inputs to logits.
    ensembles_ : list of Ensemble
        One; of an ensemble only.
    scales_ : Scales
    n_iter_, loss_curve_
        As for `KANRegressor`; the loss is the cross entropy, of a single network the objective,
        penalty included.
    n_features_in_, feature_names_in_

    Examples
    --------
    >>> x = np.random.default_rng(0).uniform(-1.0, 1.0, (300, 2))
    >>> y = np.where(x[:, 0] * x[:, 1] > 0.0, "same", "other")
    >>> kan = KANClassifier().fit(x[:200], y[:200])
    >>> kan.score(x[200:], y[200:]) > 0.9
    True
    """

    def __init__(
        self,
        hidden: int | Sequence[int] | str = "auto",
        *,
        ensemble: int = 5,
        intervals: int | Sequence[int] | str = "auto",
        levels: int | str = "auto",
        most_intervals: int | Sequence[int | None] | None = None,
        degree: int = 3,
        roughness: float | str = "auto",
        optimizer: str = "auto",
        cycle: str = "",
        n_init: int | str = "auto",
        max_iter: int = 200,
        seconds: float | None = None,
        tol: float = 1e-3,
        early_stopping: bool = True,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        class_weight: Any = None,
        random_state: Any = 0,
        verbose: bool = False,
    ):
        super().__init__(
            hidden,
            ensemble=ensemble,
            intervals=intervals,
            levels=levels,
            most_intervals=most_intervals,
            degree=degree,
            roughness=roughness,
            optimizer=optimizer,
            cycle=cycle,
            n_init=n_init,
            max_iter=max_iter,
            seconds=seconds,
            tol=tol,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            random_state=random_state,
            verbose=verbose,
        )
        self.class_weight = class_weight

    @property
    def _optimizers(self) -> tuple[str, ...]:
        return ("lbfgs", "adam")

    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        budget: TrainingBudget | None = None,
    ) -> KANClassifier:
        """Train on X of shape (rows, inputs) and labels y of shape (rows,), numbers or strings.

        Parameters
        ----------
        X, y : array-like
        sample_weight : array-like of shape (rows,), optional
            Weights of the rows' cross entropy, as in `KANRegressor.fit`. A class whose rows all
            have weight 0 is none.
        budget : TrainingBudget, optional
            As in `KANRegressor.fit`.

        Warns
        -----
        UserWarning
            As in `KANRegressor.fit`.
        """
        self._single = single_precision(X)
        with as_doubles("KANClassifier"):
            X, y = validate_data(self, X, y, dtype=np.float64, ensure_min_samples=2)
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        weights = checked_weights("KANClassifier", sample_weight, X)
        if weights is not None:
            X, y, weights = X[weights > 0.0], y[weights > 0.0], weights[weights > 0.0]
        self._counts = self.class_weight is None
        if not self._counts:
            own = compute_sample_weight(self.class_weight, y)
            weights = checked_weights("KANClassifier", own if weights is None else own * weights, X)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"KANClassifier got rows of one class only, {self.classes_[0]!r}; it needs two"
            )
        self._train(X, labels, weights, entropy, budget)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """(rows, inputs) -> (rows, classes), in the order of `classes_`."""
        check_is_fitted(self)
        with as_doubles("KANClassifier"):
            X = validate_data(self, X, dtype=np.float64, reset=False)
        z = self.scales_.inputs(X).clamp(*self.network_.domain)
        with torch.no_grad():
            return torch.softmax(self.network_(z), 1).numpy()

    def predict(self, X: Any) -> np.ndarray:
        """(rows, inputs) -> (rows,), the most probable class."""
        likeliest = self.predict_proba(X).argmax(1)
        return self.classes_[likeliest]

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The share of rows, or of their weight, whose class is predicted.

        Parameters
        ----------
        X : array-like of shape (rows, inputs)
        y : array-like of shape (rows,)
        sample_weight : array-like of shape (rows,), optional
        """
        weights = checked_weights("KANClassifier", sample_weight, X)
        return float(super().score(X, y, sample_weight=weights))
