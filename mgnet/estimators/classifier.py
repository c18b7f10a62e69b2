"""`KANClassifier`: predicts labels and their probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from mgnet.estimators.estimator import KANEstimator
from mgnet.estimators.inputs import check_arrays, check_labels
from mgnet.estimators.objectives import entropy
from mgnet.estimators.rows import as_doubles, checked_weights, single_precision
from mgnet.estimators.training_budget import TrainingBudget
from mgnet.estimators.weights import class_factors
from mgnet.limits import shown

__all__ = ["KANClassifier"]


class KANClassifier(ClassifierMixin, KANEstimator):
    """Classification by Kolmogorov-Arnold networks with a softmax of their outputs, one per class.

    By default, the classifier trains an ensemble like that of `KANRegressor`, with cross entropy.
    With `ensemble=1`, it trains a single network: L-BFGS (or Adam) minimizes the cross entropy plus
    a penalty, first on coarse knots. Outside the range of the training rows, the prediction is that
    of the nearest point of the range. Columns that do not vary are omitted from the network.

    Parameters
    ----------
    hidden, ensemble, intervals, levels, most_intervals, degree, roughness
        The same as for `KANRegressor`.
    optimizer : "auto", "lbfgs" or "adam"
        Optimizer of a single network; L-BFGS by default.
    cycle, n_init, max_iter, seconds, tol
        The same as for `KANRegressor`.
    early_stopping, validation_fraction, n_iter_no_change
        The same as for `KANRegressor`, with the same fraction of every class.
    class_weight : dict or "balanced", optional
        Weights of classes, which multiply the weights of their rows. "balanced" gives all classes
        the same total weight. A class of weight 0 is ignored.
    random_state : int, RandomState instance or None
        Seed or source of random numbers.
    verbose : bool
        Whether to print the progress.

    Attributes
    ----------
    classes_ : array of shape (classes,)
        Labels of the classes, sorted.
    network_ : KAN
        Network from scaled inputs to logits.
    scales_ : Scales
        Scaling of the inputs.
    ensembles_ : list of Ensemble
        One ensemble for all classes; empty with `ensemble=1`.
    n_iter_, loss_curve_
        The same as for `KANRegressor`. The loss is the mean cross entropy; for a single network, it
        is the objective, which includes the penalty.
    n_features_in_, feature_names_in_
        Number and names of the columns given to `fit`.

    Examples
    --------
    >>> x = np.random.default_rng(0).uniform(-1.0, 1.0, (300, 2))
    >>> y = np.where(x[:, 0] * x[:, 1] > 0.0, "same", "other")
    >>> kan = KANClassifier(ensemble=3).fit(x[:200], y[:200])
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
            Inputs and labels.
        sample_weight : array-like of shape (rows,), optional
            Weights of the rows' cross entropy, as for `KANRegressor.fit`. A class whose rows all
            have weight 0 is ignored.
        budget : TrainingBudget, optional
            The same as for `KANRegressor.fit`.

        Returns
        -------
        KANClassifier
            The estimator itself.

        Raises
        ------
        TypeError, ValueError
            If parameters or data are not valid, or if there is only one class.

        Warns
        -----
        UserWarning
            The same as for `KANRegressor.fit`.
        """
        self._forget()
        check_arrays("KANClassifier", X=X, y=y, sample_weight=sample_weight)
        self._single = single_precision(X)
        with as_doubles("KANClassifier"):
            X, y = validate_data(self, X, y, dtype=np.float64, ensure_min_samples=2)
        y = column_or_1d(y, warn=True)
        check_labels("KANClassifier", y)
        check_classification_targets(y)
        weights = checked_weights("KANClassifier", sample_weight, X)
        factors = class_factors("KANClassifier", self.class_weight, y, weights)
        counting = np.ones(len(y), dtype=bool)
        for own in (weights, factors):
            counting &= True if own is None else own > 0.0
        X, y = X[counting], y[counting]
        weights, factors = (None if w is None else w[counting] for w in (weights, factors))
        self.classes_, first, labels = np.unique(y, return_index=True, return_inverse=True)
        if len(self.classes_) < 2:
            one = f"rows of one class only, {shown(y[0])}" if len(y) else "rows of weight 0 alone"
            raise ValueError(f"KANClassifier got {one}; it needs two classes")
        if factors is not None:
            factors = factors[first] if np.ptp(factors) > 0.0 else None
        self._train(X, labels, weights, entropy, budget, factors)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of shape (rows, classes), in the order of `classes_`."""
        check_is_fitted(self, "network_")
        check_arrays("KANClassifier", X=X)
        with as_doubles("KANClassifier"):
            X = validate_data(self, X, dtype=np.float64, reset=False)
        z = self.scales_.inputs(X).clamp(*self.network_.domain)
        with torch.no_grad():
            return torch.softmax(self.network_(z), 1).numpy()

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of each row, of shape (rows,), for X of shape (rows, inputs)."""
        likeliest = self.predict_proba(X).argmax(1)
        return self.classes_[likeliest]

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The fraction of the rows (or of the total weight) whose class is predicted correctly.

        Parameters
        ----------
        X : array-like of shape (rows, inputs)
            Inputs.
        y : array-like of shape (rows,)
            True labels.
        sample_weight : array-like of shape (rows,), optional
            Weights of the rows.
        """
        check_arrays("KANClassifier", y=y, sample_weight=sample_weight)
        weights = checked_weights("KANClassifier", sample_weight, X)
        return float(super().score(X, y, sample_weight=weights))
