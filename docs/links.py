"""Checks the links of the built pages, which must work on a server and when opened as files."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# What a browser fetches to show a page, as opposed to links that a reader may follow.
LOADED = {("img", "src"), ("script", "src"), ("iframe", "src"), ("source", "src"), ("link", "href")}


class Page(HTMLParser):
    """The anchors of a page, and the addresses to which it refers."""

    def __init__(self, text: str):
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[tuple[str, bool]] = []  # address, and whether the page loads it
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors.add(values.get("id") or (values.get("name", "") if tag == "a" else ""))
        for name in ("href", "src"):
            if name in values and values.get("rel") not in ("canonical", "next", "prev"):
                self.links.append((values[name], (tag, name) in LOADED))


def wrong_links(site: Path) -> Iterator[str]:
    """Yield a sentence for every broken link of the pages in a folder.

    A page may link to other sites, but loads nothing from them.
    """
    pages = {path.resolve(): Page(path.read_text()) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        name = path.relative_to(site.resolve()).as_posix()
        for link, loaded in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if loaded and parts.scheme != "data":
                    yield f"{name} loads {link}; pages load nothing from other sites"
                continue
            if parts.path.startswith("/"):
                if name != "404.html":  # a server shows that page under any address
                    yield f"{name} links to {link}, which does not exist where pages are files"
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file():
                yield f"{name} links to {link}; there is no such file"
            elif target in pages and parts.fragment:
                if unquote(parts.fragment) not in pages[target].anchors:
                    yield f"{name} links to {link}; that page has no such anchor"
    for path in sorted(site.rglob("*.css")):
        for link in re.findall(
            r"""(?:url\(|@import)\s*["']?((?:https?:)?//[^"')\s]*)""", path.read_text()
        ):
            yield f"{path.name} loads {link}; pages load nothing from other sites"
