"""Law: the script for a GPU goes its whole way on a CPU, and times nothing that is wrong."""

import json
import os
import runpy
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

pytest.importorskip("pyamg")
pytest.importorskip("matplotlib")
ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = ROOT / "benchmarks"
COMMAND = [sys.executable, str(BENCHMARKS / "gpu.py")]


def call(*arguments, **environment):
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=500,
    )


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu")
    done = call("--dry-run", "--save", str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((folder / "gpu.json").read_text())


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return runpy.run_path(str(BENCHMARKS / "gpu.py"))


@pytest.mark.slow
def test_the_whole_way_without_a_gpu(result):
    rows = result["rows"]
    assert not [row for row in rows if "failure" in row]
    parts = {row["part"] for row in rows}
    assert parts == {"checks", "spline layer", "layers", "solvers", "Burgers"}
    assert "dry run: times mean nothing" in result["setting"]
    assert not result["targets"]  # no verdict on such times
    for row in rows:
        assert all(isinstance(value, str | int | float) for value in row.values())
        if row["part"] == "checks":
            assert 0.0 <= row["error"] < 1e-4
        elif row["part"] != "Burgers":
            assert row["ms"] > 0.0
    floors = [row for row in rows if "floor_ms" in row]
    assert len(floors) == 6 + 4 + 2 and all(row["floor_ms"] < row["ms"] for row in floors)


@pytest.mark.slow
def test_the_page_takes_what_was_saved(result, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS / "page"))
    page = runpy.run_path(str(BENCHMARKS / "page" / "make.py"))
    made = page["part"]("gpu", result)
    for told in ("## On a GPU", "Linear + SiLU", "one cycle", "LM step", "V(1,1)", "| floor |"):
        assert told in made
    drawn = page["drawing"].svg(page["SECTIONS"]["gpu"].draw, result["rows"])
    assert drawn.count("<svg") == 1 and "nan" not in drawn


def test_the_page_claims_no_figure_without_a_saved_one():
    saved = (BENCHMARKS / "results" / "gpu.json").is_file()
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    assert ("No GPU was at hand: there are no figures." in page) != saved


def test_a_dry_run_is_never_published(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--dry-run", "--save"])
    with pytest.raises(SystemExit):
        script["main"]()
    assert "is not a measurement" in capsys.readouterr().err


def test_without_a_gpu_nothing_is_measured(script, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--save"])
    script["main"]()
    assert "no GPU was found" in capsys.readouterr().out


def rows_of(script, section, ends=60.0):
    script["SECTIONS"]["splines"] = section
    machine = script["Machine"](torch.device("cpu"), True)
    return script["rows_of"]("splines", machine, time.perf_counter() + ends)


def test_a_part_without_rows_says_why(script, capsys):
    assert not rows_of(script, lambda machine: iter(()))
    assert "nothing to do without a GPU" in capsys.readouterr().out


def test_a_part_that_fails_keeps_its_rows_and_is_named(script):
    def half(machine):
        yield {"part": "checks", "case": "one", "error": 0.0}
        raise RuntimeError("out of memory\nmore")

    kept, failed = rows_of(script, half)
    assert kept["case"] == "one" and failed["failure"] == "RuntimeError: out of memory"


def test_results_are_kept_when_a_part_ends_the_process(script, monkeypatch, tmp_path):
    def whole(machine):
        yield {"part": "checks", "case": "one", "error": 0.0}

    def deadly(machine):
        raise SystemExit("as a driver that aborts")
        yield

    script["SECTIONS"].update(splines=whole, newton=deadly)
    late = []
    monkeypatch.setattr(
        "faulthandler.dump_traceback_later", lambda seconds, exit: late.append((seconds, exit))
    )
    arguments = ["--dry-run", "--seconds", "5", "--parts", "splines", "newton"]
    monkeypatch.setattr(sys, "argv", ["gpu.py", *arguments, "--save", str(tmp_path)])
    with pytest.raises(SystemExit):
        script["main"]()
    assert late == [(5.0 + script["LATE"], True)]  # a hang ends, too
    (row,) = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert row["case"] == "one"


def test_a_cycle_is_checked_against_one_of_the_cpu(script, monkeypatch):
    layers = sys.modules["gpu_layers"]
    right = layers.ours

    def wrong(told, factor, graph):  # off by less than the error of the cycle itself
        work = right(told, factor, graph)
        calls.append(work)
        if factor is None or len(calls) % 3 == 1:
            return work
        return lambda: layers.Result(*(1.001 * part for part in work()))

    calls = []
    monkeypatch.setattr(layers, "ours", wrong)
    (row,) = [
        row
        for row in layers.passes(script["Machine"](torch.device("cpu"), True))
        if row["method"] == layers.CYCLE
    ]
    assert "above 1e-04" in row["failure"]


def test_a_part_ends_when_its_time_does(script):
    def endless(machine):
        while True:
            yield {"part": "checks", "case": "one", "error": 0.0}

    *kept, failed = rows_of(script, endless, 0.05)
    assert kept and "no time is left" in failed["failure"]
    (failed,) = rows_of(script, endless, -1.0)
    assert "no time is left" in failed["failure"]


def test_what_is_wrong_is_not_timed(script, monkeypatch):
    splines = sys.modules["gpu_splines"]
    right = splines.spline_layer
    monkeypatch.setattr(splines, "spline_layer", lambda *given: right(*given) * 1.001)
    (failed,) = rows_of(script, splines.passes)
    assert "ArithmeticError: spline layer, 5 intervals: errors" in failed["failure"]
    monkeypatch.setattr(splines, "spline_layer", lambda *given: right(*given) * torch.nan)
    (failed,) = rows_of(script, splines.passes)
    assert "ArithmeticError" in failed["failure"]


def test_nan_is_no_small_error(script):
    clock = sys.modules["gpu_clock"]
    clock.poison(script["Machine"](torch.device("cpu"), True))
    off = clock.error(torch.tensor([torch.nan]), torch.ones(1))
    with pytest.raises(ArithmeticError, match="b nan, above 1e-03"):
        clock.checked("sum", {"a": 0.0, "b": off}, 1e-3)


def spline(case, grid, method, ms, **more):
    return {"part": "spline layer", "case": case, "grid": grid, "method": method, "ms": ms, **more}


def test_targets(script):
    both = "forward + backward"
    rows = [spline(both, n, "Triton", t, floor_ms=1.0) for n, t in ((5, 2.0), (512, 2.5))]
    rows += [spline(both, n, "plain torch", t) for n, t in ((5, 30.0), (512, 24.0))]
    rows += [spline("second derivatives", 5, "Triton", 5.0, floor_ms=2.0)]
    layers = {"part": "layers", "case": "c", "layers": 1024}
    for method, ms in (("one cycle, CUDA graph", 1.0), ("march, CUDA graph", 3.0),
                       ("loop by hand, CUDA graph", 1.4), ("PyTorch eager", 9.0)):  # fmt: skip
        rows.append(layers | {"method": method, "ms": ms})
    rows.append({"part": "Burgers", "case": "B", "seconds": 15.7, "error": 1e-8})
    rows.append({"part": "Burgers", "case": "B", "seconds": 60.0, "error": 1e-9})
    found = {goal["name"]: (goal["measured"], goal["met"]) for goal in script["targets"](rows)}
    assert found == {
        "plain torch over Triton": ("9.6", False),
        "Triton, any grid over grid 5": ("1.25", True),
        "second derivatives over first": ("2.5", True),
        "Triton over the floor": ("2.5", True),
        "1024 layers: eager over one cycle": ("9", True),
        "1024 layers: march as a CUDA graph over one cycle": ("1.4", False),
        "Burgers, nu = 0.01": ("1.0e-08 in 15.7 s", True),
    }
