"""Options for PETSc on a command line: one dash, beside a script's own with two.

This file needs no petsc4py until an option is given, so that every script can call `init`.
"""

from __future__ import annotations

import atexit
import os
import re
import shlex
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mgnet.limits import shown
from mgnet.options.option_table import OPTIONS, Option, find
from mgnet.options.petsc_names import nearest, unused

__all__ = [
    "OptionReader",
    "check_names",
    "init",
    "insert_options",
    "split_options",
    "unread",
    "unread_line",
]

OPTION = re.compile(r"-[A-Za-z_]")
OURS = re.compile(r"(?:.*_)?mgnet_(\w+)")


def split_options(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Part a command line into our own arguments and PETSc's.

    PETSc's options have a single dash. The argument after one is its value, unless that is an
    option itself (a negative number is a value), so give them last. Nothing after `--` is touched.

    Parameters
    ----------
    arguments : sequence of str

    Returns
    -------
    tuple of list of str
        Ours, PETSc's.

    Examples
    --------
    >>> split_options(["fit", "--seed", "-3", "-ksp_type", "cg", "-mgnet_view", "--levels", "2"])
    (['fit', '--seed', '-3', '--levels', '2'], ['-ksp_type', 'cg', '-mgnet_view'])
    """
    ours: list[str] = []
    theirs: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument == "--":
            return [*ours, argument, *rest], theirs
        if OPTION.match(argument):
            theirs.append(argument)
            if rest and not rest[0].startswith("--") and not OPTION.match(rest[0]):
                theirs.append(rest.pop(0))
        else:
            ours.append(argument)
    return ours, theirs


def init(argv: Sequence[str], options: str = "") -> list[str]:
    """Start PETSc with the options of a command line.

    Without any, PETSc is not started, and a script runs without petsc4py. When the script ends, by
    an error too, a warning on stderr names the options that nothing asked for, ours and PETSc's,
    and the nearest name there is; `-options_left no` omits it, `-options_left` is PETSc's own list.

    Parameters
    ----------
    argv : sequence of str
        `sys.argv`. Options have one dash, their values follow; `-options_file <file>` reads more.
    options : str
        The script's own, as on a command line or in an options file. The command line beats them,
        and so do the variable `PETSC_OPTIONS` and the file `~/.petscrc`.

    Returns
    -------
    list of str
        What is left of `argv` for the script: its name, and its own arguments.

    Raises
    ------
    ModuleNotFoundError
        If there are options, but no petsc4py.
    TypeError
        If `argv` is one text, or no list of texts.
    ValueError
        If an option with `mgnet_` in its name is unknown; names the nearest.

    Examples
    --------
    >>> init(["poisson.py", "out", "--seed", "3"])
    ['poisson.py', 'out', '--seed', '3']
    """
    texts = isinstance(argv, Sequence) and not isinstance(argv, str)
    if not texts or not all(isinstance(word, str) for word in argv):
        raise TypeError(
            f"init got {shown(argv)}; give a list of texts, the name first, as sys.argv"
        )
    if not isinstance(options, str):
        raise TypeError(f"init got options {shown(options)}; give one text, as on a command line")
    own, theirs = split_options(argv[1:])
    try:
        weaker = shlex.split(options, comments=True)
    except ValueError as error:  # of quotes
        raise ValueError(f"init got options {shown(options, 200)}: {error}") from None
    if theirs or weaker:
        insert_options(theirs, weaker)
    elif os.environ.get("PETSC_OPTIONS") and find_spec("petsc4py"):
        insert_options([])
    check_names()
    if _petsc() is not None:
        atexit.unregister(_warn)  # once, however often a script calls init
        atexit.register(_warn)
    return [*argv[:1], *own]


def insert_options(arguments: Sequence[str], weaker: Sequence[str] = ()) -> None:
    """Start PETSc with these options, or add them if it runs already.

    Parameters
    ----------
    arguments : sequence of str
        Options with their values, as on a command line.
    weaker : sequence of str
        The same, but these do not replace what is set.

    Raises
    ------
    ModuleNotFoundError
        If petsc4py is not installed.
    ValueError
        As in `init`.
    """
    try:
        petsc4py = import_module("petsc4py")
    except ImportError:
        raise ModuleNotFoundError(
            f"{[*arguments, *weaker, ''][0][:60]} has one dash, so it is meant for PETSc, but "
            "petsc4py is not installed; install it, or write two dashes for an option of mgnet"
        ) from None
    for word in (*arguments, *weaker):
        if "\0" in word or not _is_utf8(word):
            raise ValueError(
                f"options got {shown(word, 200)}, which is no text that PETSc can hold"
            )
    _check_files(arguments)
    runs = _petsc() is not None
    try:
        petsc4py.init(["mgnet", *arguments])
        database = import_module("petsc4py.PETSc").Options()
        if runs:  # then it ignores what init is given
            _insert(database, arguments)
    except RuntimeError as error:  # PETSc's own
        why = str(error).split("\n")[-1].strip("[0] ")
        raise ValueError(f"PETSc refuses {shown(shlex.join(arguments), 200)}: {why}") from None
    names = {name.lower() for name in database.getAll()}
    for name, value in _pairs(weaker):
        if name.lower() not in names:
            database.setValue(name, value)
    check_names()


def _is_utf8(word: str) -> bool:
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def _insert(database: Any, arguments: Sequence[str]) -> None:
    """Add options to a PETSc that runs; it reads quotes around a value, but none within."""
    plain: list[str] = []
    for word in arguments:
        if '"' in word and plain:
            name = plain.pop()
            database.insertString(" ".join(map(_quoted, plain)))
            database.setValue(name[1:], word)
            plain = []
        else:
            plain.append(word)
    database.insertString(" ".join(map(_quoted, plain)))


def _check_files(arguments: Sequence[str]) -> None:
    """Refuse what PETSc would refuse with a page of text on stderr."""
    pushed = 0
    for word, value in zip(arguments, [*arguments[1:], ""], strict=False):
        if word in ("-options_file", "-options_file_yaml", "-prefix_push"):
            if not value or OPTION.match(value):
                raise ValueError(f"option {word} got no value; write it after the option")
        if word in ("-options_file", "-options_file_yaml"):
            if not Path(value).exists() or Path(value).is_dir():
                raise ValueError(f"option {word} got {shown(value, 200)}, which is no file")
        pushed += {"-prefix_push": 1, "-prefix_pop": -1}.get(word, 0)
        if pushed < 0:
            raise ValueError("option -prefix_pop comes without a -prefix_push before it")


def _quoted(argument: str) -> str:
    return f'"{argument}"' if not argument or re.search(r"\s", argument) else argument


def _pairs(arguments: Sequence[str]) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for argument in arguments:
        if OPTION.match(argument):
            pairs.append((argument[1:], ""))
        elif pairs:
            pairs[-1] = (pairs[-1][0], argument)
    return pairs


def _petsc() -> Any:
    """The module petsc4py.PETSc where PETSc runs, else None: then there are no options."""
    return sys.modules.get("petsc4py.PETSc")


def check_names() -> None:
    """Raise a ValueError for an option of ours, under whatever prefix, that does not exist."""
    petsc = _petsc()
    for name in petsc.Options().getAll() if petsc else ():
        ours = OURS.fullmatch(name.lower())  # PETSc does not tell capitals from small letters
        if ours is not None:
            find(ours[1])


def unread() -> list[str]:
    """The options that were given, but that nothing has asked for.

    Those of ours are spelt well, but not for this script: `-mgnet_cycle` where there is only a
    `LayerParallel`, or another prefix. Those of PETSc are often misspelt.

    Returns
    -------
    list of str
        Empty with `-options_left no`; without those of PETSc where `-options_left` lists them.

    Examples
    --------
    >>> unread()
    []
    """
    petsc = _petsc()
    if petsc is None or not petsc.Options().getBool("options_left", True):
        return []
    names = petsc.Options().getAll()
    ours = [name for name in names if OURS.fullmatch(low := name.lower()) and low not in _read]
    theirs = [] if petsc.Options().hasName("options_left") else unused()
    return [f"-{name}" for name in (*ours, *theirs)]


def unread_line() -> str:
    """A line that names the options that nothing has asked for; empty where there are none.

    Examples
    --------
    >>> unread_line()
    ''
    """
    told = []
    for name in unread():
        meant = None if OURS.fullmatch(name[1:].lower()) else nearest(name[1:])
        told.append(name if meant in (None, name[1:]) else f"{name} (the nearest is -{meant})")
    return f"warning: nothing in this script reads {', '.join(told)}\n" if told else ""


def _warn() -> None:
    line, petsc = unread_line(), _petsc()
    if line and petsc.COMM_WORLD.getRank() == 0:
        sys.stderr.write(line)
    if line and not petsc.Options().hasName("options_left"):
        petsc.Options().setValue("options_left", "no")  # later versions would list them once more


class OptionReader:
    """Reads our options under one prefix, and shows them when `-help` is given.

    Parameters
    ----------
    prefix : str
        Before `mgnet_`: "train_" reads `-train_mgnet_cycle`.
    group : str
        "solver", "layers" or "time": of the object, for the help.

    Examples
    --------
    >>> OptionReader("unused_").get("cycle", "F(1,1)")
    'F(1,1)'
    """

    def __init__(self, prefix: str = "", group: str = "solver"):
        self.prefix = prefix
        self.group = group
        self.lines: list[str] = []

    def get(self, name: str, default: Any, level: int | None = None) -> Any:
        """The value of an option, or the default, which is the script's.

        Parameters
        ----------
        name : str
            Of `OPTIONS`.
        default : object
        level : int, optional
            Asks for `levels_<level>_<name>`.
        """
        option = OPTIONS[name]
        within = f"mgnet_{name}" if level is None else f"mgnet_levels_{level}_{name}"
        text = self.text(within)
        value = default if text is None else option.read(text, f"-{self.prefix}{within}")
        if level is None or text is not None:
            self._describe(option, f"-{self.prefix}{within}", value, default, text is not None)
        return value

    def _describe(self, option: Option, name: str, value: Any, default: Any, given: bool) -> None:
        """Add a line to the help, as PETSc writes it."""
        now, formerly = (_shown(v) for v in (value, default))
        values = f"now {now} : formerly {formerly}" if given else f"{now} : {formerly}"
        more = f" (one of) {option.kind.replace('|', ' ')}" if "|" in option.kind else ""
        if option.per_level:
            more += f"; on one level: -{self.prefix}mgnet_levels_<n>_{option.name}"
        line = f"  {name} <{values}>: {option.text}{more}"
        if line not in self.lines:
            self.lines.append(line)

    def shown(self, name: str) -> str:
        """The whole name of an option, as it is typed."""
        return f"-{self.prefix}mgnet_{name}"

    def text(self, within: str) -> str | None:
        """The text of `-<prefix><within>`; None where it is not given, "" without a value."""
        petsc = _petsc()
        database = None if petsc is None else petsc.Options(self.prefix)
        if database is None or not database.hasName(within):
            return None
        _read.add(f"{self.prefix}{within}".lower())
        return database.getString(within, "")

    def levels_named(self) -> list[tuple[int, str]]:
        """The (level, name) of all options for one level, of this prefix."""
        petsc = _petsc()
        names = petsc.Options().getAll() if petsc else ()
        within = rf"{re.escape(self.prefix.lower())}mgnet_levels_(\d{{1,9}})_(\w+)"
        found = (re.fullmatch(within, name.lower(), re.ASCII) for name in names)
        return [(int(m[1]), m[2]) for m in found if m]

    def help(self) -> None:
        """Print the options read so far, in PETSc's form, if `-help` is given; once a prefix."""
        petsc = _petsc()
        if petsc is None or not petsc.Options().hasName("help"):
            return
        head = f"mgnet ({self.group}) options:"
        if (self.prefix, self.group) not in _helped:
            _helped.add((self.prefix, self.group))
            petsc.Sys.Print("\n".join(["-" * 40, head, *self.lines]))


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return "none" if value is None else str(value)


# Names that were given and asked for.
_read: set[str] = set()
# Prefixes and groups whose help was printed: PETSc prints that of an object once, too.
_helped: set[tuple[str, str]] = set()
