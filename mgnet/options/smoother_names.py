"""Smoothers that the text of an option may name: those of mgnet and those the script allows.

A text from a command line, a file or the environment cannot import anything else: importing a
module runs its code, even if the module does not contain a smoother.
"""

from __future__ import annotations

import difflib
import re
from importlib import import_module
from typing import Any, TypeVar

from mgnet import Smoother
from mgnet.limits import shown

__all__ = ["SMOOTHERS", "allow_imports", "find_smoother", "register_smoother"]

#: Every smoother that mgnet exports, and the package from which it is imported.
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
NEAR = 0.6  # least similarity of a name that is suggested, as `difflib` measures it
NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)

_registered: dict[str, type[Smoother]] = {}
_packages: set[str] = set()

Class = TypeVar("Class", bound=type[Smoother])


def register_smoother(kind: Class) -> Class:
    """Allow options to name a smoother of the script; also usable as a class decorator.

    Parameters
    ----------
    kind : type
        A class derived from `Smoother`. Options may then use its name alone or, if two modules
        have classes of this name, with its module.

    Returns
    -------
    type
        The same class.

    Raises
    ------
    TypeError
        If `kind` is not a class derived from `Smoother`.
    ValueError
        If mgnet already has a smoother with this name.

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
    """Allow options to name smoothers of these packages, which are imported when named.

    Call this in the script before `init`; there is no option for it. Importing a module runs its
    code, so allow only packages that you would import yourself.

    Parameters
    ----------
    *packages : str
        Names of modules, or of packages, which include all their modules.

    Raises
    ------
    ValueError
        If one of them is not a valid name of a module.

    Examples
    --------
    >>> allow_imports("mypackage.smoothers")
    >>> allow_imports("mypackage/smoothers.py")
    Traceback (most recent call last):
    ValueError: allow_imports got 'mypackage/smoothers.py'; give the name of a module, such
    as 'mypackage.smoothers'
    """
    for package in packages:
        if not isinstance(package, str) or not NAME.fullmatch(package):
            raise ValueError(
                f"allow_imports got {shown(package)}; give the name of a module, such as "
                "'mypackage.smoothers'"
            )
    _packages.update(packages)


def find_smoother(name: str, option: str) -> type[Smoother]:
    """Find the smoother class with this name, if options may name it.

    Parameters
    ----------
    name : str
        Name of the class, with or without its module.
    option : str
        Name of the option, for error messages.

    Returns
    -------
    type
        The class, derived from `Smoother`.

    Raises
    ------
    ValueError
        If options may not name it; the message contains the nearest name, or how to allow it.

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
    linear = ", ".join(word for word, package in SMOOTHERS.items() if package == "mgnet")
    nearest = f"the nearest is {known[near[0]]}" if near else f"for matrices there are {linear}"
    raise ValueError(
        f"{option} got {shown(name)}, which is not a smoother; {nearest}; if it is one of your "
        "own, allow it in the script by mgnet.options.register_smoother"
    )


def _imported(module: str, last: str, name: str, option: str) -> Any:
    try:
        kind = getattr(import_module(module), last)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"{option} got {shown(name)}, which cannot be imported: {shown(str(error), 200)}"
        ) from None
    if not isinstance(kind, type) or not issubclass(kind, Smoother):
        raise ValueError(f"{option} got {shown(name)}, which is not a class derived from Smoother")
    return kind
