"""Ours."""

from typing import Any
from zoo_problems import Problem


def mgnet_methods(problem: Problem) -> dict[str, Any]:
    return {}
