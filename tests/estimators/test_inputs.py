"""What has values that nobody gave is refused, in every argument of every method."""

import numpy as np
import pytest
import scipy.sparse as sp

from mgnet.estimators import KANClassifier, KANRegressor
from mgnet.estimators.inputs import check_arrays, check_labels

SMALL = {"ensemble": 2, "hidden": 2, "intervals": 2, "levels": 1}


class Frame:
    """A table whose columns have types of their own."""

    def __init__(self, *dtypes):
        self.dtypes = [np.dtype(kind) for kind in dtypes]


def calls(kind):
    """Each argument as a function of what takes its place."""
    x = np.random.default_rng(0).uniform(-1.0, 1.0, (30, 2))
    y, w = x[:, 0] if kind is KANRegressor else (x[:, 0] > 0.0) * 1, np.ones(30)
    made = kind(**SMALL).fit(x, y)
    yield "X", x, lambda X: kind(**SMALL).fit(X, y)
    yield "y", y, lambda t: kind(**SMALL).fit(x, t)
    yield "sample_weight", w, lambda v: kind(**SMALL).fit(x, y, sample_weight=v)
    yield "X", x, made.predict
    yield "X", x, lambda X: made.score(X, y)
    yield "y", y, lambda t: made.score(x, t)
    yield "sample_weight", w, lambda v: made.score(x, y, sample_weight=v)
    if kind is KANClassifier:
        yield "X", x, made.predict_proba


@pytest.mark.parametrize("kind", [KANRegressor, KANClassifier])
def test_masked_entries_and_dates_are_refused(kind):
    for name, array, call in calls(kind):
        masked = np.ma.masked_array(array, mask=np.arange(array.size).reshape(array.shape) == 3)
        with pytest.raises(ValueError, match=f"{kind.__name__} got {name} with masked entries"):
            call(masked)
        call(np.ma.masked_array(array))
        for unit in ("datetime64[s]", "timedelta64[D]"):
            with pytest.raises(ValueError, match=f"got {name} of dates or times; give numbers"):
                call((100.0 * array).astype(int).astype(unit))


@pytest.mark.parametrize("kind", [KANRegressor, KANClassifier])
@pytest.mark.parametrize("form", [sp.csr_array, sp.csr_matrix, sp.coo_array])
def test_sparse_arrays_are_refused(kind, form):
    for name, array, call in calls(kind):
        if name == "sample_weight":
            continue
        with pytest.raises((TypeError, ValueError), match="[Ss]parse .*toarray"):
            call(form(np.atleast_2d(array.T).T))


def test_columns_with_types_of_their_own():
    check_arrays("KANRegressor", X=Frame("f8", "i4", "?", "O"), y=[1.0], sample_weight=None)
    with pytest.raises(ValueError, match="KANRegressor got X of dates or times"):
        check_arrays("KANRegressor", X=Frame("f8", "M8[ns]"))


def test_labels_of_text_and_numbers_pass():
    for labels in (["a", "b"], [1, 2], [1.0, 2.0], [True, False]):
        check_labels("KANClassifier", np.array(labels))
    check_labels("KANClassifier", np.array(["a", np.str_("b")], dtype=object))
