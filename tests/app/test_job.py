"""Law: a fit says what a reader must know, and tells the report the same."""

import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from mgnet.app.data import Settings
from mgnet.app.job import FitJob, parameters, run_job
from mgnet.app.model import Model
from mgnet.app.table import Table, read_table


def test_parameters_are_those_of_the_network():
    kan = pytest.importorskip("mgnet.knots").KAN
    settings = Settings(hidden=(4, 3), intervals=2, degree=2, levels=3)
    network = kan([5, 4, 3, 1], intervals=8, degree=2)
    assert parameters(5, settings) == sum(p.numel() for p in network.parameters())


def order(command="mgnet fit"):
    path = Path("data.csv")
    path.write_text(path.read_text() + "1,,2\n")
    return FitJob(
        read_table(path, "rho", drop_missing=True), Settings(), Path("out"), True, command
    )


def test_remarks_reach_screen_and_report(install):
    said, shown = [], []
    assert run_job(order("mgnet fit it"), said.append, shown.append) is False
    report = Path("out/report.md").read_text()
    assert "Note: 1 row with missing values was left out." in report
    assert "Note: 32 training rows for 840 parameters" in report
    assert report.endswith("mgnet fit it")
    assert any("1 row with" in line for line in said)
    assert shown[-1].endswith("wrote out/report.md")


@pytest.mark.parametrize(("seconds", "left"), [(60.0, 44.0), (17.0, 1.0), (5.0, 0.0)])
def test_seconds_of_an_ensemble_are_those_of_the_command(install, monkeypatch, seconds, left):
    """Of ten that are gone six are kept for the end; the report tells what was asked for."""
    from mgnet.app import job as module

    told, real = [], module.fit
    monkeypatch.setattr(module, "fit", lambda d, s, *a, **k: told.append(s) or real(d, s, *a, **k))
    monkeypatch.setattr(module.time, "perf_counter", lambda: 110.0)
    reported = []

    def write_report(folder, data, settings, *_, **__):
        reported.append(settings)
        (folder / "report.md").write_text("")

    monkeypatch.setattr(sys.modules["mgnet.app.report"], "write_report", write_report)
    job = replace(order(), began=100.0, compare=False)
    for ensemble in (5, 1):
        own = replace(job, settings=Settings(ensemble=ensemble, seconds=seconds))
        run_job(own, lambda _: None, lambda _: None)
    assert [s.seconds for s in told] == pytest.approx([left, seconds], abs=0.01)
    assert told[0].seconds > 0.0
    assert [s.seconds for s in reported] == [seconds, seconds]


@pytest.mark.parametrize(("seconds", "members"), [(5.0, 1), (np.inf, 2)])
def test_a_limit_that_cuts_an_ensemble_short_is_reported(tmp_path, seconds, members):
    """The limit includes the start of Python: one member was written as if it were all."""
    x = np.random.default_rng(0).uniform(size=(60, 3))
    table, settings = (
        Table.of_numbers("abc", "y", x, x.sum(1)),
        Settings(ensemble=2, seconds=seconds),
    )
    job = FitJob(table, settings, tmp_path / "out", began=time.perf_counter() - 10.0)
    said, shown = [], []
    run_job(job, said.append, shown.append)
    assert f"ensemble of {members} member{'s' * (members > 1)} on parts" in shown[0]
    cut = [line for line in said if "--seconds 5" in line and "1 of 2 members" in line]
    assert len(cut) == (members == 1)
    report = (tmp_path / "out/report.md").read_text()
    assert ("1 of 2 members" in report) == (members == 1)


@pytest.mark.parametrize("kind", [OSError(28, "No space left on device"), BrokenPipeError()])
def test_a_model_is_written_though_nothing_can_be_shown(install, kind):
    def show(_):
        raise kind

    with pytest.raises(type(kind)) as met:
        run_job(order(), lambda _: None, show)
    assert "out/report.md" in map(str, Path("out").iterdir())
    assert met.value is kind or "the model is in out" in str(met.value)


def test_an_interrupt_skips_the_rivals(install):
    said, shown = [], []
    install("interrupted")
    assert run_job(order(), said.append, shown.append) is True
    report = Path("out/report.md").read_text()
    assert "rival" not in report
    assert "Note: interrupted after 0.3 s; this is the best model so far." in report


def test_an_interrupted_report_leaves_the_model(install, monkeypatch):

    def write_report(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["mgnet.app.report"], "write_report", write_report)
    said = []
    assert run_job(order(), said.append, said.append) is True
    assert Path("out/model.json").is_file()
    assert "only the model is complete" in " ".join(said)


def test_letters_that_the_font_lacks_are_no_remark(tmp_path):
    """A name in Japanese was told by several lines of matplotlib's."""
    x = np.random.default_rng(0).uniform(size=(60, 3))
    table = Table.of_numbers(("名前", "\U0001f642", "c"), "値", x, x.sum(1))
    job = FitJob(table, Settings(ensemble=2, seconds=np.inf), tmp_path / "out")
    with warnings.catch_warnings(record=True) as met:
        warnings.simplefilter("always")
        run_job(job, lambda _: None, lambda _: None)
    assert [str(one.message) for one in met] == []
    assert (tmp_path / "out/fit.png").exists()


def test_the_real_files_hold_what_the_model_predicts(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.uniform([0.0, 10.0], [2.0, 30.0], (200, 2))
    y = 5.0 + 100.0 * np.sin(2.0 * x[:, 0]) * np.exp(-x[:, 1] / 20.0)
    rows = "".join(f"{a!r},{b!r},{c!r}\n" for (a, b), c in zip(x.tolist(), y.tolist(), strict=True))
    (tmp_path / "data.csv").write_text("a,b,y\n" + rows)
    settings = Settings(hidden=(3,), intervals=2, levels=2, evaluations=80, seed=7, held_out=0.25)
    table, out = read_table(tmp_path / "data.csv", "y"), tmp_path / "out"
    said, shown = [], []
    job = FitJob(table, settings, out, True, "mgnet fit")
    assert run_job(job, said.append, shown.append) is False
    pictures = {"fit.png", "inputs.png", "convergence.png", "edges.png"}
    names = {"model.json", "model.safetensors", "report.md", *pictures}
    assert {file.name for file in out.iterdir()} == names
    assert {line.rpartition("/")[2] for line in shown[-1].split()[1::2]} == names
    for name in pictures:
        assert np.ptp(imread(out / name)[..., :3]) > 0.5  # not blank
    drawn = np.random.default_rng(7).permutation(200)
    spread = ((y[drawn[50:]] - y[drawn[50:]].mean()) ** 2).mean()
    errors = Model.load(out).predict(x) - y
    train, held = ((errors[part] ** 2).mean() for part in (drawn[50:], drawn[:50]))
    report = (out / "report.md").read_text()
    (figures,) = (line for line in report.splitlines() if line.startswith("| standardized MSE"))
    told = [float(cell) for cell in figures.split("|")[2:4]]
    assert told == pytest.approx([train / spread, held / spread], rel=1e-3)
    (figures,) = (line for line in report.splitlines() if line.startswith("| RMSE (y)"))
    told = [float(cell) for cell in figures.split("|")[2:4]]
    assert told == pytest.approx([train**0.5, held**0.5], rel=1e-2)
    assert held / spread < 1e-3
    assert "63 parameters" in report  # 9 edges, 4 intervals and degree 3
    comparison = report.split("## Comparison")[1].split("##")[0]
    rivals = [line.split(":")[0] for line in said if "held-out MSE" in line]
    assert len(rivals) == 5 and all(f"| {name} " in comparison for name in rivals)
    assert all(name in shown[1] for name in ["KAN, multigrid", *rivals])


def test_the_report_names_the_network_that_options_left(tmp_path, options):
    x = np.linspace(0.0, 1.0, 80)
    rows = "".join(f"{a!r},{a * a!r}\n" for a in x.tolist())
    (tmp_path / "data.csv").write_text("a,y\n" + rows)
    settings = Settings(hidden=(2,), intervals=3, levels=3, evaluations=40)
    options('-mgnet_levels 2 -mgnet_cycle "cascade 2,2" -mgnet_smoother mgnet.training.LBFGS')
    job = FitJob(read_table(tmp_path / "data.csv", "y"), settings, tmp_path / "out")
    run_job(job, lambda _: None, lambda _: None)
    network = Model.load(tmp_path / "out").network
    assert network.intervals == (12, 12)
    report = (tmp_path / "out" / "report.md").read_text()
    assert "6 intervals on the coarsest of 2 levels and 12 on the finest" in report
    assert "optimizer mgnet.training.LBFGS" in report and "cycle cascade 2,2" in report


@pytest.mark.parametrize(("x_size", "y_size"), [(1e-300, 1e-170), (8e307, 1e300)])
def test_a_table_in_other_units_with_an_input_that_does_not_vary(tmp_path, x_size, y_size):
    """The same errors, over the unit, in the table and the report; no warning on the way."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1.0, 1.0, (100, 2))
    y = np.sin(2.0 * x[:, 0]) * np.exp(x[:, 1])
    settings = Settings(hidden=(2,), intervals=2, levels=1, evaluations=30)
    reports, predictions = [], []
    for number, (x_unit, y_unit) in enumerate([(1.0, 1.0), (x_size, y_size)]):
        columns = np.column_stack([x * x_unit, np.full(100, 0.1), y * y_unit])
        rows = "\n".join(",".join(map(repr, row)) for row in columns.tolist())
        (tmp_path / "data.csv").write_text(f"a,b,k,y\n{rows}\n")
        job = FitJob(read_table(tmp_path / "data.csv", "y"), settings, tmp_path / f"out{number}")
        said, shown = [], []
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            run_job(job, said.append, shown.append)
        assert "input k left out: the same value in all training rows" in said[0]
        reports.append((job.out / "report.md").read_text())
        assert f"Note: {said[0].removeprefix('warning: ')}." in reports[-1]
        model = Model.load(job.out)
        assert model.names == ("a", "b")
        predictions.append(model.predict(x * x_unit) / y_unit)
        assert shown[1].splitlines()[-1].split()[-1] != "0"
    np.testing.assert_allclose(*predictions, rtol=1e-6, atol=1e-9)
    for line in ("| standardized MSE", "| a ", "| b "):
        figures = [[one for one in text.splitlines() if one.startswith(line)] for text in reports]
        assert len(figures[0]) == len(figures[1]) > 0
    told, tiny = (text.split("| RMSE (y)")[1].split("\n")[0].split("|") for text in reports)
    for one, other in zip(told[1:3], tiny[1:3], strict=True):
        assert float(other) == pytest.approx(float(one) * y_size, rel=2e-2)
