"""What a column says of itself."""

from mgnet.app.exports.input_column import InputColumn


def test_many_texts_are_cut_and_odd_ones_escaped():
    column = InputColumn("kind", {f"level {k}": k for k in range(30)}, features=30)
    assert column.is_text and column.told.endswith("'level 10', 19 more, or another")
    assert InputColumn("kind", {"\n": 0}).told == "'\\n', or another"
    assert not InputColumn("T").is_text
