"""What a column says of itself, and that its texts become what the encoding of the fit makes."""

import numpy as np
import pytest

from mgnet.app.columns.codes import BooleanCode, CategoryCode, DateCode, NumberCode
from mgnet.app.columns.encoding import Encoding
from mgnet.app.exports.input_column import InputColumn, input_columns
from mgnet.app.files.columns import Column


def test_many_texts_are_cut_and_odd_ones_escaped():
    column = InputColumn("kind", {f"level {k}": k for k in range(30)}, features=30)
    assert column.is_text and column.told.endswith("'level 10', 19 more, or another")
    assert InputColumn("kind", {"\n": 0}).told == "'\\n', or another"
    assert not InputColumn("T").is_text


@pytest.mark.parametrize("seed", range(20))
def test_texts_become_the_features_of_the_encoding(seed):
    draw = np.random.default_rng(seed)
    every = np.array(["a", "b", "c", "d", "e", None, "1", "ü"], dtype=object)
    levels = draw.permutation(every)[: draw.integers(2, 8)].tolist()
    cut = int(draw.integers(1, len(levels) + 1))
    code = CategoryCode("kind", tuple(levels[:cut]), tuple(levels[cut:]))
    left_out = [name for name in code.features[1:] if draw.random() < 0.3]
    encoding = Encoding((NumberCode("T"), code)).without(left_out)
    number, column = input_columns(encoding)
    assert not number.is_text and column.features == len(encoding.names) - 1
    texts = draw.choice(np.append(every, "new"), 50)
    there = {"T": Column("T", "number", np.zeros(50)), "kind": Column("kind", "text", texts)}
    right = encoding.encode(there)[0][:, 1:]
    places = np.array([column.places.get(text or "", column.other) for text in texts])
    np.testing.assert_array_equal(places[:, None] == np.arange(column.features), right)


def test_what_is_refused():
    date = DateCode("when", np.datetime64("2024-01-01", "us"))
    with pytest.raises(
        ValueError, match="dates cannot be exported yet, and the model needs 'when'"
    ):
        input_columns(Encoding((BooleanCode("on"), date)))
    with pytest.raises(ValueError, match="'kind' has empty texts and missing ones"):
        input_columns(Encoding((CategoryCode("kind", ("", None)),)))
