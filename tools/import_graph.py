"""The import graph of the library: rooms, arrows between them, arrows back up, and circles.

A room is a folder of `mgnet`, or a file that stands in no folder; with `--room depth` the folders
and files inside `mgnet/depth`. An arrow leads from a room to one that it imports, wherever the
import stands and whether it is for types only. Rooms are laid on as many floors as the longest way
down needs, circles cut at the import that comes last; an arrow that then leads up is "back up". A
circle is a set of files that import one another.

    python tools/import_graph.py                      # the whole house
    python tools/import_graph.py --room depth
    python tools/import_graph.py --tree ../other-checkout
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterable
from pathlib import Path

Graph = dict[str, set[str]]


def sources(root: Path) -> dict[str, ast.Module]:
    """The library files by dotted name; a package has the name of its folder."""
    found = {}
    for file in sorted((root / "mgnet").rglob("*.py")):
        dotted = ".".join(file.relative_to(root).with_suffix("").parts)
        found[dotted.removesuffix(".__init__")] = ast.parse(file.read_text())
    return found


def is_package(root: Path, dotted: str) -> bool:
    return (root.joinpath(*dotted.split(".")) / "__init__.py").is_file()


def imports(root: Path) -> Graph:
    """Which files each file imports; a name that a package hands on counts for its own file."""
    trees = sources(root)
    raw = {name: list(names(name, is_package(root, name), tree)) for name, tree in trees.items()}

    def owner(dotted: str, seen: frozenset[str] = frozenset()) -> str | None:
        if dotted in trees:
            return dotted
        module, _, name = dotted.rpartition(".")
        if module not in trees or dotted in seen:
            return None
        for other in raw[module]:  # `module` may only hand the name on
            if other.rpartition(".")[2] == name:
                return owner(other, seen | {dotted}) or module
        return module

    graph: Graph = {}
    for name, wanted in raw.items():
        if not is_package(root, name):
            owners = {owner(dotted) for dotted in wanted} - {None, name}
            graph[name] = {o for o in owners if o and not is_package(root, o)}
    return graph


def names(module: str, package: bool, tree: ast.Module) -> Iterable[str]:
    """The dotted names of mgnet that a file imports."""
    here = module.split(".") if package else module.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("mgnet"))
        elif isinstance(node, ast.ImportFrom):
            start = here[: len(here) - node.level + 1] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            if base.split(".")[0] == "mgnet":
                yield from (f"{base}.{alias.name}" for alias in node.names)


def in_rooms(graph: Graph, prefix: str = "mgnet") -> Graph:
    """Arrows between the folders and files that stand directly under `prefix`."""
    depth = len(prefix.split("."))

    def room(name: str) -> str | None:
        parts = name.split(".")
        inside = name.startswith(prefix + ".")
        return ".".join(parts[: depth + 1]) if inside else None

    rooms: Graph = {r: set() for r in map(room, graph) if r}
    for name, wanted in graph.items():
        here = room(name)
        if here:
            rooms[here] |= {r for r in map(room, wanted) if r and r != here}
    return rooms


def circles(graph: Graph) -> list[list[str]]:
    """The strongly connected components of more than one node (Tarjan), sorted."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        order[node] = low[node] = len(order)
        stack.append(node)
        for following in sorted(graph.get(node, ())):
            if following not in order:
                visit(following)
                low[node] = min(low[node], low[following])
            elif following in stack:
                low[node] = min(low[node], order[following])
        if low[node] == order[node]:
            at = stack.index(node)
            component = sorted(stack[at:])
            del stack[at:]
            if len(component) > 1:
                found.append(component)

    for node in sorted(graph):
        if node not in order:
            visit(node)
    return sorted(found)


def floors(graph: Graph) -> tuple[dict[str, int], set[tuple[str, str]]]:
    """The floor of each room, 0 at the bottom, and the arrows that lead back up."""
    floor: dict[str, int] = {}
    back: set[tuple[str, str]] = set()

    def visit(node: str, above: tuple[str, ...]) -> int:
        if node in floor:
            return floor[node]
        below = []
        for following in sorted(graph[node]):
            if following in (*above, node):
                back.add((node, following))
            else:
                below.append(visit(following, (*above, node)))
        floor[node] = 1 + max(below, default=-1)
        return floor[node]

    for node in sorted(graph, key=lambda node: (-len(graph[node]), node)):
        visit(node, ())
    return floor, back


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tree", type=Path, default=Path(__file__).parents[1])
    parser.add_argument("--room", default="", help="look inside one folder, for example `depth`")
    given = parser.parse_args()
    files = imports(given.tree)
    prefix = "mgnet" + (f".{given.room}" if given.room else "")
    rooms = in_rooms(files, prefix)
    floor, back = floors(rooms)
    inside = {name: wanted for name, wanted in files.items() if name.startswith(prefix + ".")}
    print(
        f"{len(rooms)} rooms on {1 + max(floor.values(), default=-1)} floors, "
        f"{sum(map(len, rooms.values()))} arrows, {len(back)} back up, "
        f"{len(circles(inside))} circles of files"
    )
    for node in sorted(rooms, key=lambda node: (floor[node], node)):
        short = [target.removeprefix(prefix + ".") for target in sorted(rooms[node])]
        print(f"  {floor[node]:>2}  {node.removeprefix(prefix + '.')}: {', '.join(short)}")
    for one in circles(inside):
        print("  circle:", ", ".join(one))


if __name__ == "__main__":
    main()
