"""A process that has loaded the libraries of the demos, and runs each one in a copy of itself.

Started by test_demos.py, since most demos take less time than loading these libraries. A line on
stdin is the JSON list `[folder, stdout, stderr, script, *arguments]`; the script then runs as
`python script *arguments` does in that folder, with its output in the two files, and a line on
stdout tells its exit code. mgnet itself is not loaded: that a demo imports what it uses is tested.
"""

import gc
import importlib
import json
import os
import signal
import sys
from importlib.util import find_spec
from pathlib import Path

LIBRARIES = ("matplotlib.pyplot", "numba", "scipy.stats", "sklearn.ensemble", "torch._dynamo")
SECONDS = 120  # after which a demo is ended


def serve() -> None:
    """Run the scripts that are asked for; in a copy, one of them."""
    gc.disable()
    for name in LIBRARIES:
        if find_spec(name.split(".")[0]):
            importlib.import_module(name)
    gc.freeze()
    gc.enable()
    for line in sys.stdin:
        folder, out, err, script, *arguments = json.loads(line)
        copy = os.fork()
        if copy == 0:
            signal.alarm(SECONDS)
            os.chdir(folder)
            for number, path, mode in ((0, os.devnull, "r"), (1, out, "w"), (2, err, "w")):
                with open(path, mode) as file:
                    os.dup2(file.fileno(), number)
            sys.argv, sys.path[0] = [script, *arguments], os.path.dirname(script)
            globals()["__file__"] = script  # what it makes lives as long as in a process of its own
            exec(compile(Path(script).read_text(), script, "exec"), globals())
            return
        print(os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1]), flush=True)


if __name__ == "__main__":
    serve()
