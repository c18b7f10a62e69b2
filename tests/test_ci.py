"""Law: services, hooks and the container run what the repository's own scripts run."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
GITHUB = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
GITLAB = (ROOT / ".gitlab-ci.yml").read_text()
SERVICES = {"actions": GITHUB, "gitlab": GITLAB}
DECLARED = (ROOT / "pyproject.toml").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()


@pytest.mark.parametrize("text", SERVICES.values(), ids=SERVICES)
def test_a_service_runs_everything_in_the_form_that_the_repository_has(text):
    assert "bash .ci/run" in text
    assert "tools/dist.py" in text and "tools/wheel_matrix.py" in text


@pytest.mark.parametrize("text", SERVICES.values(), ids=SERVICES)
def test_a_service_tries_every_python_that_is_promised(text):
    (listed,) = re.findall(r'\[("3\.\d+".*)\]', text)
    promised = re.findall(r"Programming Language :: Python :: (3\.\d+)", DECLARED)
    assert re.findall(r"3\.\d+", listed) == promised
    matrix = (ROOT / "tools" / "wheel_matrix.py").read_text()
    (table,) = re.findall(r"OLDEST_NUMPY = \{(.*?)\}", matrix, re.DOTALL)
    assert re.findall(r'"(3\.\d+)": ', table) == promised
    (least,) = re.findall(r'requires-python = ">=(3\.\d+)"', DECLARED)
    assert promised[0] == least


@pytest.mark.parametrize("text", SERVICES.values(), ids=SERVICES)
def test_a_service_builds_with_the_tools_that_are_declared(text):
    (line,) = re.findall(r"pip install (.*build.*)", text)
    (extra,) = re.findall(r"^dist = \[(.*)\]$", DECLARED, re.MULTILINE)
    assert sorted(re.findall(r'"(.*?)"', line)) == sorted(re.findall(r'"(.*?)"', extra))


@pytest.mark.parametrize("text", SERVICES.values(), ids=SERVICES)
def test_a_service_sees_the_tags(text):
    assert "fetch-depth: 0" in text or 'GIT_DEPTH: "0"' in text


def test_hooks_run_what_make_lint_runs():
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    entries = re.findall(r"entry: (.*)", hooks)
    assert "make lint" in entries
    lint = MAKEFILE.replace("$(BIN)", ".venv/bin")
    for entry in entries:
        command = entry.removesuffix(" --force-exclude")
        assert command == "make lint" or f"{command} ." in lint


def test_the_container_installs_what_is_in_the_tree():
    text = (ROOT / "tools" / "docker" / "Dockerfile").read_text()
    for file in re.findall(r"-c (\S+\.txt)|(tools/\w+\.py)", text):
        assert (ROOT / "".join(file)).is_file()
    (extras,) = re.findall(r'"\.\[(.*?)\]"', text)
    for extra in extras.split(","):
        assert re.search(rf"^{extra} = \[", DECLARED, re.MULTILINE)
    setup = (ROOT / "tools" / "setup_petsc.py").read_text()
    for package in ("python3-petsc4py", "python3-mpi4py", "mpi-default-bin"):
        assert package in text and package in setup
