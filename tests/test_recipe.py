"""Law: the conda recipe says what pyproject.toml says; the release has one number everywhere."""

import re
from pathlib import Path

import pytest

tomllib = pytest.importorskip("tomllib")  # Python 3.11

ROOT = Path(__file__).resolve().parent.parent
RECIPE = (ROOT / "tools" / "conda-recipe" / "recipe.yaml").read_text()
DECLARED = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = DECLARED["project"]
EXTRAS = PROJECT["optional-dependencies"]
# Of an archive or a clone without tags, see pyproject.toml.
RELEASE = DECLARED["tool"]["setuptools_scm"]["fallback_version"]
RENAMED = {"torch": "pytorch", "matplotlib": "matplotlib-base"}


def listed(section: str) -> list[str]:
    """The packages under `requirements`, without Python and pip."""
    (block,) = re.findall(rf"^  {section}:\n((?:    .*\n)+)", RECIPE, flags=re.MULTILINE)
    found = re.findall(r"^    - (.*)$", block, flags=re.MULTILINE)
    return sorted(entry for entry in found if entry.split()[0] not in ("python", "pip"))


def for_conda(requirements: list[str]) -> list[str]:
    pairs = (re.fullmatch(r"([\w-]+)(.*)", entry) for entry in requirements)
    return sorted(f"{RENAMED.get(pair[1], pair[1])} {pair[2]}" for pair in pairs if pair)


@pytest.mark.parametrize(
    ("section", "requirements"),
    [
        ("host", DECLARED["build-system"]["requires"]),
        ("run", PROJECT["dependencies"] + EXTRAS["app"]),
        ("run_constraints", EXTRAS["petsc"] + EXTRAS["fast"]),
    ],
)
def test_requirements(section, requirements):
    assert listed(section) == for_conda(requirements)


@pytest.mark.parametrize(
    "line",
    [
        f'version: "{RELEASE}"',
        f'python_min: "{PROJECT["requires-python"].removeprefix(">=")}"',
        f"name: {PROJECT['name']}",
        f"license: {PROJECT['license']}",
        f'summary: "{PROJECT["description"]}"',
        f"- mgnet = {PROJECT['scripts']['mgnet']}",
    ],
)
def test_facts(line):
    assert line in (text.strip() for text in RECIPE.splitlines())


def test_the_release_has_one_number_and_one_date():
    changelog = (ROOT / "CHANGELOG.md").read_text()
    newest = re.search(r"^## \[(\d\S*)\] - (\d{4}-\d\d-\d\d)$", changelog, re.MULTILINE)
    assert newest and newest[1] == RELEASE
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {RELEASE}\ndate-released: {newest[2]}\n" in citation
