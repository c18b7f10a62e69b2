"""Check the English of pages, docstrings, comments and messages against a word list.

    python tools/check_english.py            # everything; exit status 1 where something is found
    python tools/check_english.py docs mgnet/solver.py

Only prose is checked: code blocks, inline code, doctests and links are removed first. A phrase that
is found is printed with its place, a suggestion and the reason. The word list of CONTRIBUTING.md
shows one example per entry (a test compares the two).
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHECKED = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "docs", "benchmarks", "findings"]
CHECKED += ["mgnet", "demos", "tools", "conftest.py"]
# Generated pages (docs/benchmarks.md from benchmarks/, which is checked), and files that quote.
SKIPPED = {"docs/benchmarks.md", "docs/co2/report.md"}
SKIPPED |= {"tools/check_english.py", "tools/mutations.py"}


@dataclass(frozen=True)
class Entry:
    """A phrase to avoid.

    Attributes
    ----------
    avoid: An example, as it stands in CONTRIBUTING.md.
    write: What to write in its place.
    pattern: A regular expression for the phrase; `X` in the prose is a piece of inline code.
    title: Whether the phrase is allowed as the first words of a docstring, comment or message.
    """

    avoid: str
    write: str
    pattern: str
    title: bool = False


START = r"(?:^|(?<=[.;:!?] )|(?<=[-*|>] ))"
VARIABLE = (
    r"parameters?|inputs?|weights?|time|times|knots?|states?|values|coefficients|points|layers?"
)
THING = (
    r"function|method|solver|network|class|object|number|figure|value|level|hierarchy|smoother|"
    r"script|result|reason|bound|estimate|residual|loss|cycle|layer|cell|rank|library|matrix|operator|"
    r"schedule|optimizer|objective|argument|option|flag|picture|plot|curve|grid|X|mgnet|it|who|that|which"
)
ENTRIES = [
    Entry(
        "the derivative by the inputs",
        "the derivative with respect to the inputs",
        r"\b(?:derivatives?|gradients?|differentiat\w+|Jacobians?|Hessians?|slopes?)"
        r"(?: of (?:\w+ )?\w+)? by (?:all |both |the |its |their |our |each |X and )*"
        rf"(?:{VARIABLE}|[xytu]|X)\b",
    ),
    Entry(
        "this is no error",
        "this is not an error",
        r"(?<![Tt]here )\b(?:is|are|was|were|be) no (?!(?:longer|more|less|fewer|better|worse|"
        r"different|larger|smaller|greater|higher|lower|faster|slower|further|use)\b)",
    ),
    Entry("the page is made of results", "is built from, consists of", r"\bmade of\b"),
    Entry("runs it in small", "runs a reduced version", r"\bin small(?=[,.;:)]| and\b| \(|$)"),
    Entry("reads it anew", "again", r"(?<!, )\b[Aa]new\b(?!\")"),
    Entry("estimators as they come", "with default settings", r"\bas (?:they|it) comes?\b"),
    Entry(
        "the solver tells why",
        "prints, shows, gives, reports (only people and texts say and tell)",
        rf"\b(?:{THING}) (?:says?|tells?|told|knows?|knew)\b",
    ),
    Entry("a warning that says so", "that states this", r"\bsay(?:s|ing)? so\b"),
    Entry(
        "it must be told how many",
        "it needs the number",
        r"\b(?:is|are|was|were|be|been|being) told\b",
    ),
    Entry(
        "What needs sums sees one rank.",
        "Operations that need sums see one rank. (A name for the thing as the subject)",
        rf"{START}What (?!(?:is|are|do|does|if|happens)\b)[^.?!:|]*[.](?!\S)",
        title=True,
    ),
    Entry(
        "give a function, as `print`",
        "such as `print`",
        r", as (?:X|\"[^\"]*\"|'[^']*')(?= *(?:[.,;:)]|and\b|or\b|$))",
    ),
    Entry("ours is faster", "mgnet is faster", r"\b[Oo]urs\b"),
    Entry("the best rival", "the best other method, baseline", r"\b[Rr]ivals?\b"),
    Entry(
        "Of the fine level.",
        "Operator of the fine level.",
        r"(?:^|(?<=: ))Of (?!course\b)[^,.]*(?=\.|;|:|$)",
    ),
    Entry("more exact, less exact", "more accurate", r"\b(?:more|less|most|least) exact\b"),
    Entry(
        "the least and the largest",
        "smallest and largest",
        r"\b[Ll]east and (?:the )?(?:largest|most)\b",
    ),
    Entry("they run in turns", "alternately", r"\bin turns\b"),
    Entry("a kink wants knots", "needs", r"\bwants (?!to\b)"),
    Entry("seconds of the processor", "processor seconds", r"\bseconds of the processor\b"),
    Entry("it needs not converge", "need not", r"\bneeds not\b"),
    Entry(
        "behaviour, colour, licence",
        "American spelling: behavior, color, license",
        r"\b(?:\w*(?:behaviour|colour|neighbour|favour|honour|licence|modelling|labelled|cancelled|"
        r"factoris|normalis|initialis|parallelis|minimis|maximis|generalis|regularis|discretis|"
        r"linearis|optimis(?!t)|standardis|summaris|recognis|organis|vectoris|penalis|analyse)\w*|centre[ds]?|grey|whilst)\b",
    ),
]


@dataclass(frozen=True)
class Prose:
    """A passage of text that starts on a line of a file, its own line breaks kept."""

    line: int
    text: str


def blanked(match: re.Match) -> str:
    """Nothing but the line breaks of a match."""
    return "\n" * match[0].count("\n")


def without_code(text: str) -> str:
    """Markdown or a docstring with `X` for inline code, and without blocks, doctests and links."""
    text = re.sub(r"<!--.*?-->", blanked, text, flags=re.DOTALL)
    text = re.sub(r"^( *)(```|~~~).*?^\1\2 *$", blanked, text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"^ *>>> .*?(?=\n\s*\n|\Z)", blanked, text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"\{\{.*?\}\}", "X", text)  # figures of benchmarks/notes
    text = re.sub(r"(\$\$?)[^$]+?\1", lambda m: "X" + blanked(m), text)
    text = re.sub(r"(``?)[^`]+?\1", lambda m: "X" + blanked(m), text)
    text = re.sub(r"\]\([^)]*\)", lambda m: "]" + blanked(m), text)
    return re.sub(r"https?://\S+", "X", text)


def passages(text: str, line: int) -> Iterator[Prose]:
    """Paragraphs, list items, table cells and headings of a text that starts on `line`."""
    lines = without_code(text).split("\n")
    begin = 0
    for i in range(len(lines) + 1):
        here = lines[i] if i < len(lines) else ""
        new = not here.strip() or re.match(r" *(?:[-*] |\d+\. |\||#|:::|\?\?\?|!!!|-{3,})", here)
        if new or (_header(here) and _header(lines[begin])):
            yield from _cells("\n".join(lines[begin:i]), line + begin)
            begin = i


def _header(line: str) -> bool:
    """Whether a line starts the description of parameters ("name: text", "name, name: text").

    In running text such a line may continue a sentence: only rows that follow rows are separate.
    """
    return re.match(r" *[*\w]+(?:, [*\w]+)*: \S", line) is not None


def _cells(text: str, line: int) -> Iterator[Prose]:
    if text.lstrip().startswith("|"):
        for cell in text.split("|"):
            yield Prose(line, cell.strip())
    elif text.strip() and not text.lstrip().startswith("#"):
        yield Prose(line, text)


def markdown(text: str) -> Iterator[Prose]:
    text = re.sub(r"^\| avoid \| write \|\n(\|.*\n)+", blanked, text, flags=re.MULTILINE)
    text = re.sub(r"(?<=\n\n)(?: {4,}\S.*\n|\n(?= {4,}\S))+", _block, text)
    yield from passages(text, 1)


def _block(match: re.Match) -> str:
    """An indented block after a blank line is code, unless it is in a note or a list."""
    before = match.string[: match.start()].rstrip("\n").rsplit("\n\n", 1)[-1]
    inside = re.match(r" *(?:[-*] |\d+\. |\?\?\?|!!!|=== |    )", before)
    return match[0] if inside else blanked(match)


def python(text: str) -> Iterator[Prose]:
    """Docstrings, comments, and strings of four words or more."""
    tree = ast.parse(text)
    inside: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            inside |= set(node.values)
            yield from _message(node.lineno, _joined(node))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in inside:
            if node.value.count("\n") > 1:
                yield from markdown_at(node.value, node.lineno)
            else:
                yield from _message(node.lineno, node.value)
    yield from _comments(text)


def markdown_at(text: str, line: int) -> Iterator[Prose]:
    for found in markdown(text):
        yield Prose(found.line + line - 1, found.text)


def _joined(node: ast.JoinedStr) -> str:
    parts = [p.value if isinstance(p, ast.Constant) else "`X`" for p in node.values]
    return "".join(str(part) for part in parts)


def _message(line: int, text: str) -> Iterator[Prose]:
    if len(re.findall(r"\b[A-Za-z]{2,}\b", text)) >= 4 and " " in text:
        yield from passages(text, line)


def _comments(text: str) -> Iterator[Prose]:
    """Comments; those on lines of their own that follow each other are one."""
    block: list[str] = []
    first = last = 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.COMMENT or token.string.startswith(
            ("# noqa", "# type", "# pyright")
        ):
            continue
        if token.start[0] != last + 1 or token.line[: token.start[1]].strip():
            yield from passages("\n".join(block), first)
            block, first = [], token.start[0]
        last = token.start[0]
        block.append(token.string.lstrip("# "))
    yield from passages("\n".join(block), first)


def found_in(prose: Prose, source: bool) -> Iterator[tuple[int, str, Entry]]:
    """Line, phrase and entry of each phrase to avoid; `source`: the prose is in a Python file."""
    flat = re.sub(r"\s", " ", prose.text)
    squeezed, place = [], []  # runs of blanks count as one
    for i, letter in enumerate(flat):
        if letter != " " or (squeezed and squeezed[-1] != " "):
            squeezed.append(letter)
            place.append(i)
    text = "".join(squeezed).rstrip()
    text = re.sub(r"^((?:[-*]|\d+\.|\?\?\?|!!!) )", lambda m: "." * (len(m[0]) - 1) + " ", text)
    for entry in ENTRIES:
        for match in re.finditer(entry.pattern, text):
            if source and entry.title and match.start() == 0:
                continue
            line = prose.line + prose.text[: place[match.start()]].count("\n")
            yield line, match[0], entry


def files(names: list[str]) -> list[Path]:
    found: list[Path] = []
    for name in names:
        path = ROOT / name
        inside = [p for p in sorted(path.rglob("*")) if p.suffix in {".md", ".py"}]
        found += inside if path.is_dir() else [path]
    return [p for p in found if p.relative_to(ROOT).as_posix() not in SKIPPED]


def check(path: Path) -> list[str]:
    """A line for each phrase of a file that should be avoided."""
    text, source = path.read_text(), path.suffix == ".py"
    prose = python(text) if source else markdown(text)
    found = [each for one in prose for each in found_in(one, source)]
    rows = sorted({(line, said, entry.write) for line, said, entry in found})
    shown = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path
    return [f"{shown}:{line}: {said!r}: write {write!r}" for line, said, write in rows]


def main(names: list[str]) -> int:
    rows = [row for path in files(names or CHECKED) for row in check(path)]
    print("\n".join([*rows, f"{len(rows)} phrases to rewrite (list in CONTRIBUTING.md)"]))
    return 1 if rows else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
