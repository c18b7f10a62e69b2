"""Laws of tools/mutate.py: it tells what survives, and the table fits the library."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def tool(monkeypatch):
    """The script as a module; its folder is importable for this test only."""
    file = ROOT / "tools" / "mutate.py"
    monkeypatch.setattr(sys, "path", [str(file.parent), *sys.path])
    spec = importlib.util.spec_from_file_location("mutate", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop("mutations", None)


@pytest.fixture
def tree(tmp_path):
    """A library of two functions, of which the second is tested badly."""
    (tmp_path / "mgnet").mkdir()
    (tmp_path / "mgnet" / "__init__.py").touch()
    code = "def double(x):\n    return 2 * x\n\n\ndef triple(x):\n    return 3 * x\n"
    (tmp_path / "mgnet" / "times.py").write_text(code)
    (tmp_path / "tests").mkdir()
    checks = "assert times.double(5) == 10\n    assert times.triple(0) == 0"
    test = f"from mgnet import times\n\n\ndef test_times():\n    {checks}\n"
    (tmp_path / "tests" / "test_times.py").write_text(test)
    return tmp_path


def mutation(tool, name, text, becomes, test="tests/test_times.py"):
    return tool.Mutation(name, "mgnet/times.py", text, becomes, (test,), "a product")


def test_the_table_fits_the_library(tool):
    """Who edits a text of the table edits the table, too."""
    assert not [found for each in tool.TABLE if (found := tool.fault(each, ROOT))]
    names = [each.name for each in tool.TABLE]
    assert len(set(names)) == len(names)
    assert all(each.text != each.becomes for each in tool.TABLE)


def test_a_survivor_is_named_and_the_tree_stays(tool, tree, capsys):
    table = [
        mutation(tool, "two-double", "2 * x", "4 * x"),
        mutation(tool, "three-triple", "3 * x", "5 * x"),
    ]
    before = (tree / "mgnet" / "times.py").read_text()
    assert tool.main([], table, tree) == 1
    told = capsys.readouterr().out
    assert "caught    two-double" in told
    assert "SURVIVES  three-triple" in told
    assert told.endswith("1 of 2 caught\n  survives: three-triple\n")
    assert tool.main(["--only", "two"], table, tree) == 0
    assert (tree / "mgnet" / "times.py").read_text() == before


def test_the_list_tries_nothing(tool, tree, capsys):
    assert tool.main(["--list"], [mutation(tool, "gone", "no such text", "")], tree) == 0
    assert capsys.readouterr().out.split() == ["gone", "mgnet/times.py:", "a", "product"]


@pytest.mark.parametrize(
    ("text", "test", "words"),
    [
        ("4 * x", "tests/test_times.py", "one: mgnet/times.py has its text 0 times"),
        ("return", "tests/test_times.py", "one: mgnet/times.py has its text 2 times"),
        ("2 * x", "tests/test_gone.py", "one: there is no tests/test_gone.py"),
        ("2 * x", "tests/test_red.py", "tests/test_red.py fails without any mutation"),
        ("2 * x", "tests/test_typo.py", "pytest could not run tests/test_typo.py"),
    ],
)
def test_what_cannot_be_tried_is_an_error_that_names_it(tool, tree, capsys, text, test, words):
    (tree / "tests" / "test_red.py").write_text("def test_red():\n    assert False\n")
    (tree / "tests" / "test_typo.py").write_text("def test_typo(:\n")
    with pytest.raises(SystemExit) as ended:
        tool.main([], [mutation(tool, "one", text, "7 * x", test)], tree)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_a_name_that_none_has(tool, tree, capsys):
    with pytest.raises(SystemExit):
        tool.main(["--only", "four"], [mutation(tool, "two", "2 * x", "4 * x")], tree)
    assert "no mutation begins with four" in capsys.readouterr().err
