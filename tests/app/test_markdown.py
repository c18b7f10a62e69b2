"""Law: a table stays a table, whatever its cells say."""

import re

from mgnet.app.markdown import exact, markdown_table, number


def test_bars_in_names_do_not_break_a_table():
    lines = markdown_table(("a|b", "c"), [("x", "|")]).splitlines()
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1


def test_numbers():
    assert [number(value) for value in (0.0, 1234.5, float("nan"))] == ["0", "1.23e+03", "-"]
    assert exact(1234567.0) == "1.23457e+06"
