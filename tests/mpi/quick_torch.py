"""Loads torch for the scripts beside it without its compiler, which takes a second on each rank.

Optimizers and traces import it, and use no more of it than this. Searches for garbage, a third of
the start, are off until the script asks for them again.
"""

import gc
import sys
from types import SimpleNamespace
from typing import Any

gc.disable()

import torch  # noqa: E402

compiler: Any = SimpleNamespace(
    disable=lambda f, *_, **__: f,
    graph_break=lambda: None,
    assume_constant_result=lambda f: f,
)
sys.modules["torch._dynamo"] = torch._dynamo = compiler
