"""Law: a fit says what a reader must know, and tells the report the same."""

from pathlib import Path

import pytest

from mgnet.app.data import Settings
from mgnet.app.job import FitJob, parameters, run_job
from mgnet.app.table import read_table


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
    assert "Note: 1 rows with missing values were left out." in report
    assert "Note: warning: 32 training rows for 840 parameters" in report
    assert report.endswith("mgnet fit it")
    assert any("1 rows" in line for line in said)
    assert shown[-1].endswith("wrote out/report.md")


def test_an_interrupt_skips_the_rivals(install):
    said, shown = [], []
    install("interrupted")
    assert run_job(order(), said.append, shown.append) is True
    report = Path("out/report.md").read_text()
    assert "rival" not in report
    assert "Note: interrupted after 0.3 s; this is the best model so far." in report


def test_an_interrupted_report_leaves_the_model(install, monkeypatch):
    import sys

    def write_report(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["mgnet.app.report"], "write_report", write_report)
    said = []
    assert run_job(order(), said.append, said.append) is True
    assert Path("out/model.json").is_file()
    assert "only the model is complete" in " ".join(said)
