"""Check that docstrings describe every parameter and name the errors that are raised.

    python tools/check_docstrings.py               # exit status 1 where a fault is found
    python tools/check_docstrings.py mgnet/knots mgnet/solver.py
    python tools/check_docstrings.py --all         # modules that are not in the reference, too

Modules in docs/api.md are read for the names in `__all__` and the public methods of classes. A row
of Parameters or Attributes needs a description that stands alone: it may not be empty or begin with
"Of". A function, method or constructor with a `raise` needs a section Raises.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SECTION = re.compile(r"^(\w[\w ]*)\n-{3,}$", re.MULTILINE)
Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
INTERNAL = {"NotImplementedError", "StopIteration", "AttributeError"}


def sections(docstring: str) -> dict[str, str]:
    """Name -> text of each NumPy section."""
    parts = SECTION.split(docstring)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def rows(section: str) -> Iterator[tuple[str, str]]:
    """Head and description of each row; the head is the line that is not indented."""
    for row in re.split(r"\n(?=\S)", section.strip("\n")):
        head, _, description = row.partition("\n")
        yield head, " ".join(description.split())


def public(tree: ast.Module) -> Iterator[tuple[str, Definition]]:
    """What `__all__` lists, with the public methods of classes."""
    listed: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            listed = set(ast.literal_eval(node.value))
    for node in tree.body:
        if isinstance(node, Definition) and node.name in listed:
            yield node.name, node
            if isinstance(node, ast.ClassDef):
                for inner in node.body:
                    if isinstance(inner, Definition) and not inner.name.startswith("_"):
                        yield f"{node.name}.{inner.name}", inner


def raised(node: Definition) -> set[str]:
    """Names of the errors that a function raises itself, or a class while it is constructed."""
    if isinstance(node, ast.ClassDef):
        makers = [n for n in node.body if isinstance(n, ast.FunctionDef)]
        makers = [n for n in makers if n.name in {"__init__", "__post_init__", "__new__"}]
        return set[str]().union(*(raised(maker) for maker in makers))
    found: set[str] = set()
    todo: list[ast.AST] = list(node.body)
    while todo:
        each = todo.pop()
        if isinstance(each, ast.FunctionDef | ast.Lambda | ast.ClassDef):
            continue
        if isinstance(each, ast.Raise) and isinstance(each.exc, ast.Call):
            found.add(ast.unparse(each.exc.func))
        todo += ast.iter_child_nodes(each)
    return {name for name in found if name[0].isupper()} - INTERNAL


def complaints(name: str, node: Definition) -> Iterator[tuple[int, str]]:
    docstring = ast.get_docstring(node)
    if docstring is None:  # an override: the base class documents it
        return
    found = sections(docstring)
    for title in ("Parameters", "Attributes"):
        for head, description in rows(found[title]) if title in found else ():
            parameter = head.partition(" : ")[0]
            if not description:
                yield node.lineno, f"{name}: {parameter} has no description"
            elif re.match(r"Of\b", description):
                yield node.lineno, f'{name}: {parameter} begins with "Of": name the thing'
    errors = raised(node)
    if errors and "Raises" not in found:
        yield node.lineno, f"{name}: no section Raises ({', '.join(sorted(errors))})"


def check(path: Path) -> list[str]:
    """A line for each fault in a file."""
    tree = ast.parse(path.read_text())
    shown = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path
    found = [each for name, node in public(tree) for each in complaints(name, node)]
    return [f"{shown}:{line}: {text}" for line, text in found]


def reference() -> set[Path]:
    """The files whose docstrings are on the page docs/api.md."""
    page = (ROOT / "docs" / "api.md").read_text()
    names = re.findall(r"^::: (\S+)$", page, re.MULTILINE)
    return {ROOT / (name.replace(".", "/") + ".py") for name in names}


def main(arguments: list[str]) -> int:
    found: list[str] = []
    names = [name for name in arguments if name != "--all"]
    for name in names or ["mgnet"]:
        path = ROOT / name
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            if "--all" in arguments or file in reference():
                found += check(file)
    print("\n".join([*found, f"{len(found)} docstrings to mend"]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
