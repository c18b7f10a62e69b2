"""Law: an options text imports nothing but mgnet's own packages, unless the script allows it."""

import sys
from dataclasses import dataclass
from importlib import import_module

import pytest

from mgnet import Jacobi, Smoother
from mgnet.options import allow_imports, init, parse_smoother, register_smoother
from mgnet.options import smoother_names as names
from mgnet.options.solver_options import solver_from_options

PACKAGES = ["mgnet", "mgnet.training", "mgnet.knots", "mgnet.depth", "mgnet.petsc"]


@pytest.fixture(autouse=True)
def forget(monkeypatch):
    monkeypatch.setattr(names, "_registered", {})
    monkeypatch.setattr(names, "_packages", set())


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Return the name of a module that leaves a trace when it is imported."""
    source = (
        "from mgnet import Jacobi\nfrom pathlib import Path\nPath(__file__ + '.trace').touch()\n"
    )
    (tmp_path / "with_trace.py").write_text(source + "thing = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "with_trace", raising=False)
    yield "with_trace"
    sys.modules.pop("with_trace", None)


@pytest.mark.parametrize("package", PACKAGES)
def test_the_table_is_what_the_package_exports(package):
    if package == "mgnet.petsc":
        pytest.importorskip("petsc4py")
    held = import_module(package)
    kinds = {name: getattr(held, name) for name in held.__all__}
    smoothers = {
        name
        for name, kind in kinds.items()
        if isinstance(kind, type) and issubclass(kind, Smoother) and kind is not Smoother
    }
    assert smoothers == {name for name, place in names.SMOOTHERS.items() if place == package}
    for name in smoothers:
        assert names.find_smoother(name, "-x") is kinds[name]
        assert names.find_smoother(f"{package}.{name}", "-x") is kinds[name]


def test_no_module_of_a_text_is_imported(module, tmp_path, options):
    for text in (f"{module}.Jacobi", f"{module}.thing(1)", f"{module}", f"x{module}.Jacobi"):
        with pytest.raises(ValueError, match=r"^-x got .*(may not import|is not a smoother)"):
            parse_smoother(text, "-x")
    file = tmp_path / "some.options"
    file.write_text(f"-n_mgnet_smoother {module}.Jacobi\n")
    options("")
    init(["x", "-options_file", str(file)])
    from mgnet import gallery

    with pytest.raises(
        ValueError, match="may not import; in the script, allow it by mgnet.options"
    ):
        solver_from_options(gallery.poisson(7), prefix="n_")
    assert module not in sys.modules
    assert not list(tmp_path.glob("*.trace"))


def test_what_the_script_allows(module, tmp_path):
    allow_imports("other", module)
    assert parse_smoother(f"{module}.Jacobi(0.5)") == Jacobi(0.5)
    assert list(tmp_path.glob("*.trace"))
    with pytest.raises(ValueError, match="not a class derived from Smoother"):
        parse_smoother(f"{module}.thing")
    for text in (f"{module}.nothing", f"{module}.below.Jacobi"):
        with pytest.raises(ValueError, match="cannot be imported: "):
            parse_smoother(text)
    with pytest.raises(ValueError, match="may not import"):
        parse_smoother(f"{module}s.Jacobi")


@pytest.mark.parametrize("package", ["", "a/b", "a..b", ".a", "a.b.", 3, None, "a;b"])
def test_packages_that_are_none(package):
    with pytest.raises(ValueError, match="^allow_imports got .*give the name of a module"):
        allow_imports("fine", package)


def test_registered_ones():
    @register_smoother
    @dataclass(frozen=True)
    class Halve(Smoother):
        omega: float = 0.5

        def smooth(self, level, u, f, sweeps, memory):
            return u, memory

    assert parse_smoother("Halve(0.25)") == parse_smoother(f"{__name__}.Halve(0.25)") == Halve(0.25)
    with pytest.raises(ValueError, match="the nearest is Halve; "):
        parse_smoother("Halves")
    with pytest.raises(TypeError, match="^register_smoother got .*derived from mgnet.Smoother"):
        register_smoother(Halve())
    with pytest.raises(TypeError, match="^register_smoother got"):
        register_smoother(int)
    with pytest.raises(ValueError, match="and mgnet has a smoother of this name"):
        register_smoother(type("Jacobi", (Halve,), {}))
