"""Draw sentences at random from the pages and the docstrings, for somebody to read.

    python tools/sample_sentences.py --seed 1 --count 100
    python tools/sample_sentences.py --seed 1 --count 20 docs/fit.md mgnet/knots

The same seed draws the same sentences of the same tree. Each is printed with its file and line.
Sentences come from README.md, docs/*.md and the docstrings of mgnet; code, doctests, headings and
the numbers in tables are skipped. A table cell or a description of a parameter counts as a
sentence if it has four words or more.
"""

import argparse
import ast
import inspect
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

from check_english import blanked, markdown  # noqa: E402

READ = ["README.md", "docs", "mgnet"]
# Sections of a docstring whose lines without indentation are names and types.
LISTS = r"(?:Other )?Parameters|Attributes|Returns|Yields|Raises|Warns|See Also"
CODE = re.compile(r"(?<!`)(`{1,2})(?!`)[^`]+?\1(?!`)|(?<![\w$])\$[^$\n]+?\$(?!\w)")
# Full stops that do not end a sentence: initials, and the names of journals in citations.
SHORT = [r"\b[A-Z]", "e\\.g", "i\\.e", "et al", "cf", "vs", "Eq", "Thm", "Sec", "No", "vol", "pp"]
SHORT += ["Appl", "Math", "Comput", "Comp", "Phys", "Numer", "Anal", "Sci", "Soc", "Lin", "Alg"]
SHORT += ["Stat", "Trans", "Proc", "Res", "Mach", "Learn", "Opt", "Optim", "Methods Eng"]
NOT_AFTER = "".join(rf"(?<!{short}\.)" for short in SHORT)
END = re.compile(rf"(?<=[.!?]){NOT_AFTER}[)\"*]*\s+(?=[\"'(*\[]*[A-Z0-9\ue000])")
NUMBERS = re.compile(r"(?<=\|)[ *~<>=+-]*\d[^|\n]*(?=\|)")  # table cells that begin with a number
Sentence = tuple[str, int, str]


def sentences(text: str, shown: str, line: int = 1) -> Iterator[Sentence]:
    """File, line and words of each sentence of a Markdown text that starts on `line`."""
    codes: list[str] = []

    def mask(match: re.Match) -> str:
        codes.append(" ".join(match[0].split()))
        return f"\ue000{len(codes) - 1}\ue001" + blanked(match)

    text = re.sub(r"^::: .*$", "", NUMBERS.sub(" ", text), flags=re.MULTILINE)
    for prose in markdown(CODE.sub(mask, text)):
        begin = 0
        for end in [*(match.end() for match in END.finditer(prose.text)), len(prose.text)]:
            part = prose.text[begin:end]
            blank = len(part) - len(part.lstrip())
            place = prose.line + prose.text[: begin + blank].count("\n")
            begin = end
            words = re.sub(r"^(?:[-*]|\d+\.|!!!|\?\?\?)\s", "", " ".join(part.split()))
            if len(re.findall(r"[^\W\d_]+", words)) >= 4:
                said = re.sub("\ue000(\\d+)\ue001", lambda m: codes[int(m[1])], words)
                yield shown, line - 1 + place, said


def prose_of(docstring: str) -> str:
    """A docstring without the titles of its sections and the names and types of its rows."""
    parts = re.split(r"^(\w[\w ]*\n-{3,})$", docstring, flags=re.MULTILINE)
    kept = [parts[0]]
    for title, body in zip(parts[1::2], parts[2::2], strict=True):
        listed = re.match(rf"(?:{LISTS})\n", title)
        # An indented block after a blank line would count as code: a row's text is not indented.
        rows = re.sub(r"^\S.*$", "", body, flags=re.MULTILINE) if listed else body
        kept += ["\n", re.sub(r"^ {4}", "", rows, flags=re.MULTILINE) if listed else rows]
    return "".join(kept)


def docstrings(text: str, shown: str) -> Iterator[Sentence]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node, clean=False)
            if docstring:
                yield from sentences(
                    prose_of(inspect.cleandoc(docstring)) + "\n", shown, node.body[0].lineno
                )


def every(names: list[str]) -> list[Sentence]:
    """All sentences of files and folders, in the order of their places."""
    found: list[Sentence] = []
    for name in names:
        path = ROOT / name
        pages = sorted(path.glob("*.md")) + sorted(path.rglob("*.py")) if path.is_dir() else [path]
        for file in pages:
            shown = file.relative_to(ROOT).as_posix() if file.is_relative_to(ROOT) else str(file)
            read = docstrings if file.suffix == ".py" else sentences
            found += read(file.read_text(), shown)
    return found


def draw(found: list[Sentence], seed: int, count: int) -> list[Sentence]:
    """Sentences without repetition, each equally likely, in the order of their places."""
    return sorted(random.Random(seed).sample(found, min(count, len(found))))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Draw sentences at random.")
    parser.add_argument("names", nargs="*", help="files and folders; default: " + ", ".join(READ))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=100)
    given = parser.parse_args(arguments)
    found = every(given.names or READ)
    for file, line, words in draw(found, given.seed, given.count):
        print(f"{file}:{line}: {words}")
    print(f"{min(given.count, len(found))} of {len(found)} sentences, seed {given.seed}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
