"""The file contents that a `Checkpoint` writes, and the checks of what it reads.

`docs/training.md`, "Files of checkpoints", describes its entries and the names of its tensors. The
contents are not trusted: a correct digest shows only that a file was not changed by accident.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from mgnet import Progress, Schedule, parse
from mgnet.checkpoint.architecture import check_config, is_kan
from mgnet.checkpoint.storage import is_count
from mgnet.checkpoint.values import Reader, Writer, pieces

__all__ = ["KEYS", "read_fields", "written"]

STATES = "us", "fs", "vs", "rs"
KEYS = {"schedule", "levels", "position", "level", "networks", "smoothers", "memory", "fixed"}
KEYS |= {*STATES, "generators"}
LONGEST_SCHEDULE = 10**7  # characters

Fields = dict[str, Any]


def written(fields: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Build the JSON and the tensors of a checkpoint.

    Parameters
    ----------
    fields : mapping
        The attributes of `Checkpoint`.

    Raises
    ------
    TypeError
        If the memory of a smoother contains objects that cannot be stored, such as factors of
        matrices.
    """
    writer, progress, networks = Writer(), fields["progress"], fields["networks"]
    us: list[Any] = []
    for l, u in enumerate(progress.us):
        told, name = networks[l], f"level{l}"
        if u is not None and told is not None and l <= fields["level"]:
            us.append(writer.pack(u, name, pieces(name, told["trained"], is_kan(told))))
        else:
            us.append(writer.encode(u, f"{name}.state"))
    told = {
        "schedule": progress.schedule.text,
        "levels": len(networks),
        "position": progress.position,
        "level": fields["level"],
        "networks": networks,
        "smoothers": fields["smoothers"],
        "us": us,
        **{k: writer.encode(list(getattr(progress, k)), k) for k in STATES[1:]},
        "memory": [
            [l, role, writer.encode(value, f"memory.{l}.{role}")]
            for (l, role), value in progress.memory.items()
        ],
        "fixed": [[l, writer.encode(dict(e), f"level{l}")] for l, e in fields["fixed"].items()],
        "generators": writer.encode(fields["generators"], "generators"),
    }
    return told, writer.tensors


def read_fields(told: Mapping[str, Any], tensors: dict[str, torch.Tensor]) -> Fields:
    """Read the attributes of a `Checkpoint` from the results of `written`.

    Parameters
    ----------
    told : mapping
        Value of the JSON, which is not trusted.
    tensors : dict
        Tensors by name.

    Raises
    ------
    ValueError
        If an entry is missing or invalid; the message names it.
    RecursionError
        If the values are nested too deeply.
    """
    if set(told) != KEYS:
        raise ValueError(f"its entries differ in {', '.join(sorted(set(told) ^ KEYS))[:100]}")
    levels, level, networks = told["levels"], told["level"], told["networks"]
    per_level = [told[name] for name in (*STATES, "networks", "smoothers")]
    if not all(isinstance(each, list) and len(each) == levels for each in per_level):
        raise ValueError("the numbers of levels differ")
    if not is_count(level) or level >= levels:
        raise ValueError(f"the level {level!r} is not one of {levels}")
    if not all(isinstance(each, str) for each in told["smoothers"]):
        raise ValueError("the names of smoothers are not strings")
    for l, network in enumerate(networks):
        _check_network(l, network)
    schedule = _schedule(told["schedule"], levels)
    position = told["position"]
    if not is_count(position, 1) or position > len(schedule):
        raise ValueError(f"the position {position!r} is not in the schedule")
    packed = {
        f"level{l}": pieces(f"level{l}", networks[l]["trained"], is_kan(networks[l]))
        for l in range(level + 1)
        if networks[l] is not None and told["us"][l] is not None
    }
    for l, state in enumerate(told["us"]):
        if f"level{l}" in packed and not (
            isinstance(state, dict) and state.get("tensor") == f"level{l}"
        ):
            raise ValueError(f"the state of level {l} is not that of its network")
    reader = Reader(tensors, packed)
    us, fs, vs, rs = (tuple(reader.decode(state) for state in told[name]) for name in STATES)
    memory = _by_key(told["memory"], 3, levels, reader)
    progress = Progress(schedule, position, us, fs, vs, rs, memory)
    _check_states(progress, level, packed)
    fixed = _by_key(told["fixed"], 2, levels, reader)
    for l, entries in fixed.items():
        network = networks[l] or {"trained": {}, "tied": {}}
        if not _are(entries, torch.Tensor) or {*network["trained"], *network["tied"]} & set(
            entries
        ):
            raise ValueError("the other tensors of networks must not be trained parameters")
    generators = reader.decode(told["generators"])
    if not _are(generators, dict) or any(set(g) != {"kind", "state"} for g in generators.values()):
        raise ValueError("the states of generators are not dicts of kind and state")
    reader.finish()
    return {
        "progress": progress,
        "level": level,
        "networks": tuple(networks),
        "smoothers": tuple(told["smoothers"]),
        "fixed": fixed,
        "generators": generators,
    }


def _schedule(text: Any, levels: int) -> Schedule:
    """Read the schedule from a list of steps; a short text such as "W(1,1)" may mean very many."""
    if not isinstance(text, str) or len(text) > LONGEST_SCHEDULE:
        raise ValueError("the schedule is not a string, or it is too long")
    if "(" in text or "cascade" in text:
        raise ValueError(f"the schedule {text[:40]!r} is not a list of steps")
    schedule = parse(text, levels)
    if schedule.text != text:
        raise ValueError(f"the schedule {text[:40]!r} has a step in another form")
    return schedule


def _check_network(l: int, told: Any) -> None:
    if told is None:
        return
    if not isinstance(told, dict) or not isinstance(told.get("kind"), str):
        raise ValueError(f"the network of level {l} has no kind")
    trained, tied = told.get("trained"), told.get("tied")
    if not isinstance(trained, dict) or not all(map(_is_shape, trained.values())) or not trained:
        raise ValueError(f"the trained parameters of level {l} have no shapes")
    if not isinstance(tied, dict) or not all(
        isinstance(other, str) and other in trained for other in tied.values()
    ):
        raise ValueError(f"the tied parameters of level {l} are not among the trained ones")
    rest = {key: value for key, value in told.items() if key not in ("trained", "tied")}
    if is_kan(told):
        check_config(rest)
    elif set(rest) != {"kind", "shapes"} or not isinstance(rest["shapes"], dict):
        raise ValueError(f"the network of level {l} is not described by its shapes")
    elif not all(map(_is_shape, rest["shapes"].values())):
        raise ValueError(f"the tensors of level {l} have no shapes")


def _check_states(progress: Progress, level: int, packed: Mapping[str, Any]) -> None:
    """Check that the states with which the next steps begin exist (see `Progress`)."""
    schedule, position, us, _, _, rs, _ = progress
    under_way: list[int] = []
    for action, l, _ in schedule[:position]:
        if action == "down":
            under_way.append(l)
        elif action == "up":
            under_way.pop()
    last = schedule[position - 1]
    current = last.level + (last.action == "down")
    missing = [l for l in (current, *under_way) if us[l] is None]
    missing += [l for l in under_way if rs[l] is None]
    if level > current or missing:
        raise ValueError(f"it has no state of level {[*missing, level][0]} after {position} steps")
    for state in (state for states in progress[2:6] for state in states):
        if state is not None and not isinstance(state, torch.Tensor | np.ndarray):
            raise ValueError(f"a state is of type {type(state).__name__}, which is not an array")
    for name in packed:
        u = us[int(name.removeprefix("level"))]
        if not isinstance(u, torch.Tensor) or u.dim() != 1 or not bool(u.isfinite().all()):
            raise ValueError(f"the weights of {name} are not finite")


def _by_key(entries: Any, parts: int, levels: int, reader: Reader) -> dict[Any, Any]:
    """[[level, encoded], ...] or [[level, role, encoded], ...], each key once."""
    found: dict[Any, Any] = {}
    for entry in entries if isinstance(entries, list) else [None]:
        if not isinstance(entry, list) or len(entry) != parts or not is_count(entry[0]):
            raise ValueError(f"{parts} parts, of which the first is a level, are expected")
        key = entry[0] if parts == 2 else (entry[0], entry[1])
        if parts == 3 and not isinstance(entry[1], str):
            raise ValueError(f"{entry[1]!r} is not a role of a smoother")
        if entry[0] >= levels or key in found:
            raise ValueError(f"the level {entry[0]} is not one of {levels}, or occurs twice")
        found[key] = reader.decode(entry[-1])
    return found


def _are(entries: Any, kind: type) -> bool:
    """Whether the entries are a dict that maps names to values of this kind."""
    return isinstance(entries, dict) and all(
        isinstance(name, str) and isinstance(value, kind) for name, value in entries.items()
    )


def _is_shape(shape: Any) -> bool:
    return isinstance(shape, list) and all(map(is_count, shape)) and math.prod(shape) < 2**63
