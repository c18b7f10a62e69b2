"""PETSc's options on a command line: they have one dash, and the script's own have two.

petsc4py is not imported until an option is given, so every script can call `init`.
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
    """Split a command line into the script's own arguments and PETSc's options.

    PETSc's options have a single dash. The argument after an option is its value, unless that is an
    option itself (a negative number is a value), so put options last. All arguments after `--` are
    left to the script.

    Parameters
    ----------
    arguments : sequence of str
        The command line without the name of the script.

    Returns
    -------
    tuple of list of str
        The script's own arguments, and PETSc's options with their values.

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

    Without any options, PETSc is not started, and the script runs without petsc4py. When the script
    ends, even with an error, a warning on stderr lists the options that nothing has read, mgnet's
    and PETSc's, with the nearest valid names; `-options_left no` omits the warning, and
    `-options_left` prints PETSc's own list.

    Parameters
    ----------
    argv : sequence of str
        The command line, `sys.argv`. Options have one dash and are followed by their values;
        `-options_file <file>` reads more.
    options : str
        Default options of the script, written as on a command line or in an options file. The
        command line, the variable `PETSC_OPTIONS` and the file `~/.petscrc` take precedence.

    Returns
    -------
    list of str
        The arguments that remain for the script: its name and its own arguments.

    Raises
    ------
    ModuleNotFoundError
        If options are given but petsc4py is not installed.
    TypeError
        If `argv` is a single string, or not a list of strings.
    ValueError
        If an option with `mgnet_` in its name is unknown; the message contains the nearest name.

    Examples
    --------
    >>> init(["poisson.py", "out", "--seed", "3"])
    ['poisson.py', 'out', '--seed', '3']
    """
    texts = isinstance(argv, Sequence) and not isinstance(argv, str)
    if not texts or not all(isinstance(word, str) for word in argv):
        raise TypeError(
            f"init got {shown(argv)}; give a list of texts, the name first, such as sys.argv"
        )
    if not isinstance(options, str):
        raise TypeError(f"init got options {shown(options)}; give one text, as on a command line")
    own, theirs = split_options(argv[1:])
    _refuse_two_dashes(own)
    try:
        weaker = shlex.split(options, comments=True)
    except ValueError as error:  # an unmatched quote
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


def _refuse_two_dashes(own: Sequence[str]) -> None:
    for word in own[: own.index("--")] if "--" in own else own:
        name = re.sub(r"^levels_\d+_|=.*", "", word[8:].lower())
        if word.startswith("--mgnet_") and name in OPTIONS:
            raise ValueError(f"option {shown(word)} has two dashes; write {shown(word[1:])}")


def insert_options(arguments: Sequence[str], weaker: Sequence[str] = ()) -> None:
    """Start PETSc with these options, or add them if it is already running.

    Parameters
    ----------
    arguments : sequence of str
        Options with their values, as on a command line.
    weaker : sequence of str
        Further options, which do not replace those that are already set.

    Raises
    ------
    ModuleNotFoundError
        If petsc4py is not installed.
    ValueError
        If PETSc cannot read an option; see `init`.
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
                f"options got {shown(word, 200)}, which is not a text that PETSc can hold"
            )
    _check_files(arguments)
    runs = _petsc() is not None
    try:
        petsc4py.init(["mgnet", *arguments])
        database = import_module("petsc4py.PETSc").Options()
        if runs:  # PETSc then ignores the arguments of init
            _insert(database, arguments)
    except RuntimeError as error:  # raised by PETSc
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
    """Add options to a running PETSc, which accepts quotes around a value but none inside it."""
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
    """Refuse options for which PETSc would print a page of errors on stderr."""
    pushed = 0
    for word, value in zip(arguments, [*arguments[1:], ""], strict=False):
        if word in ("-options_file", "-options_file_yaml", "-prefix_push"):
            if not value or OPTION.match(value):
                raise ValueError(f"option {word} got no value; write it after the option")
        if word in ("-options_file", "-options_file_yaml"):
            if not Path(value).exists() or Path(value).is_dir():
                raise ValueError(f"option {word} got {shown(value, 200)}, which is not a file")
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
    """The module petsc4py.PETSc if PETSc is running, else None, as there are no options then."""
    return sys.modules.get("petsc4py.PETSc")


def check_names() -> None:
    """Raise a ValueError if an option of mgnet, with any prefix, does not exist."""
    petsc = _petsc()
    for name in petsc.Options().getAll() if petsc else ():
        ours = OURS.fullmatch(name.lower())  # PETSc ignores the case of letters
        if ours is not None:
            find(ours[1])


def unread() -> list[str]:
    """List the options that were given but that nothing has read.

    Unread options of mgnet are spelled correctly but do not apply to this script: for example
    `-mgnet_cycle` if there is only a `LayerParallel`, or an option with another prefix. Unread
    options of PETSc are often misspelled.

    Returns
    -------
    list of str
        The names; empty with `-options_left no`, and without PETSc's if `-options_left` lists them.

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
    """Return a warning that lists the options that nothing has read; empty if there are none.

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
        petsc.Options().setValue("options_left", "no")  # later versions would list them again


class OptionReader:
    """Reads mgnet's options with one prefix, and prints them if `-help` is given.

    Parameters
    ----------
    prefix : str
        Text before `mgnet_`: "train_" reads `-train_mgnet_cycle`.
    group : str
        Kind of object that is configured, for the help: "solver", "layers" or "time".

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
        """Return the value of an option, or the default, which is the script's value.

        Parameters
        ----------
        name : str
            Name in `OPTIONS`.
        default : object
            The value if the option is not given.
        level : int, optional
            If given, the option of one level is read: `levels_<level>_<name>`.

        Raises
        ------
        ValueError
            If the option has an invalid value.
        """
        option = OPTIONS[name]
        within = f"mgnet_{name}" if level is None else f"mgnet_levels_{level}_{name}"
        text = self.text(within)
        value = default if text is None else option.read(text, f"-{self.prefix}{within}")
        if level is None or text is not None:
            self._describe(option, f"-{self.prefix}{within}", value, default, text is not None)
        return value

    def _describe(self, option: Option, name: str, value: Any, default: Any, given: bool) -> None:
        """Add a line to the help, in PETSc's format."""
        now, formerly = (_shown(v) for v in (value, default))
        values = f"now {now} : formerly {formerly}" if given else f"{now} : {formerly}"
        more = f" (one of) {option.kind.replace('|', ' ')}" if "|" in option.kind else ""
        if option.per_level:
            more += f"; on one level: -{self.prefix}mgnet_levels_<n>_{option.name}"
        line = f"  {name} <{values}>: {option.text}{more}"
        if line not in self.lines:
            self.lines.append(line)

    def shown(self, name: str) -> str:
        """The full name of an option, as typed on the command line."""
        return f"-{self.prefix}mgnet_{name}"

    def text(self, within: str) -> str | None:
        """The text of `-<prefix><within>`; None if it is not given, "" if it has no value."""
        petsc = _petsc()
        database = None if petsc is None else petsc.Options(self.prefix)
        if database is None or not database.hasName(within):
            return None
        _read.add(f"{self.prefix}{within}".lower())
        return database.getString(within, "")

    def levels_named(self) -> list[tuple[int, str]]:
        """The (level, name) of all options with this prefix that apply to one level."""
        petsc = _petsc()
        names = petsc.Options().getAll() if petsc else ()
        within = rf"{re.escape(self.prefix.lower())}mgnet_levels_(\d{{1,9}})_(\w+)"
        found = (re.fullmatch(within, name.lower(), re.ASCII) for name in names)
        return [(int(m[1]), m[2]) for m in found if m]

    def help(self) -> None:
        """Print the options read so far in PETSc's format if `-help` is given, once per prefix."""
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


# Names that were given and have been read.
_read: set[str] = set()
# Prefixes and groups whose help was printed: like PETSc's, it is printed once per object.
_helped: set[tuple[str, str]] = set()
