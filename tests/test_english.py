"""Law: prose keeps to the word list, and docstrings describe parameters and errors."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ENGLISH = runpy.run_path(str(ROOT / "tools" / "check_english.py"))
SAMPLE = runpy.run_path(str(ROOT / "tools" / "sample_sentences.py"))
DOCSTRINGS = runpy.run_path(str(ROOT / "tools" / "check_docstrings.py"))
FINE = [
    "There is no error, and this is no longer slow.",
    "What is a level?",
    "The derivative is computed by automatic differentiation, by the chain rule.",
    "Time is divided by the number of inputs.",
    "The error message says why; the page tells more, and you know the rest.",
    "As `run` does, it copies in small steps, as `print` would.",
    "Of course, it is exact.",
    "Of the ten methods, two converge.",
    "He wants to know.",
    "Run `made of anew` and [the best](rivals.md).",
    "    made of code",
    "```\nmade of anew\n```",
    ">>> made_of = 'is no anew'\n'made of'\n",
]


def phrases(text, suffix, tmp_path):
    file = tmp_path / f"prose{suffix}"
    file.write_text(text)
    return ENGLISH["check"](file)


@pytest.mark.parametrize("entry", ENGLISH["ENTRIES"], ids=lambda entry: entry.avoid)
def test_each_phrase_of_the_list_is_found(entry, tmp_path):
    found = phrases(f"Some words.\n\n{entry.avoid}\n", ".md", tmp_path)
    assert any(f": write {entry.write!r}" in line and ":3: " in line for line in found)


def test_the_list_is_that_of_the_checker():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    rows = re.findall(r"^\| (.+?) \| (.+?) \|$", text.split("| avoid | write |")[1], re.MULTILINE)
    assert rows[1:] == [(entry.avoid, entry.write) for entry in ENGLISH["ENTRIES"]]


@pytest.mark.parametrize("text", FINE)
def test_good_english_and_code_pass(text, tmp_path):
    assert not phrases(f"\n\n{text}\n", ".md", tmp_path)


def test_docstrings_comments_and_messages_are_read_and_code_is_not(tmp_path):
    text = '"""Good.\n\nThis is made\nof parts.\n"""\n# read\n# anew\nanew = made_of = 1\n'
    text += 'raise ValueError(f"{anew} is no number that " "is made of digits")\n'
    found = phrases(text, ".py", tmp_path)
    assert re.findall(r":(\d+): '([\w ]+)'", "\n".join(found)) == [
        ("3", "made of"),
        ("7", "anew"),
        ("9", "is no "),
        ("9", "made of"),
    ]


def test_everything_keeps_to_the_list(capsys):
    assert ENGLISH["main"]([]) == 0, capsys.readouterr().out


def test_every_parameter_is_described_and_every_error_is_named(capsys):
    assert DOCSTRINGS["main"]([]) == 0, capsys.readouterr().out


def test_what_a_docstring_lacks_is_found(tmp_path):
    text = '''__all__ = ["f", "C"]
def f(a, b, c):
    """Add.

    Parameters
    ----------
    a : int
    b : int
        Of the sum.
    c : int
        The third number.
    """
    if a:
        raise ValueError("no")
def g(a):
    """Parameters
    ----------
    a
    """
class C:
    """A class."""
    def __init__(self):
        raise TypeError("never")
    def named(self):
        """Name it.

        Raises
        ------
        ValueError
            Always.
        """
        raise ValueError("always")
'''
    file = tmp_path / "module.py"
    file.write_text(text)
    found = [line.split(": ", 1)[1] for line in DOCSTRINGS["check"](file)]
    assert found == [
        "f: a has no description",
        'f: b begins with "Of": name the thing',
        "f: no section Raises (ValueError)",
        "C: no section Raises (TypeError)",
    ]


def test_sentences_of_pages_and_docstrings_are_found_with_their_lines(tmp_path):
    page = "# A title of four words\n\nFirst, see `a. B`\nfor this. "
    page += "Source: Saad, SIAM J. Sci. Comput. 14.\n\n    code that is skipped entirely\n\n"
    page += "| what it is called | 3 of 4 are numbers |\n| --- | --- |\n"
    (tmp_path / "page.md").write_text(page)
    module = '''def f(a):
    """Add one to a number.

    Parameters
    ----------
    a : int or float of any size
        The number to add to.

    Examples
    --------
    >>> f(1)  # this is not prose
    """
'''
    (tmp_path / "module.py").write_text(module)
    found = SAMPLE["every"]([str(tmp_path)])
    assert [(line, words) for _, line, words in found] == [
        (3, "First, see `a. B` for this."),
        (4, "Source: Saad, SIAM J. Sci. Comput. 14."),
        (8, "what it is called"),
        (2, "Add one to a number."),
        (7, "The number to add to."),
    ]
    assert SAMPLE["draw"](found, 1, 3) == SAMPLE["draw"](found, 1, 3) != SAMPLE["draw"](found, 2, 3)


def test_a_sample_has_the_wanted_number_of_sentences(capsys):
    SAMPLE["main"](["--seed", "1", "--count", "7", "docs/concepts.md", "mgnet/solver.py"])
    *rows, last = capsys.readouterr().out.splitlines()
    assert len(rows) == 7 and re.fullmatch(r"7 of \d+ sentences, seed 1", last)
    for row in rows:
        assert re.match(r"(docs/concepts\.md|mgnet/solver\.py):\d+: .*\w", row)


def test_lines_are_right_after_formulas_and_links_of_several_lines(tmp_path):
    text = "First\n\n$$\na\n$$\n\nsee [a\npage](a\nb.md) and\nmade of parts\n"
    assert ":10: 'made of'" in phrases(text, ".md", tmp_path)[0]


def test_rows_of_parameters_are_separate_and_sentences_with_a_colon_are_whole(tmp_path):
    text = "first: one number per row\nsecond, third: two numbers per row\n\n"
    text += "A sentence goes on,\nuntil it ends: here it does\n"
    (tmp_path / "page.md").write_text(text)
    assert [words for _, _, words in SAMPLE["every"]([str(tmp_path)])] == [
        "first: one number per row",
        "second, third: two numbers per row",
        "A sentence goes on, until it ends: here it does",
    ]
