"""Law: findings/README.md lists every script once, with the version that the script states."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = {path.name: path.read_text() for path in sorted((ROOT / "findings").glob("*.sh"))}
TABLE = (ROOT / "findings" / "README.md").read_text()
ROWS = re.findall(
    r"^\| (?!library|---)(.*) \| (.*) \| (.*) \| `(\w+\.sh)` \|$", TABLE, re.MULTILINE
)


def first_comment(script: str) -> str:
    """The first sentence of a script: the library, its version, and what it does."""
    lines = script.splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    return lines[1].removeprefix("# ").split(": ")[0]


def versions(text: str) -> set[str]:
    return set(re.findall(r"\d+\.\d+\.\d+", text))


def test_every_script_has_one_row_and_every_row_a_script():
    assert sorted(name for *_, name in ROWS) == sorted(SCRIPTS)
    assert (
        len(TABLE.split("[start:table]")[1].split("[end:table]")[0].splitlines()) == len(ROWS) + 4
    )


@pytest.mark.parametrize(("library", "name"), [(row[0], row[3]) for row in ROWS])
def test_the_row_has_the_versions_of_the_script(library, name):
    head = first_comment(SCRIPTS[name])
    assert versions(library) == versions(head)
    assert library.split()[0].lower().replace("pytorch", "torch") in head.lower()
    pinned = set(re.findall(r"==(\d+(?:\.\d+)+)", SCRIPTS[name]))
    assert versions(library) <= pinned


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_script_states_guess_and_observation_and_leaves_mgnet_out(name):
    script = SCRIPTS[name]
    assert "# Guess:" in script and "# Seen" in script
    assert not re.search(r"^\s*(import mgnet|from mgnet)|pip install.*mgnet", script, re.MULTILINE)


def test_coming_from_shows_the_table():
    page = (ROOT / "docs" / "coming-from.md").read_text()
    assert '--8<-- "findings/README.md:table"' in page
