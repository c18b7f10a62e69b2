"""A text is the schedule that it describes; a refused text is refused at the fault."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgnet import Schedule, Step, cascade, cycle, nested, parse
from mgnet.schedule import ACTIONS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("V(1,1)", cycle(4)),
        (" V ( 2 , 0 ) ", cycle(4, pre=2, post=0)),
        ("F(2,1)", cycle(4, kappa=2, pre=2)),
        ("W(0,1,5)", cycle(4, kappa=math.inf, pre=0, coarsest=5)),
        ("K3(1,2)", cycle(4, kappa=3, post=2)),
        ("nested F(1,1,2)", nested(4, kappa=2, coarsest=2)),
        ("cascade 8, 4,0,2", cascade([8, 4, 0, 2])),
        (" cascade 20 ", cascade([20, 20, 20, 20])),
        (
            "pre, down, up,post 2",
            Schedule([Step("pre", 0), Step("down", 0), Step("up", 0), Step("post", 0, 2)]),
        ),
    ],
)
def test_each_form_of_text(text, expected):
    assert parse(text, 4) == expected


def position_of(text, levels):
    """Return the position in the refusal of a text, or None when the text is a schedule."""
    try:
        schedule = parse(text, levels)
    except ValueError as error:
        found = re.match(re.escape(f"cycle {text!r}, character ") + r"(\d+): .", str(error), re.S)
        assert found, f"the refusal has no position: {error}"
        return int(found[1])
    assert isinstance(schedule, Schedule)
    return None


valid = ["V(1,1)", "nested F(2,1)", "W(1,0,3)", "K12(1,1)", "cascade 8,4,2", "cascade 3"]
valid += ["pre 2, down, solve, up, post 1", "start, solve 4, interpolate, pre 1, down, up"]
alphabet = "VFWKvk0123,()- \t\n.x²٣nested"
tokens = [*ACTIONS, "V", "F", "W", "K", "nested", "cascade", "(", ")", ",", "1", "2", "0", " "]
texts = (
    st.text(max_size=20)
    | st.lists(st.sampled_from(tokens), max_size=12).map("".join)
    | st.lists(st.sampled_from([*tokens, ", "]), max_size=12).map(" ".join)
    | st.builds(
        lambda text, at, cut, put: (
            text[: at % (len(text) + 1)] + put + text[at % (len(text) + 1) + cut :]
        ),
        st.sampled_from(valid),
        st.integers(0, 60),
        st.integers(0, 3),
        st.text(alphabet, max_size=3),
    )
)


@given(texts, st.integers(1, 5))
def test_a_refused_text_has_a_position(text, levels):
    position = position_of(text, levels)
    assert position is None or 1 <= position <= len(text) + 1


@pytest.mark.parametrize(
    ("text", "levels", "rest", "why"),
    [
        ("", 2, "", "the text is empty"),
        ("  ", 2, "", "the text is empty"),
        ("X(1,1)", 2, "X(1,1)", "got 'X(1,1)'; expected one of V, F, W, K<kappa>, nested"),
        ("Vx(1,1)", 2, "Vx(1,1)", "expected one of V, F, W"),
        ("V", 2, "", "the text ends there; expected '('"),
        ("V(", 2, "", "expected the number of pre-sweeps"),
        ("V(1", 2, "", "expected ','"),
        ("V(1,)", 2, ")", "got ')'; expected the number of post-sweeps"),
        ("V(1,1", 2, "", "expected ')'"),
        ("V(1,-1)", 2, "-1)", "number of post-sweeps is -1; it must be at least 0"),
        ("V(1,1,0)", 2, "0)", "the number of coarse sweeps is 0; it must be at least 1"),
        ("V(1,1) V", 2, "V", "expected the end"),
        ("V(1234567890,1)", 2, "1234567890,1)", "the number of pre-sweeps has at most 9 digits"),
        ("V(1,-1234567890)", 2, "-1234567890)", "the number of post-sweeps has at most 9 digits"),
        ("pre -3", 1, "-3", "sweeps is -3; it must be at least 1"),
        ("V(a,1)", 2, "a,1)", "expected the number of pre-sweeps, an integer"),
        ("K(1,1)", 2, "K(1,1)", "expected one of V, F, W"),
        ("K0(1,1)", 2, "0(1,1)", "kappa is 0"),
        ("nested", 2, "", "expected V, F, W or K<kappa> after 'nested'"),
        ("nested pre 1", 2, "pre 1", "expected V, F, W or K<kappa> after 'nested'"),
        ("cascade", 2, "", "expected the sweeps of the coarsest level"),
        ("cascade 0,1", 2, "0,1", "it must be at least 1"),
        ("cascade 1,", 2, "", "expected the sweeps of the next level"),
        ("cascade 1,2,3", 2, "", "3 counts for 2 levels; give one per level"),
        ("cascade 1,2", 3, "", "or one for all"),
        ("cascade 0", 3, "0", "it must be at least 1"),
        ("pre 0", 1, "0", "sweeps is 0"),
        ("pre 1,", 1, "", "the text ends there; expected one of pre"),
        ("pre 1 post 1", 1, "post 1", "expected the end"),
        ("down 2, up", 2, "2, up", "expected the end"),
        ("pre 2, down, pre 1", 2, "pre 1", "ends the schedule on level 1"),
        ("down, down, up, up", 2, "down, up, up", "'down' on level 1 leaves the levels 0 to 1"),
        ("pre, up", 2, "up", "'up' has no 'down' before it"),
        ("down, solve, up", 3, "solve, up", "'solve' is on level 1, but the coarsest level is 2"),
        ("start, solve, up", 2, "up", "'up' has no 'down' before it"),
        ("start, interpolate, interpolate", 2, "interpolate", "'interpolate' is not on the way up"),
        ("pre, interpolate", 2, "interpolate", "'interpolate' is not on the way up"),
        (
            "start, interpolate, down, interpolate",
            2,
            "interpolate",
            "'interpolate' is not on the way up",
        ),
        ("pre, start", 2, "start", "'start' comes after other steps"),
        ("start, solve", 2, "solve", "'solve' ends the schedule on level 1"),
    ],
)
def test_the_refusal_points_at_the_fault(text, levels, rest, why):
    with pytest.raises(ValueError, match=re.escape(why)):
        parse(text, levels)
    position = position_of(text, levels)
    assert position is not None
    assert text[position - 1 :].strip() == rest


@pytest.mark.parametrize("levels", [0, -1, 2.0, "2", None])
def test_parse_refuses_a_number_of_levels(levels):
    with pytest.raises(ValueError, match="levels = .*; it must be an integer of at least 1"):
        parse("V(1,1)", levels)
