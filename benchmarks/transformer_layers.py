"""Layer-parallel propagation of a small GPT: what a coarse layer should be, and how layers begin.

    OMP_NUM_THREADS=1 python benchmarks/transformer_layers.py [--seeds 1 2 3 4 5] [--layers 32]
        [--steps 300] [--parts cycles training speed] [--save]

A byte-level GPT on the text of Python's standard library: width 64, 4 heads, 32 bytes, batches of
8, T = 1, AdamW with rate 2e-3. Layers begin independently (PyTorch's own start) or identically.

cycles     the relative error of the last state after the cascade and k cycles, factor 4,
           F-relaxation, for each kind of coarse layer, before training and after `steps` steps
training   100 steps by one cycle each way (FCF never): error of the gradient at the end, held-out
           loss evaluated serially, beside serial training from the same start
speed      one layer of width 128 with 512 tokens: evaluation with backward pass over that of the
           same module in PyTorch; seconds of a first call with a new length, after three others

Medians over the seeds, with the smallest and the largest. Processor seconds, one thread.
"""

import argparse
import itertools
import os
import statistics
import sysconfig
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import saved
import torch
from torch import nn
from torch.nn import functional

from mgnet.depth import FixedCycles, LayerParallel, ODENet, parameter_groups

COARSE = "mean", "first", "fused", "identity"
CONTEXT, BATCH = 32, 8


class Block(nn.Module):
    """What a layer adds: attention to earlier bytes, then a feed-forward network.

    With a window attention is to that many bytes, the last of them the byte itself.
    """

    def __init__(self, width: int = 64, heads: int = 4, window: int = 0):
        super().__init__()
        self.width, self.heads, self.window = width, heads, window
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        batch, length, _ = u.shape
        parts = self.qkv(self.norm1(u)).view(batch, length, 3, self.heads, -1).unbind(2)
        heads = [x.transpose(1, 2) for x in parts]
        near = None
        if self.window:
            near = torch.ones(length, length, dtype=torch.bool).tril().triu(1 - self.window)
        mixed = functional.scaled_dot_product_attention(
            *heads, attn_mask=near, is_causal=near is None
        )
        attended = self.out(mixed.transpose(1, 2).reshape(batch, length, self.width))
        return attended + self.down(functional.gelu(self.up(self.norm2(u + attended))))


class Embedding(nn.Module):
    """Bytes and their places -> the state."""

    def __init__(self, width: int = 64, context: int = CONTEXT):
        super().__init__()
        self.bytes, self.places = nn.Embedding(256, width), nn.Embedding(context, width)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        return self.bytes(text) + self.places.weight[: text.shape[1]]


def texts() -> tuple[np.ndarray, np.ndarray]:
    """Bytes for training, and every tenth file."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    parts = [file.read_bytes() for file in files]
    both = b"".join(t for n, t in enumerate(parts) if n % 10), b"".join(parts[::10])
    return tuple(np.frombuffer(each, np.uint8) for each in both)  # type: ignore[return-value]


def windows(
    text: np.ndarray, count: int, rng: np.random.Generator, context: int = CONTEXT
) -> torch.Tensor:
    starts = rng.integers(0, len(text) - context - 1, count)
    return torch.from_numpy(text[starts[:, None] + np.arange(context + 1)].astype(np.int64))


def made(layers: int, seed: int, start: str) -> ODENet:
    torch.manual_seed(seed)
    ends: dict[str, Any] = {"before": Embedding()}
    ends["after"] = nn.Sequential(nn.LayerNorm(64), nn.Linear(64, 256))
    if start == "identical":
        return ODENet(Block(), layers, start=start, **ends)
    return ODENet(lambda n: Block(), layers, **ends)


def loss_of(module: nn.Module, rows: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(module(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())


def train(module: nn.Module, steps: int, seed: int) -> None:
    text, rng = texts()[0], np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(parameter_groups(module, 0.1), lr=2e-3, betas=(0.9, 0.95))
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(module, windows(text, BATCH, rng)).backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()


def cycles(layers: int, steps: int, seed: int) -> list[dict[str, Any]]:
    rows = []
    for start in ("independent", "identical"):
        net = made(layers, seed, start)
        x = windows(texts()[1], BATCH, np.random.default_rng(1))[:, :-1]
        for trained in (0, steps):
            if trained:
                train(net, steps, seed)
            with torch.no_grad():
                u = net.encode(x)
                wanted = net.propagate(u)
                for coarse, count in itertools.product(COARSE, range(5)):
                    parallel = LayerParallel(
                        net, 2, 4, control=FixedCycles(count, tolerance=9e9), coarse=coarse,
                        relaxation=("F",),
                    )  # fmt: skip
                    error = float((parallel._propagate(u, "mgrit", {}) - wanted).norm())
                    about = {"part": "cycles", "start": start, "steps": trained, "coarse": coarse}
                    rows.append(about | {"cycles": count, "value": error / float(wanted.norm())})
    return rows


def gradient(module: nn.Module, rows: torch.Tensor) -> torch.Tensor:
    parameters = list(module.parameters())
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss_of(module, rows), parameters)])


def training(layers: int, seed: int) -> list[dict[str, Any]]:
    held_out = windows(texts()[1], 256, np.random.default_rng(1))
    rows = []
    for start in ("independent", "identical"):
        for coarse in ("serial", "mean", "fused"):
            net = made(layers, seed, start)
            module: Any = net
            if coarse != "serial":
                control = FixedCycles(1, tolerance=9e9)
                module = LayerParallel(net, 2, 4, control=control, coarse=coarse)
            train(module, 100, seed)
            with torch.no_grad():
                value = float(loss_of(net, held_out))
            about = {"part": "training", "start": start, "coarse": coarse}
            rows.append(about | {"what": "held-out loss", "value": value})
            if coarse != "serial":
                exact = gradient(net, held_out[:BATCH])
                error = float((gradient(module, held_out[:BATCH]) - exact).norm() / exact.norm())
                rows.append(about | {"what": "gradient error", "value": error})
    return rows


def median_seconds(function: Any, rounds: int = 15) -> float:
    times = []
    for _ in range(rounds):
        began = time.process_time()
        function()
        times.append(time.process_time() - began)
    return statistics.median(times)


def speed(seed: int) -> list[dict[str, Any]]:
    torch.manual_seed(seed)
    net = ODENet(lambda n: Block(128), 8)
    block, kernel, layers = net.layer(0).block, net.kernel, net.layers()
    x, one = torch.randn(8, 64, 128), layers[:1]

    def eager() -> None:
        block(x.clone().requires_grad_()).backward(x)

    def ours() -> None:
        kernel.record(one, x[None]).vjp_all(x[None])

    ratio = median_seconds(ours) / median_seconds(eager)
    parallel, seconds = LayerParallel(net, 2, 2), []
    for length in (8, 9, 10, 11, 12, 13):
        u = torch.randn(2, length, 128)
        seconds.append(median_seconds(lambda u=u: parallel(u).sum().backward(), 1))
    again = median_seconds(lambda: parallel(u).sum().backward())
    return [
        {"part": "speed", "what": "evaluation over PyTorch's", "value": ratio},
        {"part": "speed", "what": "a new length, seconds", "value": max(seconds[3:]) - again},
    ]


def table_rows(runs: list[dict[str, Any]]) -> list[saved.Row]:
    groups: dict[tuple[Any, ...], list[float]] = {}
    for run in runs:
        key = tuple((k, v) for k, v in run.items() if k not in ("seed", "value"))
        groups.setdefault(key, []).append(run["value"])
    return [
        dict(key)
        | {"seeds": len(values), "value_median": statistics.median(values)}
        | {"value_least": min(values), "value_largest": max(values)}
        for key, values in groups.items()
    ]


def targets_of(rows: list[saved.Row]) -> list[saved.Row]:
    def value(**wanted: Any) -> float | None:
        for row in rows:
            if all(row.get(key) == each for key, each in wanted.items()):
                return row["value_median"]
        return None

    told = []
    steps = max((row.get("steps", 0) for row in rows), default=0)
    fused = value(part="cycles", start="independent", steps=steps, coarse="fused", cycles=1)
    if fused is not None:
        told.append(saved.target("fused layers, error after one cycle", "at most 2e-2",
                                 f"{fused:.1e}", fused <= 2e-2))  # fmt: skip
    alike = {"part": "training", "start": "identical"}
    error = value(**alike, coarse="mean", what="gradient error")
    losses = [value(**alike, coarse=c, what="held-out loss") for c in ("serial", "mean")]
    if error is not None and None not in losses:
        behind = losses[1] - losses[0]  # type: ignore[operator]
        told.append(saved.target("layers that begin alike, gradient error", "at most 0.1",
                                 f"{error:.2g}", error <= 0.1))  # fmt: skip
        told.append(saved.target("and held-out loss behind serial training", "at most 0.01",
                                 f"{behind:.3f}", behind <= 0.01))  # fmt: skip
    for what, most in (("evaluation over PyTorch's", 1.15), ("a new length, seconds", 0.2)):
        found = value(part="speed", what=what)
        if found is not None:
            told.append(saved.target(what, f"at most {most:g}", f"{found:.2f}", found <= most))
    return told


def table(rows: list[saved.Row]) -> str:
    lines = []
    for part in dict.fromkeys(row["part"] for row in rows):
        lines.append(part)
        for row in rows:
            if row["part"] == part:
                skip = "part", "value_median", "value_least", "value_largest"
                about = ", ".join(f"{v} {k}" if isinstance(v, int) else str(v)
                                  for k, v in row.items() if k not in skip)  # fmt: skip
                spread = f"{row['value_least']:.2g} to {row['value_largest']:.2g}"
                lines.append(f"  {about:<58}{row['value_median']:>10.3g}   {spread}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--steps", type=int, default=300)
    parts = ("cycles", "training", "speed")
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts))
    saved.add_option(parser)
    told = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    warnings.simplefilter("ignore")  # of estimated errors: few cycles are meant
    runs = []
    for seed in told.seeds:
        found = []
        if "cycles" in told.parts:
            found += cycles(told.layers, told.steps, seed)
        if "training" in told.parts:
            found += training(told.layers, seed)
        if "speed" in told.parts:
            found += speed(seed)
        runs += [row | {"seed": seed} for row in found]
    rows = table_rows(runs)
    targets = targets_of(rows)
    lines = [f"{t['name']}, {t['target']}: {t['measured']}{'' if t['met'] else ', missed'}"
             for t in targets]  # fmt: skip
    text = "\n".join([saved.heading(), "", table(rows), "", *lines])
    print(text)
    if told.save:
        setting = "medians over seeds; errors are relative"
        saved.save(told.save, "transformer_layers", setting, rows, targets, text)


if __name__ == "__main__":
    main()
