"""Which smoothers an options text may name: those of mgnet, and those that the script allows.

A text from a command line, a file or the environment imports nothing else: a module that it could
name would run its code before anyone sees that it holds no smoother.
"""

from __future__ import annotations

import difflib
import re
from importlib import import_module
from typing import Any, TypeVar

from mgnet import Smoother
from mgnet.limits import shown

__all__ = ["SMOOTHERS", "allow_imports", "find_smoother", "register_smoother"]

#: Every smoother that mgnet exports, and the package that is imported for it.
SMOOTHERS = {
    **dict.fromkeys(("Chebyshev", "Direct", "GaussSeidel", "Jacobi", "Krylov"), "mgnet"),
    **dict.fromkeys(("BlockGaussSeidel", "BlockJacobi", "ILU", "LineRelaxation"), "mgnet"),
    **dict.fromkeys(("AdditiveSchwarz", "MultiplicativeSchwarz"), "mgnet"),
    **dict.fromkeys(("AdaptiveBasis", "Broyden", "EarlyStop", "LBFGS"), "mgnet.training"),
    **dict.fromkeys(("LastLayer", "LevenbergMarquardt", "NewtonLastLayer"), "mgnet.training"),
    **dict.fromkeys(("MultilevelOptimizer", "TorchOptimizer"), "mgnet.training"),
    **dict.fromkeys(("GradientDescent", "Patches"), "mgnet.knots"),
    **dict.fromkeys(("NewtonSweep", "Relaxation", "SerialSweep"), "mgnet.depth"),
    **dict.fromkeys(("KSPSmoother", "TAOSmoother"), "mgnet.petsc"),
}
NEAR = 0.6  # how alike a name must be to be offered, as `difflib` counts
NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)

_registered: dict[str, type[Smoother]] = {}
_packages: set[str] = set()

Class = TypeVar("Class", bound=type[Smoother])


def register_smoother(kind: Class) -> Class:
    """Let options name a smoother of the script; also as a decorator of its class.

    Parameters
    ----------
    kind : type
        A class derived from `Smoother`. Its name may then be given alone or, where two modules have
        the same, with its module.

    Returns
    -------
    type
        The same class.

    Raises
    ------
    TypeError
        If it is no such class.
    ValueError
        If mgnet has a smoother of this name.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> from mgnet.options import parse_smoother
    >>> @register_smoother
    ... @dataclass(frozen=True)
    ... class Nothing(Smoother):
    ...     times: int = 1
    ...     def smooth(self, level, u, f, sweeps, memory):
    ...         return u, memory
    >>> parse_smoother("Nothing(2)").times
    2
    """
    if not isinstance(kind, type) or not issubclass(kind, Smoother):
        raise TypeError(
            f"register_smoother got {shown(kind)}; give a class that is derived from mgnet.Smoother"
        )
    if kind.__name__ in SMOOTHERS:
        raise ValueError(
            f"register_smoother got a class {kind.__name__}, and mgnet has a smoother of this "
            "name; give it another one"
        )
    _registered[kind.__name__] = _registered[f"{kind.__module__}.{kind.__name__}"] = kind
    return kind


def allow_imports(*packages: str) -> None:
    """Let options name smoothers of these packages, which are then imported when they are named.

    For a script to call, before `init`: no option does it. Importing a module runs it, so allow
    only packages that you would import yourself.

    Parameters
    ----------
    *packages : str
        Modules, or packages with all modules below them.

    Raises
    ------
    ValueError
        If one is no name of a module.

    Examples
    --------
    >>> allow_imports("mypackage.smoothers")
    >>> allow_imports("mypackage/smoothers.py")
    Traceback (most recent call last):
    ValueError: allow_imports got 'mypackage/smoothers.py'; give the name of a module, as
    'mypackage.smoothers'
    """
    for package in packages:
        if not isinstance(package, str) or not NAME.fullmatch(package):
            raise ValueError(
                f"allow_imports got {shown(package)}; give the name of a module, as "
                "'mypackage.smoothers'"
            )
    _packages.update(packages)


def find_smoother(name: str, option: str) -> type[Smoother]:
    """The class of a name, if options may name it.

    Parameters
    ----------
    name : str
    option : str
        For messages.

    Raises
    ------
    ValueError
        Names the nearest one, or how a script allows its own.

    Examples
    --------
    >>> find_smoother("mgnet.Jacobi", "-mgnet_smoother").__name__
    'Jacobi'
    >>> find_smoother("os.system", "option -mgnet_smoother")
    Traceback (most recent call last):
    ValueError: option -mgnet_smoother got 'os.system', which options may not import; in the script,
    allow it by mgnet.options.register_smoother or allow_imports
    """
    module, _, last = name.rpartition(".")
    if name in _registered:
        return _registered[name]
    if last in SMOOTHERS and module in ("", SMOOTHERS[last]):
        return _imported(SMOOTHERS[last], last, name, option)
    if any(module == package or module.startswith(f"{package}.") for package in _packages):
        return _imported(module, last, name, option)
    if module and module.partition(".")[0] != "mgnet":
        raise ValueError(
            f"{option} got {shown(name)}, which options may not import; in the script, allow it by "
            "mgnet.options.register_smoother or allow_imports"
        )
    known = {word.lower(): word for word in [*SMOOTHERS, *_registered]}
    near = difflib.get_close_matches(last[:60].lower(), known, n=1, cutoff=NEAR)
    nearest = f"the nearest is {known[near[0]]}; " if near else ""
    raise ValueError(
        f"{option} got {shown(name)}, which is no smoother; {nearest}if it is one of your own, "
        "allow it in the script by mgnet.options.register_smoother"
    )


def _imported(module: str, last: str, name: str, option: str) -> Any:
    try:
        kind = getattr(import_module(module), last)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"{option} got {shown(name)}, which cannot be imported: {shown(str(error), 200)}"
        ) from None
    if not isinstance(kind, type) or not issubclass(kind, Smoother):
        raise ValueError(f"{option} got {shown(name)}, which is no class derived from Smoother")
    return kind
