"""Laws of tools/dist.py: on an index every link of the README leads somewhere."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
GITHUB, GITLAB = "https://github.com/o/n", "https://gitlab.example.org/a/b/n"


def module():
    spec = importlib.util.spec_from_file_location("dist", ROOT / "tools" / "dist.py")
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


dist = module()


@pytest.mark.parametrize(
    ("remote", "url"),
    [
        ("https://github.com/o/n.git", GITHUB),
        ("https://github.com/o/n/", GITHUB),
        ("git@github.com:o/n.git", GITHUB),
        ("ssh://git@github.com/o/n.git", GITHUB),
        ("https://name:secret@gitlab.example.org/a/b/n.git", GITLAB),
        ("/srv/n", ""),
        ("file:///srv/n", ""),
        ("", ""),
    ],
)
def test_the_home_of_a_remote(remote, url):
    assert dist.public_url(remote) == url


def test_addresses_at_each_host():
    github, gitlab = dist.Home(GITHUB, "v1.2.3"), dist.Home(GITLAB, "v1.2.3")
    assert github.file("docs/a.md#b") == f"{GITHUB}/blob/v1.2.3/docs/a.md#b"
    assert github.file("docs/a.PNG") == f"{GITHUB}/raw/v1.2.3/docs/a.PNG"
    assert gitlab.file("docs/a.md") == f"{GITLAB}/-/blob/v1.2.3/docs/a.md"
    assert f'\nIssues = "{GITLAB}/-/issues"\n' in gitlab.table()
    with pytest.raises(ValueError, match=r"files on example\.org are not known.*HOSTS"):
        dist.Home("https://example.org/n", "v1")


PAGE = """\
[a](docs/a.md#x "T"), [b](https://b.org), [c](#here), ![d](p/d.png) and [![e](e.svg)](f.md)
    [code](stays.md) and `[code](too.md)`
```
[in a fence](stays.md)
```
[g [h]](g.md)
"""


def test_links_become_absolute_and_code_stays():
    page = PAGE.replace(' "T"', "")
    found = dist.for_index(page, dist.Home(GITHUB, "v1"))
    at = f"{GITHUB}/blob/v1"
    assert found.splitlines()[0] == (
        f"[a]({at}/docs/a.md#x), [b](https://b.org), [c](#here), ![d]({GITHUB}/raw/v1/p/d.png) and "
        f"[![e]({GITHUB}/raw/v1/e.svg)]({at}/f.md)"
    )
    assert found.splitlines()[1:5] == page.splitlines()[1:5]
    assert found.splitlines()[5] == f"[g [h]]({at}/g.md)"


def test_without_a_home_links_are_text():
    found = dist.for_index(PAGE.replace(' "T"', ""), None).splitlines()
    assert found[0] == "a, [b](https://b.org), [c](#here),  and "
    assert found[5] == "g [h]"


def links(text: str) -> list[str]:
    """The targets of a page outside code."""
    plain = re.sub(r"^```.*?^```$|^ {4}.*?$|`[^`\n]+`", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"\]\(([^)]*)\)", plain)


def test_all_links_of_the_readme_lead_somewhere():
    targets = links(README)
    assert len(targets) > 5
    for target in targets:
        path = target.partition("#")[0]
        assert re.match(r"https?://", target) or not path or (ROOT / path).is_file(), target
    absolute = links(dist.for_index(README, dist.Home(GITHUB, "v1")))
    assert len(absolute) == len(targets)
    assert all(re.match(r"https://|#", target) for target in absolute)
    assert not [t for t in links(dist.for_index(README, None)) if not re.match("https?://|#", t)]


def test_an_index_can_show_the_readme():
    pytest.importorskip("readme_renderer.markdown")
    dist.check_page(dist.for_index(README, dist.Home(GITHUB, "v1")))


def test_missing_tools_are_named_before_any_work(monkeypatch):
    monkeypatch.setattr(dist, "find_spec", lambda name: None if name == "twine" else name)
    with pytest.raises(SystemExit, match="^dist: twine cannot be imported; pip install"):
        dist.check_tools()


def test_reference_definitions_are_not_used():
    """They would not be rewritten."""
    assert not re.search(r"^\[[^\]]+\]: ", README, re.MULTILINE)
