"""Law: what the pages show is what Python prints."""

import doctest
import importlib
import inspect
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_of_the_page(page):
    text = re.sub(r"^ *```.*$", "", page.read_text(), flags=re.MULTILINE)  # a fence ends an output
    text = re.sub(r"[\d.]\S* s$", "... s", text, flags=re.MULTILINE)  # seconds differ
    test = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
    report: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=report.append)
    assert not report, "".join(report)


@pytest.mark.parametrize("name", ["index", "concepts", "extending", "howto"])
def test_the_page_has_examples(name):
    assert ">>>" in (ROOT / "docs" / f"{name}.md").read_text()


def test_every_demo_has_its_section():
    page = (ROOT / "docs" / "demos.md").read_text()
    for script in (ROOT / "demos").glob("*.py"):
        assert f"{{{{ demo {script.stem} }}}}" in page


def test_the_design_names_every_file():
    page = (ROOT / "docs" / "design.md").read_text()
    named = set(re.findall(r"`(\w+\.py)`", page)) - {"__init__.py", "__main__.py"}
    files = {path.name for path in (ROOT / "mgnet").rglob("*.py")} - {"__init__.py", "__main__.py"}
    assert named == files


def test_figures_of_the_table_of_libraries_are_those_of_the_benchmarks():
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    peers = (ROOT / "benchmarks" / "notes" / "peers.md").read_text().strip()
    assert peers in page
    page = page.replace(peers, "")
    rows = re.findall(
        r"^\|.*\|.*\| (\S+(?: ms)?) \| (\S+(?: ms)?) \| \**([\d.]+)\** \|$", peers, re.MULTILINE
    )
    assert len(rows) > 10
    for mgnet, other, ratio in rows:
        for figure in (mgnet, other):
            assert re.search(rf"\| {re.escape(figure.removesuffix(' ms'))}[ |]", page), figure
        assert float(ratio) == pytest.approx(
            float(other.removesuffix(" ms")) / float(mgnet.removesuffix(" ms")), rel=0.06
        )


def missing_in_reference(package: str) -> list[str]:
    page = (ROOT / "docs" / "api.md").read_text()
    listed = set(re.findall(r"^::: (\S+)$", page, re.MULTILINE))
    exports = importlib.import_module(package)
    found = []
    for name in exports.__all__:
        thing = getattr(exports, name)
        home = thing if inspect.ismodule(thing) else importlib.import_module(thing.__module__)
        public = home is thing or name in home.__all__
        if home.__name__ not in listed or not public:
            found.append(name)
    return found


@pytest.mark.parametrize(
    "package",
    ["mgnet", "mgnet.knots", "mgnet.training", "mgnet.depth", "mgnet.estimators"]
    + ["mgnet.options", "mgnet.plot", "mgnet.checkpoint"],
)
def test_every_exported_name_is_in_the_reference(package):
    assert not missing_in_reference(package)


def test_so_are_those_of_petsc(petsc):
    assert not missing_in_reference("mgnet.petsc")
