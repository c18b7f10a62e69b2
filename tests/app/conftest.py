"""A stand-in for training, where a test asks for it."""

import os
import runpy
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "stand_in.py"
GOOD = "T,p,rho\n" + "".join(f"{k},{k * k},{3 * k + 1}\n" for k in range(40))


@pytest.fixture(autouse=True)
def disk(monkeypatch):
    """Nobody waits for the disk: a busy one takes seconds, and no test cuts the power."""
    monkeypatch.setattr(os, "fsync", lambda stream: None)


@pytest.fixture
def install(monkeypatch, tmp_path):
    """Install the stand-in, in a folder with a good table."""
    monkeypatch.chdir(tmp_path)
    Path("data.csv").write_text(GOOD)
    load = runpy.run_path(str(SCRIPT))["install"]

    def module(name, content):
        monkeypatch.setitem(sys.modules, name, content)

    def install(mode="quick"):
        load(lambda *a: monkeypatch.setattr(*a, raising=False), module, mode)

    install()
    return install
