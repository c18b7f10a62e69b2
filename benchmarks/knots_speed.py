"""Spline layers beside those of efficient-kan, FastKAN and pykan, and beside Linear + SiLU.

    python benchmarks/knots_speed.py [--efficient-kan DIR] [--fast-kan DIR] [--pykan DIR]
        [--grids 5 32 128 512] [--device cpu] [--save]

DIR is a checkout of the peer. Without one, "Cox-de Boor" stands for efficient-kan: the same
algorithm, all splines by the recursion and one product, with the same SiLU branch. Float32, cubic
splines, forward and backward, gradients of inputs and of all weights. All take turns (mgnet, peer,
peer, ..., mgnet, ...); a time is the median of the rounds, a ratio the median of the ratios within
the rounds; who took more than two seconds on a grid is left out on the next. "fused" are the
compiled loops of the extra `fast`. Memory is the peak of what torch allocates in one forward and
backward pass, without weights and their gradients.
"""

import argparse
import contextlib
import importlib.util
import io
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import saved
import torch
from torch.profiler import ProfilerActivity, profile

from mgnet.knots import KAN, layer

GRIDS = (5, 32, 128, 512)
ROUNDS = 3
Make = Callable[[list[int], int], torch.nn.Module]


class CoxDeBoor(torch.nn.Module):
    """All splines at every input by the recursion, then one product: as efficient-kan does."""

    def __init__(self, inputs: int, outputs: int, intervals: int, degree: int = 3):
        super().__init__()
        steps = torch.arange(-degree, intervals + degree + 1)
        self.register_buffer("knots", 2.0 * steps / intervals - 1.0)
        self.degree = degree
        self.base = torch.nn.Linear(inputs, outputs, bias=False)
        self.splines = torch.nn.Linear(inputs * (intervals + degree), outputs, bias=False)

    def basis(self, x: torch.Tensor) -> torch.Tensor:
        t: Any = self.knots
        at = x.unsqueeze(-1)
        basis = ((at >= t[:-1]) & (at < t[1:])).to(x.dtype)
        for k in range(1, self.degree + 1):
            rise = (at - t[: -k - 1]) / (t[k:-1] - t[: -k - 1])
            fall = (t[k + 1 :] - at) / (t[k + 1 :] - t[1:-k])
            basis = rise * basis[..., :-1] + fall * basis[..., 1:]
        return basis

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        smooth = self.base(torch.nn.functional.silu(x))
        return smooth + self.splines(self.basis(x).flatten(-2))


class Ours(torch.nn.Module):
    """A KAN with a given form of the splines."""

    def __init__(self, widths: list[int], intervals: int, fused: bool):
        super().__init__()
        self.kan = KAN(widths, intervals, dtype=torch.float32)
        self.fused = fused

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        layer.compiled = self.fused
        return self.kan(x)


def stacked(make: Callable[[int, int, int], torch.nn.Module]) -> Make:
    def network(widths: list[int], grid: int) -> torch.nn.Module:
        pairs = zip(widths[:-1], widths[1:], strict=True)
        return torch.nn.Sequential(*(make(p, q, grid) for p, q in pairs))

    return network


def linear_silu(widths: list[int], grid: int) -> torch.nn.Module:
    parts: list[torch.nn.Module] = []
    for p, q in zip(widths[:-1], widths[1:], strict=True):
        parts += [torch.nn.Linear(p, q), torch.nn.SiLU()]
    return torch.nn.Sequential(*parts)


def imported(name: str, file: Path) -> Any:
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None or not file.is_file():
        raise FileNotFoundError(f"{file} is not there; give a checkout of the peer")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def contenders(options: argparse.Namespace) -> dict[str, Make]:
    found: dict[str, Make] = {}
    if layer.compiled:
        found["fused"] = lambda widths, grid: Ours(widths, grid, True)
    found["torch"] = lambda widths, grid: Ours(widths, grid, False)
    found["Linear+SiLU"] = linear_silu
    found["Cox-de Boor"] = stacked(CoxDeBoor)
    if options.efficient_kan:
        peer = imported("efficient_kan", options.efficient_kan / "src/efficient_kan/kan.py")
        found["efficient-kan"] = stacked(lambda p, q, grid: peer.KANLinear(p, q, grid_size=grid))
    if options.fast_kan:
        fast = imported("fastkan", options.fast_kan / "fastkan/fastkan.py")
        found["FastKAN"] = stacked(
            lambda p, q, grid: fast.FastKANLayer(p, q, num_grids=grid, use_layernorm=p > 1)
        )
    if options.pykan:
        sys.path.insert(0, str(options.pykan))
        with contextlib.redirect_stdout(io.StringIO()):
            from kan.KANLayer import KANLayer  # type: ignore

        class Layer(torch.nn.Module):
            def __init__(self, p: int, q: int, grid: int):
                super().__init__()
                self.layer = KANLayer(p, q, num=grid, k=3, device=str(options.device))

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.layer(x)[0]

        found["pykan"] = stacked(Layer)
    return found


def step(network: torch.nn.Module, x: torch.Tensor) -> None:
    parameters = [p for p in network.parameters() if p.requires_grad]
    y = network(x)
    torch.autograd.grad(y, [x, *parameters], torch.ones_like(y), allow_unused=True)


def pinn(network: torch.nn.Module, x: torch.Tensor) -> None:
    """Burgers' residual u_t + u u_x - nu u_xx, squared, and its gradient."""
    u = network(x)
    (first,) = torch.autograd.grad(u.sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first[:, 0].sum(), x, create_graph=True)
    residual = first[:, 1] + u[:, 0] * first[:, 0] - 0.01 * second[:, 0]
    parameters = [p for p in network.parameters() if p.requires_grad]
    torch.autograd.grad(residual.square().mean(), parameters, allow_unused=True)


def seconds(work: Callable[[], None], device: torch.device) -> float:
    """Seconds of one call: the median of as many calls as fit in 0.2 s."""
    times: list[float] = []
    while sum(times) < 0.2:
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def peak(work: Callable[[], None], network: torch.nn.Module, device: torch.device) -> float:
    """MiB allocated at most during one call, without the gradients of the weights."""
    gradients = sum(p.numel() * p.element_size() for p in network.parameters())
    if device.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        return (torch.cuda.max_memory_allocated() - before - gradients) / 2**20
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as told:
        work()
    now = most = 0
    events: Any = told.profiler.kineto_results.events()  # type: ignore[union-attr]
    for event in events:
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return (most - gradients) / 2**20


def compare(
    title: str,
    threads: int,
    widths: list[int],
    batch: int,
    grids: tuple[int, ...],
    makers: dict[str, Make],
    run: Callable[[torch.nn.Module, torch.Tensor], None],
    device: torch.device,
) -> list[saved.Row]:
    """A row per grid and contender; `ratio_fused` is its time over that of our fused form."""
    rows: list[saved.Row] = []
    slow: set[str] = set()
    for grid in grids:
        x = (2.0 * torch.rand(batch, widths[0], device=device) - 1.0).requires_grad_()
        works, networks = {}, {}
        for name in [name for name in makers if name not in slow]:
            make = makers[name]
            torch.manual_seed(0)
            networks[name] = make(widths, grid).to(device)
            works[name] = lambda network=networks[name], x=x: run(network, x)
            works[name]()
        times: dict[str, list[float]] = {name: [] for name in works}
        for _ in range(ROUNDS):
            for name, work in works.items():
                times[name].append(seconds(work, device))
        for name, peer in times.items():
            row: saved.Row = {"case": title, "threads": threads, "grid": grid, "method": name}
            row["ms"] = 1e3 * statistics.median(peer)
            for ours in [name for name in ("fused", "torch") if name in times]:
                ratios = (a / b for a, b in zip(peer, times[ours], strict=True))
                row[f"ratio_{ours}"] = statistics.median(ratios)
            row["mib"] = peak(works[name], networks[name], device)
            rows.append(row)
        slow |= {name for name, values in times.items() if statistics.median(values) > 2.0}
    return rows


THREADS = "threads: layer 64 -> 64, batch 1024, forward + backward, alternating on one and two"


def gains(make: Make, grids: tuple[int, ...]) -> list[saved.Row]:
    """The layer on one thread and on two, alternating; `ratio_fused`: time over that on two."""
    rows: list[saved.Row] = []
    for grid in grids:
        torch.manual_seed(0)
        network = make([64, 64], grid)
        x = (2.0 * torch.rand(1024, 64) - 1.0).requires_grad_()
        times: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(100):
            for threads, measured in times.items():
                torch.set_num_threads(threads)
                step(network, x)
                began = time.perf_counter()
                for _ in range(3):
                    step(network, x)
                measured.append((time.perf_counter() - began) / 3)
        for threads, measured in times.items():
            ratios = sorted(a / b for a, b in zip(measured, times[2], strict=True))
            row: saved.Row = {"case": THREADS, "threads": threads, "grid": grid, "method": "fused"}
            row |= {"ms": 1e3 * statistics.median(measured), "ms_least": 1e3 * min(measured)}
            row |= {"ratio_fused": statistics.median(ratios)}
            rows.append(row | {"ratio_lower": ratios[25], "ratio_upper": ratios[74]})
    return rows


def gains_table(rows: list[saved.Row]) -> str:
    """Of `gains`."""
    lines = [f"\n{rows[0]['case']}; medians of 100 rounds"]
    for one, two in zip(rows[::2], rows[1::2], strict=True):
        told = f"{one['ms']:.3f} ms on one, {two['ms']:.3f} on two, ratio {one['ratio_fused']:.2f}"
        middle = f"{one['ratio_lower']:.2f} to {one['ratio_upper']:.2f} in half of the rounds"
        least = f"least {one['ms_least']:.3f} and {two['ms_least']:.3f} ms"
        lines.append(f"  grid {one['grid']}: {told} ({middle}); {least}")
    return "\n".join(lines)


def table(rows: list[saved.Row]) -> str:
    """A row for a case and a number of threads; a dash where a library was left out."""
    names = dict.fromkeys(row["method"] for row in rows)
    threads = rows[0]["threads"]
    where = f", {threads} thread{'s' * (threads > 1)}" if threads else ""
    lines = [f"\n{rows[0]['case']}{where}", "  " + " " * 16 + "".join(f"{n:>16}" for n in names)]
    for grid in dict.fromkeys(row["grid"] for row in rows):
        own = {row["method"]: row for row in rows if row["grid"] == grid}
        keys = [(f"grid {grid}, ms", "ms", 3), ("  memory, MiB", "mib", 1)]
        for ours in [name for name in ("torch", "fused") if name in own]:
            keys.insert(1, (f"  time / {ours}", f"ratio_{ours}", 2))
        for label, key, digits in keys:
            cells = (f"{own[n][key]:.{digits}f}" if n in own else "-" for n in names)
            lines.append(f"  {label:<16}" + "".join(f"{cell:>16}" for cell in cells))
    return "\n".join(lines)


def targets(rows: list[saved.Row]) -> list[saved.Row]:
    """What we had set ourselves for the layer, in the form that is there."""
    ours = "fused" if any(row["method"] == "fused" for row in rows) else "torch"
    found: list[saved.Row] = []
    of_layer = [row for row in rows if row["case"].startswith("layer")]
    for row in of_layer:
        if row["method"] == "Linear+SiLU" and row["grid"] == 5 and row["threads"] < 2:
            times = 1.0 / row[f"ratio_{ours}"]
            name = f"time of the {ours} layer over Linear + SiLU of the same width, grid 5"
            found.append(saved.target(name, "at most 3", f"{times:.1f}", times <= 3.0))
    for row in of_layer:
        if row["method"] == "FastKAN" and row["grid"] == 5:
            times, threads = (
                1.0 / row[f"ratio_{ours}"],
                f"{row['threads']} thread{'s' * (row['threads'] > 1)}",
            )
            name = f"time of the {ours} layer over FastKAN's, grid 5, {threads}"
            found.append(saved.target(name, "at most 1", f"{times:.2f}", times <= 1.0))
    ratios = [row["ratio_fused"] for row in rows if row["case"] == THREADS and row["threads"] < 2]
    if ratios:
        name = "time of the fused layer on one thread over that on two, all grids"
        told = f"{min(ratios):.2f} to {max(ratios):.2f}"
        found.append(saved.target(name, "at least 1.6", told, min(ratios) >= 1.6))
    return found


def main(options: argparse.Namespace) -> None:
    makers = contenders(options)
    device = torch.device(options.device)
    lines = [saved.heading(), f"device {device}; time / mgnet > 1: mgnet is faster"]
    print("\n".join(lines))
    on_cpu, grids = device.type == "cpu", tuple(options.grids)
    rows: list[saved.Row] = []
    cases = [
        (title, threads, widths, batch, grids, makers, step)
        for threads in ((1, 2) if on_cpu else (0,))
        for title, widths, batch in (
            ("layer 64 -> 64, batch 1024, forward + backward", [64, 64], 1024),
            ("network [2, 16, 16, 1], batch 4096, forward + backward", [2, 16, 16, 1], 4096),
        )
    ]
    title = "network [2, 16, 16, 1], batch 1024, Burgers' residual and its gradient"
    chosen = {name: make for name, make in makers.items() if name != "pykan"}
    cases.append((title, int(on_cpu), [2, 16, 16, 1], 1024, (64,), chosen, pinn))
    for case in cases:
        torch.set_num_threads(case[1] or 1)
        of_case = compare(*case, device)
        rows += of_case
        lines.append(table(of_case))
        print(lines[-1], flush=True)
    if on_cpu and "fused" in makers:
        of_case = gains(makers["fused"], grids)
        rows += of_case
        lines.append(gains_table(of_case))
        print(lines[-1], flush=True)
    if options.save:
        setting = f"float32, device {device}, medians of {ROUNDS} alternating rounds"
        saved.save(options.save, "knots_speed", setting, rows, targets(rows), "\n".join(lines))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name in ("efficient-kan", "fast-kan", "pykan"):
        parser.add_argument(f"--{name}", type=Path, metavar="DIR")
    parser.add_argument("--grids", type=int, nargs="+", default=GRIDS)
    parser.add_argument("--device", default="cpu")
    saved.add_option(parser)
    main(parser.parse_args())
