"""Pictures and output that `mkdocs build` creates with the library, so that pages match it.

Pictures of cycles, figures of benchmarks and the output of the demos go straight into the site;
nothing is written to this folder.
In a page, `{{ demo poisson }}` stands for the output and pictures of a demo, and `{{ reasons }}`
for the table of `Reason`. With DEMOS=0 in the environment no demo runs; the pages state that.
"""

import io
import logging
import math
import os
import re
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import jupytext
import matplotlib
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from mgnet import Reason, Schedule, cascade, cycle, nested, parse
from mgnet.plot import plot_schedule

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "benchmarks" / "page"), str(ROOT / "docs")]
from copies import with_copies  # type: ignore  # noqa: E402
from formulas import with_formulas  # type: ignore  # noqa: E402
from links import wrong_links  # type: ignore  # noqa: E402
from make import pictures as benchmark_pictures  # type: ignore  # noqa: E402

DEMOS = os.environ.get("DEMOS") != "0"

CYCLES = {
    "v": cycle(4),
    "f": cycle(4, kappa=2),
    "w": cycle(4, kappa=math.inf),
    "kappa3": cycle(5, kappa=3),
    "nested": nested(4, kappa=2),
    "cascade": cascade([32, 16, 8, 4]),
    "by-hand": parse("pre, down, pre 2, down, solve, up, post 2, down, solve, up, up, post", 3),
}


def picture(schedule: Schedule) -> str:
    """Return a cycle as SVG, the same bytes every time."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "mgnet"}):
        ax = plot_schedule(schedule)
        ax.figure.savefig(buffer, format="svg", metadata={"Date": None})  # type: ignore[union-attr]
    plt.close("all")
    return buffer.getvalue()


def blank() -> bytes:
    """Return an empty picture."""
    buffer = io.BytesIO()
    plt.figure(figsize=(1, 1)).savefig(buffer, format="png")
    plt.close("all")
    return buffer.getvalue()


@cache
def demo(name: str) -> tuple[str, dict[str, bytes]]:
    """Run a demo; return what it prints and its pictures."""
    if not DEMOS:
        pages = "".join(page.read_text() for page in sorted((ROOT / "docs").glob("*.md")))
        titles = re.findall(rf"\(pictures/{name}-(\w+)\.png\)", pages)
        return "(left out: these pages were built with DEMOS=0)", dict.fromkeys(titles, blank())
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, ROOT / "demos" / f"{name}.py", folder],
            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"demos/{name}.py failed:\n{done.stderr}")
        drawn = sorted(Path(folder).glob("*.png"), key=lambda file: file.stat().st_mtime_ns)
        pictures = {file.stem: file.read_bytes() for file in drawn}
        return done.stdout.replace(folder, f"out/{name}"), pictures


def on_config(config):
    """Give every page a link to edit it, if HOME_URL says where the repository is published.

    `repo_url` is not set, because the theme would then ask the host for the number of stars on
    every page.
    """
    home = os.environ.get("HOME_URL", "").rstrip("/")
    if home:
        edit = "-/edit" if "gitlab" in home else "edit"
        config.edit_uri_template = f"{home}/{edit}/main/docs/{{path}}"
    return config


def on_files(files: Files, *, config) -> Files:
    """Add the pictures to the site."""
    for name, schedule in CYCLES.items():
        files.append(File.generated(config, f"pictures/{name}.svg", content=picture(schedule)))
    for name, content in benchmark_pictures().items():
        files.append(File.generated(config, f"pictures/benchmark-{name}.svg", content=content))
    for script in sorted((ROOT / "demos").glob("*.py")):
        for name, content in demo(script.stem)[1].items():
            path = f"pictures/{script.stem}-{name}.png"
            files.append(File.generated(config, path, content=content))
    for script in sorted((ROOT / "demos" / "notebooks").glob("*.py")):
        content = jupytext.writes(jupytext.read(script), fmt="ipynb")
        files.append(File.generated(config, f"notebooks/{script.stem}.ipynb", content=content))
    return files


def demo_text(match: re.Match) -> str:
    """Return the text that replaces `{{ demo name }}` in a page."""
    name = match[1]
    text, pictures = demo(name)
    shown = [f"![{name}: {title}](pictures/{name}-{title}.png)" for title in pictures]
    return "\n\n".join([f"```text\n{text.rstrip()}\n```", *shown])


def on_page_markdown(markdown: str, *, page, config, files) -> str:
    """Insert the output of the demos and the table of `Reason`."""
    rows = "\n".join(
        f"| `{r.name}` | {'yes' if r.converged else 'no'} | {r.value} |" for r in Reason
    )
    table = f"| reason | converged | meaning |\n| --- | --- | --- |\n{rows}"
    markdown = re.sub(r"\{\{ demo (\w+) \}\}", demo_text, markdown)
    return markdown.replace("{{ reasons }}", table)


def on_page_content(html: str, *, page, config, files) -> str:
    """Draw formulas, set the texts to copy, and keep an option's dash with its name (pages.css)."""

    def kept(code: re.Match) -> str:
        return re.sub(r"(?<!\S)(-\w[\w.&;]*)", r'<span class="option">\1</span>', code[0])

    return with_copies(re.sub(r"(?<=<code>)-[^<]*", kept, with_formulas(html)))


@event_priority(-200)  # after the plugins, which write files too
def on_post_build(*, config) -> None:
    """Report broken links; these are errors, because the build is strict."""
    for sentence in wrong_links(Path(config.site_dir)):
        logging.getLogger("mkdocs.hooks.links").warning(sentence)
