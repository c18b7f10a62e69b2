"""Options of one test do not reach the next."""

import shlex
from collections.abc import Callable, Iterator

import pytest


@pytest.fixture
def options(petsc) -> Iterator[Callable[[str], None]]:
    """Return a function that sets PETSc options, written as on a command line."""
    database = petsc.Options()
    before = set(database.getAll())

    def give(line: str) -> None:
        words = shlex.split(line)
        quoted = (f'"{word}"' if " " in word else word for word in words)
        database.insertString(" ".join(quoted))

    yield give
    for name in set(database.getAll()) - before:
        database.delValue(name)
