"""The command `mgnet`; if libraries that it needs are missing, it names what to install."""

from __future__ import annotations

import sys
from typing import NoReturn

__all__ = ["command"]

EXTRA = {"click", "rich", "matplotlib", "sklearn", "threadpoolctl", "safetensors"}


def command() -> NoReturn:
    """Run the command line, as `mgnet.app.cli.command` does.

    Examples
    --------
    >>> command.__name__
    'command'
    """
    try:
        from mgnet.app.cli import command
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in EXTRA:
            raise
        sys.stderr.write(
            f"mgnet: the command needs {error.name}, which is not installed; install it with "
            "pip install 'mgnet-solvers[app]'\n"
        )
        sys.exit(2)
    command()


if __name__ == "__main__":
    command()
