"""All of mgnet's options: `-help`, the checks and the table in the docs are generated from here.

Names are written without a prefix and without `-mgnet_`. This module does not need petsc4py.
"""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass

from mgnet.limits import MOST_SWEEPS, shown

__all__ = ["OPTIONS", "Option", "find", "markdown"]

LONGEST_INTEGER = 18
MOST_DIGITS = f" with at most {LONGEST_INTEGER} digits"


@dataclass(frozen=True)
class Option:
    """An option of mgnet: its name, kind of value, default and description.

    Parameters
    ----------
    name : str
        Name without prefix and `-mgnet_`.
    kind : str
        Kind of value: "cycle", "int", "ints", "real", "flag", "smoother", "acceleration",
        "relaxation", or choices separated by bars, such as "table|ascii|json".
    default : str
        Default in the help and the docs; "" if the default is the script's value.
    text : str
        Description in one line.
    groups : tuple of str
        Objects that read the option: "solver", "layers" or both.
    least, most : float
        Smallest and largest admissible value of a number.
    per_level : bool
        Whether `levels_<n>_<name>` sets the option on level n alone; level 0 is the finest.

    Examples
    --------
    >>> find("sweeps").read("2", "-mgnet_sweeps")
    2
    """

    name: str
    kind: str
    default: str
    text: str
    groups: tuple[str, ...] = ("solver",)
    least: float = 0.0
    most: float = math.inf
    per_level: bool = False

    def read(self, text: str, name: str) -> int | float | bool | str | tuple:
        """Convert a text from the command line to a value.

        Parameters
        ----------
        text : str
            The value as text; empty for an option that was given without a value.
        name : str
            The full name of the option, for error messages.

        Raises
        ------
        ValueError
            If the text is not a valid value of this option.
        """
        if self.kind in ("int", "real"):
            number = _number(int if self.kind == "int" else float, text)
            if number is None or not self.least <= number <= self.most:
                what = "an integer" if self.kind == "int" else "a number"
                raise ValueError(
                    f"option {name} got {shown(text)}; it takes {what} of at least {self.least:g}"
                    + (f" and at most {self.most}" if math.isfinite(self.most) else "")
                    + (MOST_DIGITS if self.kind == "int" and _is_long(text) else "")
                )
            return number
        if self.kind == "ints":
            numbers = [_number(int, word) for word in text.split(",")]
            if any(number is None or number < self.least for number in numbers):
                raise ValueError(
                    f"option {name} got {shown(text)}; it takes integers of at least "
                    f"{self.least:g}{MOST_DIGITS if any(map(_is_long, text.split(','))) else ''}, "
                    f"such as {self.example}"
                )
            return tuple(numbers)
        if self.kind == "relaxation":
            words = tuple(word.strip() for word in text.split(","))
            if not all(re.fullmatch("[FC]+", word) for word in words):
                raise ValueError(
                    f"option {name} got {shown(text)}; it takes words of F and C, "
                    f"such as {self.example}"
                )
            return words
        if self.kind == "flag":
            return _choice(text or "true", {**_YES, **_NO}, name) in _YES
        if "|" in self.kind:
            choices = self.kind.split("|")
            return _choice(text or choices[0], dict.fromkeys(choices), name)
        if not text.strip():
            raise ValueError(
                f"option {name} got no value; it takes {self.kind}, such as {self.example}"
            )
        return text

    @property
    def example(self) -> str:
        """An example of a valid value."""
        return _EXAMPLES.get(self.kind, self.default or "1")


_YES = dict.fromkeys(("true", "1", "yes", "on"))
_NO = dict.fromkeys(("false", "0", "no", "off"))
_EXAMPLES = {"cycle": '"F(2,1)"', "smoother": '"Jacobi(0.8)"', "ints": "8,4"}
_EXAMPLES |= {"acceleration": '"GMRES(20)"', "relaxation": "F,FCF"}

_LAYERS = ("layers",)
_ROWS = (
    Option("cycle", "cycle", "V(1,1)", "Cycle, cascade or list of steps"),
    Option("levels", "int", "", "Levels, from the finest", groups=("solver", "layers"), least=1),
    Option(
        "sweeps",
        "int",
        "",
        "Wherever the cycle smooths; the coarse solves on their level",
        least=1,
        most=MOST_SWEEPS,
        per_level=True,
    ),
    Option("smoother", "smoother", "", "Before and after the coarse correction", per_level=True),
    Option(
        "post_smoother", "smoother", "", "After the coarse correction, if another", per_level=True
    ),
    Option("coarse_solver", "smoother", "", "On the coarsest level"),
    Option("acceleration", "acceleration", "none", "CG, GMRES, FGMRES or Anderson"),
    Option("rtol", "real", "1e-08", "Relative residual norm at which to end"),
    Option("atol", "real", "0", "Residual norm at which to end"),
    Option("max_cycles", "int", "50", "Cycles at most", least=1),
    Option("seconds", "real", "inf", "Wall time after which no cycle begins"),
    Option("monitor", "flag", "false", "Print the residual norm after each cycle"),
    Option("view", "table|ascii|json", "", "Print levels and cycle before the solve"),
    Option("coarsening", "ints", "4", "Layers per layer of the next level", _LAYERS, least=2),
    Option("coarse", "mean|first|fused|identity", "mean", "What a coarse layer is", _LAYERS),
    Option("forward_cycle", "cycle", "cascade + V", "Cycle of the states", _LAYERS),
    Option("backward_cycle", "cycle", "cascade + V", "Cycle of the adjoint", _LAYERS),
    Option("control", "fixed|tolerance|adaptive", "fixed", "What ends the cycles", _LAYERS),
    Option("forward_max_cycles", "int", "1", "Cycles of the states after the opening", _LAYERS),
    Option("backward_max_cycles", "int", "1", "Cycles of the adjoint after the opening", _LAYERS),
    Option("tolerance", "real", "0.1", "Relative error of the output", _LAYERS),
    Option("relaxation", "relaxation", "F,FCF", "Per level, the last for all others", _LAYERS),
    Option("mode", "mgrit|serial|auto", "mgrit", "Multigrid, serial, or the faster one", _LAYERS),
)

OPTIONS: dict[str, Option] = {option.name: option for option in _ROWS}


def find(name: str) -> Option:
    """Find an option by its name, such as `levels_2_sweeps`.

    Parameters
    ----------
    name : str
        Name without prefix and `-mgnet_`.

    Returns
    -------
    Option
        The entry of the table.

    Raises
    ------
    ValueError
        If there is no such option; the message contains the nearest valid name.

    Examples
    --------
    >>> find("levels_2_sweeps").name
    'sweeps'
    >>> find("cycel")
    Traceback (most recent call last):
    ValueError: option -mgnet_cycel is unknown; the nearest is -mgnet_cycle (-help lists all)
    """
    on_level = re.fullmatch(r"levels_(0|[1-9]\d{0,8})_(\w+)", name, re.ASCII)
    option = OPTIONS.get(on_level[2] if on_level else name)
    if option is not None and (option.per_level or not on_level):
        return option
    name = name if len(name) <= 60 else f"{name[:57]}..."
    number = next((int(digits) for digits in re.findall("[0-9]{1,9}", name)), 1)
    known = [*OPTIONS, *(f"levels_{number}_{o.name}" for o in OPTIONS.values() if o.per_level)]
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
    raise ValueError(
        f"option -mgnet_{name} is unknown; the nearest is -mgnet_{nearest} (-help lists all)"
    )


def markdown(group: str) -> str:
    """Format the table of options for the docs.

    Parameters
    ----------
    group : str
        "solver" or "layers": the object whose options are listed.

    Returns
    -------
    str
        A table in Markdown.

    Examples
    --------
    >>> print(markdown("solver").splitlines()[2])
    | `-mgnet_cycle` | cycle, such as `"F(2,1)"` | `V(1,1)` | Cycle, cascade or list of steps |
    """
    rows = ["| option | value | default | meaning |", "| --- | --- | --- | --- |"]
    for option in OPTIONS.values():
        if group not in option.groups:
            continue
        value = option.kind.replace("|", ", ")
        if option.kind in _EXAMPLES:
            value += f", such as `{option.example}`"
        default = f"`{option.default}`" if option.default else "the script's"
        names = f"`-mgnet_{option.name}`"
        if option.per_level:
            names += f", `-mgnet_levels_<n>_{option.name}`"
        rows.append(f"| {names} | {value} | {default} | {option.text} |")
    return "\n".join(rows)


def _is_long(text: str) -> bool:
    """Whether the text is an integer with too many characters."""
    return len(text) > LONGEST_INTEGER and re.fullmatch(r"\s*[+-]?\d+\s*", text) is not None


def _number(kind: type, text: str) -> int | float | None:
    """The number that a text stands for in PETSc's notation; Python would also accept `1_0`."""
    if not text.isascii() or "_" in text or len(text) > (LONGEST_INTEGER if kind is int else 50):
        return None
    try:
        return kind(text)
    except ValueError:
        return None


def _choice(text: str, choices: dict[str, None], name: str) -> str:
    if text in choices:
        return text
    nearest = difflib.get_close_matches(text[:60], choices, n=1, cutoff=0.0)[0]
    raise ValueError(
        f"option {name} got {shown(text)}; it takes one of {', '.join(choices)}: "
        f"the nearest is {nearest}"
    )
