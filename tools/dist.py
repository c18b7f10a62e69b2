"""Build the source distribution and the wheel of a release, and check them: `make dist`.

What a package index shows is the README, whose links must be absolute there, and a list of URLs.
Both depend on where the repository is published, which the repository does not know: it is taken
from --home, or from the git remote `origin`. A copy of the commit gets the URLs and the links; the
tree itself stays as it is. Without a home the links become plain text and the list stays empty.

    python tools/dist.py                       # writes into dist/
    python tools/dist.py --home https://github.com/OWNER/NAME
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent
# Part of the name of a host -> the paths at which it shows files and pictures, and its tracker.
HOSTS = {
    "github": ("blob/{ref}/{path}", "raw/{ref}/{path}", "issues"),
    "gitlab": ("-/blob/{ref}/{path}", "-/raw/{ref}/{path}", "-/issues"),
}
PICTURES = (".png", ".svg", ".jpg", ".gif")
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")
TOOLS = "build", "twine", "readme_renderer", "setuptools_scm"  # of the extra `dist`
PRETEND = "SETUPTOOLS_SCM_PRETEND_VERSION_FOR_MGNET_SOLVERS"


def fail(sentence: str) -> NoReturn:
    sys.exit(f"dist: {sentence}")


def public_url(remote: str) -> str:
    """Return the web address of a git remote without a user's name or a token; "" for a folder."""
    ssh = re.fullmatch(r"(?:ssh://)?git@([\w.-]+)[:/](?!\d+/)(.+)", remote)
    parts = urlsplit(f"https://{ssh[1]}/{ssh[2]}" if ssh else remote)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return ""
    path = parts.path.rstrip("/").removesuffix(".git")
    return f"https://{parts.hostname}{path}"


class Home:
    """Where the repository is published, and the addresses of its files at one tag or commit."""

    def __init__(self, url: str, ref: str):
        host = urlsplit(url).hostname or ""
        forms = [form for name, form in HOSTS.items() if name in host]
        if not forms:
            raise ValueError(
                f"the addresses of files on {host or repr(url)} are not known, only those of "
                f"{' and '.join(HOSTS)} hosts: add a line to HOSTS in tools/dist.py"
            )
        self.url, self.ref = url.rstrip("/"), ref
        self.page, self.raw, self.issues = forms[0]

    def file(self, path: str) -> str:
        form = self.raw if path.lower().endswith(PICTURES) else self.page
        return f"{self.url}/{form.format(ref=self.ref, path=path)}"

    def table(self) -> str:
        """Return the table for pyproject.toml."""
        rows = {
            "Repository": self.url,
            "Documentation": self.file("docs/index.md"),
            "Changelog": self.file("CHANGELOG.md"),
            "Issues": f"{self.url}/{self.issues}",
            "Security": self.file("SECURITY.md"),
        }
        lines = "".join(f'{name} = "{url}"\n' for name, url in rows.items())
        return f"\n[project.urls]\n{lines}"


def for_index(readme: str, home: Home | None) -> str:
    """Make the links of a README absolute; without a home keep their texts and drop pictures.

    Code, in fences and indented, stays as it is.
    """

    def absolute(match: re.Match[str]) -> str:
        picture, text, target = match.groups()
        text = LINK.sub(absolute, text)  # a picture may be the text of a link
        if urlsplit(target).scheme or target.startswith("#"):
            return f"{picture}[{text}]({target})"
        if home is None:
            return "" if picture else text
        return f"{picture}[{text}]({home.file(target)})"

    parts = re.split(r"(^```.*?^```$|^(?: {4}|\t)[^\n]*$|`[^`\n]+`)", readme, flags=re.M | re.S)
    return "".join(p if n % 2 else LINK.sub(absolute, p) for n, p in enumerate(parts))


def git(*arguments: str, check: bool = True) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    if check and done.returncode:
        fail(f"git {arguments[0]} failed: {done.stderr.strip()}")
    return done.stdout.strip()


def run(*command: str | Path, cwd: Path, **environment: str) -> None:
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=os.environ | environment)
    if done.returncode:
        fail(f"{' '.join(map(str, command[1:4]))} failed")


def check_page(readme: str) -> None:
    """End where a package index could not show this README."""
    if not import_module("readme_renderer.markdown").render(readme):
        fail("readme_renderer cannot render README.md")


def check_tools() -> None:
    """End before any work where a package of the extra `dist` is missing."""
    missing = [name for name in TOOLS if find_spec(name) is None]
    if missing:
        fail(f"{', '.join(missing)} cannot be imported; pip install '.[dist]', or use make dist")


def main() -> None:
    parser = argparse.ArgumentParser(description="build and check the archives of a release")
    parser.add_argument("--home", default="", help="default: the git remote origin")
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    given = parser.parse_args()
    check_tools()
    if git("status", "--porcelain", "--untracked-files=no"):
        fail("there are changes that are not committed; an archive is built from a commit")
    out = given.out.resolve()
    if out.is_dir() and any(out.iterdir()):
        fail(f"{out} is not empty; remove the older archives")
    scm = [sys.executable, "-m", "setuptools_scm"]
    version = subprocess.run(scm, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    if not version:
        fail("setuptools-scm finds no version; build from a clone with its tags")
    ref = f"v{version}" if git("tag", "--points-at", "HEAD", "--list", f"v{version}") else ""
    url = public_url(given.home or git("remote", "get-url", "origin", check=False))
    try:
        home = Home(url, ref or git("rev-parse", "HEAD")) if url else None
    except ValueError as error:
        fail(str(error))
    if home is None:
        print("dist: no home is known (see --home): the archives carry no URLs and no links")
    if not ref:
        print(f"dist: no tag v{version} points at this commit: these archives are not a release")
    with tempfile.TemporaryDirectory() as place:
        tree = Path(place, "tree")
        git("clone", "--quiet", "--shared", str(ROOT), str(tree))
        readme = for_index((tree / "README.md").read_text(), home)
        check_page(readme)
        (tree / "README.md").write_text(readme)
        if home is not None:
            with (tree / "pyproject.toml").open("a") as declared:
                declared.write(home.table())
        run(sys.executable, "-m", "build", "--outdir", out, cwd=tree, **{PRETEND: version})
    run(sys.executable, "-m", "twine", "check", "--strict", *sorted(out.iterdir()), cwd=ROOT)


if __name__ == "__main__":
    main()
