"""Kolmogorov-Arnold networks as scikit-learn estimators, trained by multigrid over their knots.

They work in pipelines, grid searches and other scikit-learn tools. scikit-learn is required.
"""

try:
    import sklearn  # noqa: F401
except ImportError:
    raise ImportError(
        "mgnet.estimators needs scikit-learn, which is not installed; "
        "install it with pip install 'mgnet-solvers[app]'"
    ) from None

from mgnet.estimators.classifier import KANClassifier
from mgnet.estimators.kan import KANRegressor

__all__ = ["KANClassifier", "KANRegressor"]
