"""Law: one table; what it does not hold is refused with the nearest name or value."""

from pathlib import Path

import pytest

from mgnet.options.option_table import OPTIONS, Option, find, markdown
from mgnet.options.solver_options import _VIEWS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "options.md"


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("cycel", "cycle"),
        ("sweep", "sweeps"),
        ("levels_2_sweep", "levels_2_sweeps"),
        ("levels_12_smother", "levels_12_smoother"),
        ("levels_1_cycle", "levels_1_smoother"),
        ("maxcycles", "max_cycles"),
        ("Cycle", "cycle"),
        ("", "cycle"),
    ],
)
def test_the_nearest_name(name, nearest):
    with pytest.raises(ValueError, match=f"^option -mgnet_{name} is unknown; the nearest is "):
        find(name)
    if name not in ("", "levels_1_cycle"):
        with pytest.raises(ValueError, match=f"-mgnet_{nearest} "):
            find(name)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("levels", "3", 3),
        ("rtol", "1e-3", 1e-3),
        ("rtol", "0", 0.0),
        ("monitor", "", True),
        ("coarsening", "8", (8,)),
        ("coarsening", "8,4", (8, 4)),
        ("relaxation", "F, FCF", ("F", "FCF")),
        ("monitor", "no", False),
        ("view", "", "table"),
        ("view", "json", "json"),
        ("cycle", "nested F(1,1)", "nested F(1,1)"),
    ],
)
def test_values(name, text, value):
    read = OPTIONS[name].read(text, f"-mgnet_{name}")
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("levels", "9" * 20, "takes an integer of at least 1 with at most 18 digits$"),
        (
            "coarsening",
            f"8,{'9' * 20}",
            "integers of at least 2 with at most 18 digits, such as 8,4$",
        ),
        ("levels", "abc", "got 'abc'; it takes an integer of at least 1"),
        ("levels", "0", "got '0'; it takes an integer of at least 1"),
        ("levels", "2.5", "integer"),
        ("coarsening", "8,1", "got '8,1'; it takes integers of at least 2, such as 8,4"),
        ("coarsening", "8,", "integers"),
        ("relaxation", "F,", "words of F and C, such as F,FCF"),
        ("rtol", "-1", "a number of at least 0"),
        ("rtol", "nan", "a number of at least 0"),
        ("rtol", "", "got ''"),
        ("monitor", "ture", "one of .*the nearest is true"),
        ("view", "asci", "one of table, ascii, json: the nearest is ascii"),
        ("cycle", "", "got no value; it takes cycle"),
    ],
)
def test_bad_values(name, text, complaint):
    with pytest.raises(ValueError, match=f"^option -p_mgnet_{name} .*{complaint}"):
        OPTIONS[name].read(text, f"-p_mgnet_{name}")


def test_all_kinds_are_readable_and_all_views_are_there():
    assert set(OPTIONS["view"].kind.split("|")) == set(_VIEWS)
    for option in OPTIONS.values():
        assert isinstance(option, Option)
        kinds = ("cycle", "int", "ints", "real", "flag", "smoother", "acceleration", "relaxation")
        assert option.kind in kinds or "|" in option.kind


@pytest.mark.parametrize("group", ["solver", "layers"])
def test_the_page_shows_the_table(group):
    assert markdown(group) in PAGE.read_text()
