"""The command of the fuzzers: what it tells, and what it refuses."""

import sys

import pytest

from tools.fuzz import __main__ as command


@pytest.mark.parametrize("count", ["0", "-3", "x", "1.5"])
def test_a_count_is_positive(count, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["fuzz", "texts", "--count", count])
    with pytest.raises(SystemExit, match="2"):
        command.main()
    assert f"got '{count}'; expected a positive integer" in capsys.readouterr().err


def test_the_help_tells_what_every_fuzzer_tries(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["fuzz", "--help"])
    with pytest.raises(SystemExit, match="0"):
        command.main()
    told = capsys.readouterr().out.splitlines()
    for name in (*command.FILES, "ranks", *command.OWN):
        assert any(line.startswith(f"{name} ") and len(line) > 40 for line in told), name
