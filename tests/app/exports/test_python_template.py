"""The parts of the Python file are filled in by names that are all given."""

import string

import pytest

from mgnet.app.exports import python_template as template


@pytest.mark.parametrize("name", template.__all__)
def test_no_placeholder_is_without_a_name(name):
    text = getattr(template, name)
    fields = [field for _, field, _, _ in string.Formatter().parse(text) if field is not None] \
        if name in ("HEAD", "BODY", "TEXTS", "TARGETS", "NETWORK", "MAIN") else []  # fmt: skip
    assert all(field.isidentifier() for field in fields)
    assert "\t" not in text and max(map(len, text.splitlines())) <= 100
