"""Law: the house rules of CONTRIBUTING.md hold in every file of the library.

Each rule is a function from a parsed file to the sentences that say what is wrong with it. The
second half of this file shows every rule a bad snippet and expects it to object.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = ROOT / "mgnet"

# Folder -> what it may import besides the standard library and itself. "core": files of mgnet/.
CORE = {"core", "numpy", "scipy"}
NETS = CORE | {"torch", "training"}
BORDERS = {
    "core": CORE,
    "training": NETS,
    "knots": NETS,
    "depth": NETS,
    "options": CORE | {"depth"},
    "checkpoint": NETS | {"knots"},
    "plot": NETS | {"knots", "matplotlib"},
    "petsc": NETS | {"knots", "depth", "options", "checkpoint", "petsc4py", "mpi4py"},
    "estimators": NETS | {"knots", "sklearn", "threadpoolctl"},  # scikit-learn needs it, too
}  # app may import everything
# Room inside a folder -> the rooms of that folder that it may import, besides itself. A file that
# stands in the folder itself may import every room; a room imports such a file only as told here.
ROOMS = {
    "app/files": set(),
    "depth/batched": set(),
    "depth/compiled": {"batched"},
    "depth/mgrit": set(),
    "depth/network": {"batched"},
    "depth/parallel": {"batched", "compiled", "mgrit", "network"},
    "depth/recurrent": {"batched", "compiled", "mgrit", "parallel"},
    "depth/time_grids": {"mgrit"},
    "depth/ode": {"batched", "mgrit", "network", "parallel", "time_grids"},
    "training/loss": set(),
    "training/least_squares": {"loss"},
    "training/equations": {"loss", "least_squares"},
    "training/optimizers": {"loss", "record"},
    "app/columns": {"files"},
}
# The classes of mgnet that others may be derived from: abstract ones and protocols, two kinds
# of problems, a block whose tangent is a block, too, and the adjoint, which the loops may do. All
# else is final.
DERIVED_FROM = {"Transfer", "Smoother", "Tape", "Jacobian", "DataFile", "KANEstimator"}
DERIVED_FROM |= {"StepRule", "Explained", "Adjoint", "AtOnce"}
DERIVED_FROM |= {"Objective", "LeastSquares", "StackedBlock", "OptionsInState"}
# Files that import one another, for types only in one direction.
CIRCLES = [
    ["mgnet.consistency", "mgnet.hierarchy"],
    ["mgnet.diagnosis", "mgnet.solution"],
    ["mgnet.level", "mgnet.smoother"],
]
# Compilers are optional: only these files may import them, and those in knots/ are imported on
# first use.
COMPILERS = {"numba", "llvmlite", "triton"}
COMPILED = {"mgnet/kernels.py"}
COMPILED |= {f"mgnet/knots/{name}.py" for name in ("local_kernels", "spline_loops", "team")}
COMPILED |= {"mgnet/knots/triton_kernels.py"}
COMPILED |= {
    f"mgnet/depth/compiled/{name}.py" for name in ("functions", "loops", "products", "run_loops")
} | {"mgnet/simd.py"}
# The files of the core that import PyAMG and torch, on first use.
BORROWED = {"mgnet/algebraic.py": "pyamg", "mgnet/tensor_levels.py": "torch"}
LAZY = {"mgnet.knots.kernels", "mgnet.knots.local_kernels", "mgnet.simd"}
LAZY |= {f"mgnet.knots.{name}" for name in ("spline_loops", "team", "triton_kernels")}
LAZY |= {f"mgnet.depth.compiled.{name}" for name in ("functions", "loops", "products", "run_loops")}
BAD_NAMES = {"utils", "util", "helpers", "helper", "manager", "factory", "base", "common"}
BAD_NAMES |= {"handler"}
# `python -m mgnet` is the command line; Python wants the file among those of the core.
ENTRY = "mgnet/__main__.py", "mgnet.app.cli.command"
LONGEST_FILE, LONGEST_FUNCTION = 400, 60
# "mgnet/file.py" or "mgnet/file.py:function" -> why it stays longer
LONGER = {
    "mgnet/depth/network/ode_net.py": "one class; its parts have their own files",
}

Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = Function | ast.ClassDef


class Source(NamedTuple):
    """A library file: its path relative to the repository root, and its tree."""

    path: str
    tree: ast.Module

    @property
    def folder(self) -> str:
        parts = self.path.split("/")
        return parts[1] if len(parts) > 2 else "core"


def parse(path: str, text: str) -> Source:
    return Source(path, ast.parse(text))


SOURCES = [
    parse(file.relative_to(ROOT).as_posix(), file.read_text())
    for file in sorted(LIBRARY.rglob("*.py"))
]


# Rules on one file


def imported(source: Source) -> Iterator[tuple[str, ast.stmt]]:
    """Yield the absolute dotted name of everything a file imports, wherever the import stands."""
    package = source.path.removesuffix(".py").split("/")[:-1]
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*start, *([node.module] if node.module else [])])
            for alias in node.names:
                yield f"{name}.{alias.name}", node


def neighbour(dotted: str) -> str:
    """Map an imported name to an entry of BORDERS: a folder of mgnet, "core", or a package."""
    parts = dotted.split(".")
    if parts[0] != "mgnet":
        return parts[0]
    return parts[1] if len(parts) > 1 and parts[1] in {*BORDERS, "app"} else "core"


def unguarded(tree: ast.Module) -> set[int]:
    """Return the ids of the statements that always run when the module is imported."""
    return {id(node) for node in tree.body}


def crosses_borders(source: Source) -> Iterator[str]:
    allowed = BORDERS.get(source.folder)
    if allowed is None:
        return
    for name, node in imported(source):
        there = neighbour(name)
        if there in sys.stdlib_module_names or there in allowed | {source.folder}:
            continue
        if (source.path, name) == ENTRY:
            continue
        if there == BORROWED.get(source.path) and id(node) not in unguarded(source.tree):
            continue
        lazy = source.path.removesuffix(".py").replace("/", ".") in LAZY
        if there in COMPILERS and source.path in COMPILED:
            if lazy or id(node) not in unguarded(source.tree):
                continue
        yield f"{source.path}:{node.lineno} imports {name}; {source.folder} must not"


def leaves_its_room(source: Source) -> Iterator[str]:
    folder, _, rest = source.path.removeprefix("mgnet/").partition("/")
    room = rest.partition("/")[0]
    allowed = ROOMS.get(f"{folder}/{room}")
    if allowed is None:
        return
    for name, node in imported(source):
        parts = name.split(".")
        if parts[:2] == ["mgnet", folder] and parts[2] not in allowed | {room}:
            yield f"{source.path}:{node.lineno} imports {name}; {folder}/{room} must not"


def derives_from_a_final_class(source: Source) -> Iterator[str]:
    ours = {node.name for node in ast.walk(source.tree) if isinstance(node, ast.ClassDef)}
    ours |= {name.rpartition(".")[2] for name, _ in imported(source) if name.startswith("mgnet.")}
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ClassDef):
            for base in {ast.unparse(base) for base in node.bases} & ours - DERIVED_FROM:
                yield f"{source.path}:{node.lineno} derives {node.name} from {base}, a final class"


def loads_compilers(source: Source) -> Iterator[str]:
    module = source.path.removesuffix(".py").replace("/", ".")
    for name, node in imported(source):
        lazy = {name, name.rpartition(".")[0]} & LAZY
        if lazy and module not in LAZY and id(node) in unguarded(source.tree):
            yield f"{source.path}:{node.lineno} imports {name} at once; do so on first use"


def raises_bare(source: Source) -> Iterator[str]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Raise):
            raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            if isinstance(raised, ast.Name) and raised.id in ("Exception", "BaseException"):
                yield f"{source.path}:{node.lineno} raises {raised.id}; name the kind of error"


def prints_or_asserts(source: Source) -> Iterator[str]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Assert):
            yield f"{source.path}:{node.lineno} asserts; raise an error with a sentence"
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "print":
            yield f"{source.path}:{node.lineno} prints; use a monitor or a logger"


def passes_kwargs(source: Source) -> Iterator[str]:
    for node in ast.walk(source.tree):
        # Side inputs have the names that the block of a user gives them.
        if (
            isinstance(node, Function | ast.Lambda)
            and node.args.kwarg
            and not (node.args.kwarg.arg == "side" and source.path.startswith("mgnet/depth/"))
        ):
            yield f"{source.path}:{node.lineno} takes **{node.args.kwarg.arg}; name the arguments"


def has_bad_name(source: Source) -> Iterator[str]:
    bad = BAD_NAMES & set(source.path.removesuffix(".py").replace("/", "_").split("_"))
    if bad:
        yield f"{source.path}: a file called {', '.join(bad)} says nothing about its content"


def is_too_long(source: Source) -> Iterator[str]:
    lines = max((node.end_lineno or 0 for node in source.tree.body), default=0)
    if lines > LONGEST_FILE and source.path not in LONGER:
        yield f"{source.path} has {lines} lines; cut it, or give the reason in LONGER"
    for node in ast.walk(source.tree):
        if isinstance(node, Function):
            first = node.body[1] if ast.get_docstring(node) and node.body[1:] else node.body[0]
            length = (node.end_lineno or 0) - first.lineno + 1
            if length > LONGEST_FUNCTION and f"{source.path}:{node.name}" not in LONGER:
                yield f"{source.path}:{node.lineno} {node.name} has {length} lines; cut it"


def hides_methods(source: Source) -> Iterator[str]:
    """Complain about a method without a docstring that cannot override one that has one."""
    for cls in ast.walk(source.tree):
        if isinstance(cls, ast.ClassDef) and not cls.name.startswith("_") and not cls.bases:
            for node in cls.body:
                if isinstance(node, Function) and not node.name.startswith("_"):
                    if not ast.get_docstring(node):
                        yield f"{source.path}:{node.lineno} {cls.name}.{node.name}: no docstring"


RULES = [
    crosses_borders,
    leaves_its_room,
    derives_from_a_final_class,
    loads_compilers,
    raises_bare,
    prints_or_asserts,
    passes_kwargs,
    has_bad_name,
    is_too_long,
    hides_methods,
]


# Rules on what an __init__ exports


def public_names(init: Source) -> list[str] | None:
    """Return `__all__` of an `__init__`; None where there is none."""
    for node in init.tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return None


def exported(init: Source, sources: list[Source]) -> Iterator[tuple[str, Definition]]:
    """Yield the classes and functions that an `__init__` exports, found where they are defined."""
    modules = {s.path.removesuffix(".py").replace("/", "."): s for s in sources}
    names = public_names(init) or []
    for dotted, _ in imported(init):
        module, _, name = dotted.rpartition(".")
        if name in names and module in modules:
            for node in modules[module].tree.body:
                if isinstance(node, Definition) and node.name == name:
                    yield modules[module].path, node


def lacks_all(init: Source) -> Iterator[str]:
    if public_names(init) is None and any(n.startswith("mgnet.") for n, _ in imported(init)):
        yield f"{init.path} imports from mgnet but has no __all__"


def takes_arguments(node: Definition) -> bool:
    """Whether a function, a constructor or a dataclass has parameters to describe."""
    if isinstance(node, Function):
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        return bool(node.args.vararg or [a for a in arguments if a.arg not in ("self", "cls")])
    if any("dataclass" in ast.unparse(d) for d in node.decorator_list):
        return any(isinstance(child, ast.AnnAssign) for child in node.body)
    inits = [n for n in node.body if isinstance(n, Function) and n.name == "__init__"]
    return any(takes_arguments(n) for n in inits)


def has_section(text: str, *titles: str) -> bool:
    lines = [line.strip() for line in text.splitlines()]
    return any(a in titles and b == "-" * len(a) for a, b in zip(lines, lines[1:], strict=False))


def is_badly_documented(path: str, node: Definition) -> Iterator[str]:
    text = ast.get_docstring(node) or ""
    place = f"{path}:{node.lineno} {node.name}"
    if not has_section(text, "Examples") or ">>>" not in text:
        yield f"{place}: the docstring has no section Examples with a running example (>>>)"
    if takes_arguments(node) and not has_section(text, "Parameters", "Attributes"):
        yield f"{place}: the docstring has no section Parameters"


# The library keeps the rules


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_library_keeps_the_rule(rule):
    wrong = [sentence for source in SOURCES for sentence in rule(source)]
    assert not wrong


def graph_tool() -> ModuleType:
    spec = spec_from_file_location("import_graph", ROOT / "tools" / "import_graph.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_files_import_one_another_in_three_pairs_only():
    tool = graph_tool()
    assert tool.circles(tool.imports(ROOT)) == CIRCLES


def test_circles_are_seen(tmp_path):
    files = {
        "__init__": "from mgnet.a import f",
        "a": "def f():\n    from mgnet.b import g",
        "b": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from mgnet import f",
        "c": "from mgnet.a import f",
    }
    (tmp_path / "mgnet").mkdir()
    for name, text in files.items():
        (tmp_path / "mgnet" / f"{name}.py").write_text(text)
    tool = graph_tool()
    assert tool.circles(tool.imports(tmp_path)) == [["mgnet.a", "mgnet.b"]]
    assert tool.in_rooms(tool.imports(tmp_path))["mgnet.c"] == {"mgnet.a"}


@pytest.mark.parametrize("module", ["mgnet", "mgnet.app.cli", "mgnet.app.table", "mgnet.plot"])
def test_what_loads_without_torch(module):
    heavy = "{'torch', 'sklearn', 'petsc4py'}"
    code = f"import sys, {module}; sys.exit(bool({heavy} & {{*sys.modules}}))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def untested(sources: list[Source], root: Path) -> list[str]:
    modules = [Path(s.path) for s in sources if not s.path.endswith("/__init__.py")]
    mirrors = [Path("tests", *m.parts[1:-1], f"test_{m.name}") for m in modules]
    return [str(mirror) for mirror in mirrors if not (root / mirror).is_file()]


def test_every_module_has_its_test_file():
    missing = untested(SOURCES, ROOT)
    assert not missing


def test_every_export_is_documented_and_has_an_example():
    inits = [source for source in SOURCES if source.path.endswith("/__init__.py")]
    wrong = [sentence for init in inits for sentence in lacks_all(init)]
    found = [export for init in inits for export in exported(init, SOURCES)]
    wrong += [sentence for export in found for sentence in is_badly_documented(*export)]
    assert not wrong


# Every rule objects to a bad snippet

LONG_FUNCTION = "def f():\n" + "    x = 1\n" * 61
BAD = [
    (crosses_borders, "mgnet/solver.py", "import torch"),
    (crosses_borders, "mgnet/solver.py", "def f():\n    from torch import nn"),
    (crosses_borders, "mgnet/solver.py", "from .training import Objective"),
    (crosses_borders, "mgnet/solver.py", "from mgnet import knots"),
    (crosses_borders, "mgnet/kernels.py", "import numba"),
    (crosses_borders, "mgnet/solver.py", "if fast:\n    import numba"),
    (crosses_borders, "mgnet/knots/kan.py", "import llvmlite"),
    (crosses_borders, "mgnet/knots/layer.py", "import triton.language as tl"),
    (loads_compilers, "mgnet/knots/layer.py", "from mgnet.knots import kernels"),
    (loads_compilers, "mgnet/knots/layer.py", "from mgnet.knots import triton_kernels"),
    (leaves_its_room, "mgnet/depth/batched/block.py", "from mgnet.depth.network.dropout import x"),
    (leaves_its_room, "mgnet/depth/mgrit/plan.py", "def f():\n    from ..parallel import control"),
    (
        leaves_its_room,
        "mgnet/training/loss/objective.py",
        "from mgnet.training import LeastSquares",
    ),
    (derives_from_a_final_class, "mgnet/solver.py", "class A: ...\nclass B(A): ..."),
    (
        derives_from_a_final_class,
        "mgnet/a.py",
        "from mgnet.level import Level\nclass B(Level): ...",
    ),
    (crosses_borders, "mgnet/knots/kan.py", "from petsc4py import PETSc"),
    (crosses_borders, "mgnet/knots/kan.py", "from ..depth import ODENet"),
    (crosses_borders, "mgnet/depth/net.py", "import matplotlib.pyplot"),
    (crosses_borders, "mgnet/petsc/snes.py", "from mgnet.app import plots"),
    (crosses_borders, "mgnet/__main__.py", "from mgnet.app import plots"),
    (crosses_borders, "mgnet/solver.py", "from mgnet.app.cli import main"),
    (raises_bare, "mgnet/solver.py", "raise Exception('no')"),
    (raises_bare, "mgnet/solver.py", "raise BaseException"),
    (prints_or_asserts, "mgnet/solver.py", "print(1)"),
    (prints_or_asserts, "mgnet/plot/plots.py", "def f(x):\n    assert x"),
    (passes_kwargs, "mgnet/solver.py", "def f(x, **options): g(**options)"),
    (passes_kwargs, "mgnet/solver.py", "f = lambda **k: g(**k)"),
    (has_bad_name, "mgnet/utils.py", ""),
    (has_bad_name, "mgnet/knots/spline_helpers.py", ""),
    (is_too_long, "mgnet/solver.py", "x = 1\n" * 401),
    (is_too_long, "mgnet/solver.py", LONG_FUNCTION),
    (hides_methods, "mgnet/solver.py", "class Solver:\n    def solve(self): return 1"),
    (lacks_all, "mgnet/__init__.py", "from .solver import Solver"),
]
GOOD = [
    (crosses_borders, "mgnet/solver.py", "import json\nimport numpy as np\nfrom . import vector"),
    (crosses_borders, "mgnet/kernels.py", "try:\n    import numba\nexcept ImportError: pass"),
    (crosses_borders, "mgnet/knots/spline_loops.py", "import numba"),
    (crosses_borders, "mgnet/knots/triton_kernels.py", "import triton"),
    (leaves_its_room, "mgnet/depth/hierarchy.py", "from mgnet.depth.network.dropout import x"),
    (leaves_its_room, "mgnet/depth/parallel/serial.py", "from mgnet.depth.mgrit.plan import plan"),
    (derives_from_a_final_class, "mgnet/a.py", "class B(Transfer, torch.nn.Module): ..."),
    (loads_compilers, "mgnet/knots/layer.py", "def f():\n    from mgnet.knots import kernels"),
    (loads_compilers, "mgnet/knots/kernels.py", "from mgnet.simd import load"),
    (crosses_borders, "mgnet/knots/kan.py", "import torch\nfrom ..transfer import Transfer"),
    (crosses_borders, "mgnet/knots/kan.py", "from ..training import Objective\nfrom . import a"),
    (crosses_borders, "mgnet/petsc/dm.py", "from petsc4py import PETSc\nfrom mgnet.depth import A"),
    (crosses_borders, "mgnet/app/cli.py", "import click, torch\nfrom mgnet.petsc import x"),
    (crosses_borders, "mgnet/__main__.py", "from mgnet.app.cli import command"),
    (raises_bare, "mgnet/solver.py", "raise ValueError('got 1, expected 2')"),
    (is_too_long, "mgnet/solver.py", LONG_FUNCTION.replace("\n    x = 1", "", 1)),
    (hides_methods, "mgnet/solver.py", "class Solver(Base):\n    def solve(self): return 1"),
    (lacks_all, "mgnet/__init__.py", "from .solver import Solver\n__all__ = ['Solver']"),
]


@pytest.mark.parametrize(("rule", "path", "text"), BAD)
def test_the_rule_objects(rule, path, text):
    assert len(list(rule(parse(path, text)))) == 1


@pytest.mark.parametrize(("rule", "path", "text"), GOOD)
def test_the_rule_is_silent(rule, path, text):
    assert not list(rule(parse(path, text)))


def test_a_missing_test_file_is_seen(tmp_path):
    files = [parse(path, "") for path in ("mgnet/__init__.py", "mgnet/a.py", "mgnet/knots/b.py")]
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_a.py").touch()
    assert untested(files, tmp_path) == ["tests/knots/test_b.py"]


EXAMPLE = "Examples\n    --------\n    >>> f(1)\n    1"
PARAMETERS = "Parameters\n    ----------\n    x : int\n"


@pytest.mark.parametrize(
    ("docstring", "complaints"),
    [
        ("Return x.", 2),
        (f"Return x.\n\n    {EXAMPLE}\n    ", 1),
        (f"Return x.\n\n    {PARAMETERS}\n    ", 1),
        (f"Return x.\n\n    {PARAMETERS}\n    {EXAMPLE}\n    ", 0),
    ],
)
def test_exports_are_found_and_their_docstrings_read(docstring, complaints):
    init = parse("mgnet/knots/__init__.py", "from .kan import f, g\n__all__ = ['f']")
    module = parse("mgnet/knots/kan.py", f'def f(x):\n    """{docstring}"""\n\ndef g(): ...')
    found = list(exported(init, [init, module]))
    assert [(path, node.name) for path, node in found] == [("mgnet/knots/kan.py", "f")]
    assert len(list(is_badly_documented(*found[0]))) == complaints


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("class C:\n    def __init__(self): ...", False),
        ("class C:\n    def __init__(self, x): ...", True),
        ("@dataclass(frozen=True)\nclass C:\n    x: int", True),
        ("class Reason(Enum):\n    DONE = 1", False),
        ("def f(*parts): ...", True),
    ],
)
def test_what_has_parameters_to_describe(text, answer):
    node = ast.parse(text).body[0]
    assert isinstance(node, Definition)
    assert takes_arguments(node) is answer
