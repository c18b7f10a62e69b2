"""Law: the page of benchmarks is made of the saved results, and shows all of them."""

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = ROOT / "benchmarks"
RESULTS = sorted((BENCHMARKS / "results").glob("*.json"))
KEYS = {"command", "setting", "machine", "versions", "rows", "targets"}


def module(name, monkeypatch):
    """A script's names; what it imports from its folder is kept for the next test."""
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return runpy.run_path(str(BENCHMARKS / f"{name}.py"))


def test_page_is_what_the_generator_makes(monkeypatch):
    page = module("page", monkeypatch)
    made, there = page["page"](), (ROOT / "docs" / "benchmarks.md").read_text()
    assert made == there, "run python benchmarks/page.py"
    for file in RESULTS:
        assert f"benchmark-{file.stem}.svg" in made or file.stem not in page["SECTIONS"]


def test_figures(monkeypatch):
    pictures = module("page", monkeypatch)["pictures"]()
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
    page = module("page", monkeypatch)
    told = {"name": "speed", "target": "at most 2", "measured": "3", "met": False}
    result = {"command": "c", "setting": "1 seed", "machine": "m", "versions": {"A": "1"}}
    result |= {"rows": [{"method": "mgnet", "seconds": 3}], "targets": [told, told | {"met": True}]}
    text = page["part"]("nobody", result)
    assert "target at most 2; measured 3: **missed**" in text
    assert "measured 3: met" in text
    assert "| mgnet | 3 |" in text
    assert "1 seed. m, A 1." in text


@pytest.mark.parametrize(
    ("note", "made"),
    [
        ("{{ x .1f | method=A; n=2 }} s", "1.2 s"),
        ("{{ x .1f | method=A }}", LookupError),
        ("{{ x .1f | method=C }}", LookupError),
    ],
)
def test_notes_take_their_figures_from_the_rows(note, made, monkeypatch):
    looked_up = module("page", monkeypatch)["looked_up"]
    rows = [{"method": "A", "n": 2, "x": 1.21}, {"method": "A", "n": 3, "x": 5.0}]
    if isinstance(made, str):
        assert looked_up(note, rows) == made
    else:
        with pytest.raises(made, match="must fit one"):
            looked_up(note, rows)


def test_every_script_runs_under_make_bench():
    run = runpy.run_path(str(BENCHMARKS / "run.py"))
    scripts = {
        file.stem
        for file in BENCHMARKS.glob("*.py")
        if "argparse" in file.read_text() or "sys.argv" in file.read_text()
    }
    assert scripts - {"run", "saved"} <= set(run["SMALL"])
    assert {*run["FULL"], *run["PEERS"], *run["RANKS"]} <= set(run["SMALL"])


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
