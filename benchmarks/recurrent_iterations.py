"""The part `iterations` of recurrent.py: cycles and Newton sweeps, and errors against PyTorch."""

import statistics
import warnings
from collections.abc import Sequence

import saved
import torch
from torch import Tensor, nn

from mgnet.depth import CyclesToTolerance, TimeParallel

TIGHT, MOST = 1e-11, 50
LARGEST = 0.4  # GB of dense Jacobians that are tried
METHODS = {  # levels, cycle
    "V, 2 levels": (2, "V"),
    "V, 3 levels": (3, "V"),
    "F, 3 levels": (3, "F"),
    "Newton, dense": (1, "newton"),
    "Newton, diagonal": (1, "newton(diagonal)"),
}


def gradients(call: nn.Module, x: Tensor, weights: Sequence[Tensor]) -> list[Tensor]:
    """Output, last state, and the gradients with respect to input and weights."""
    y, last = call(x)
    found = torch.autograd.grad(y.square().mean(), [x, *weights])
    lasts = last if isinstance(last, tuple) else (last,)
    return [each.detach() for each in (y, *lasts, *found)]


def iterations(module: nn.RNNBase, x: Tensor, method: str, tolerance: float) -> str:
    """Forward and backward; a bound where those were not enough."""
    levels, cycle = METHODS[method]
    control = CyclesToTolerance(tolerance, max_cycles=MOST)
    parallel = TimeParallel(module, levels, control=control, cycle=cycle)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        gradients(parallel, x, [*module.parameters()])
    if any("step by step" in str(each.message) for each in told):
        return f"more than {MOST}"
    return f"{parallel.last_forward.cycles}, {parallel.last_backward.cycles}"


def median(found: list[str]) -> str:
    """The medians of pairs; the bound if there is one."""
    pairs = [each.split(", ") for each in found]
    if any(len(pair) == 1 for pair in pairs):
        return next(each for each in found if ", " not in each)
    return ", ".join(f"{statistics.median(map(int, each)):g}" for each in zip(*pairs, strict=True))


def errors(module: nn.RNNBase, x: Tensor) -> tuple[float, float]:
    """Relative, of output and last state, and the largest of all gradients."""
    weights, states = [*module.parameters()], 3 if isinstance(module, nn.LSTM) else 2
    parallel = TimeParallel(module, control=CyclesToTolerance(TIGHT, max_cycles=MOST))
    pairs = zip(gradients(parallel, x, weights), gradients(module, x, weights), strict=True)
    found = [float((a - b).norm() / b.norm()) for a, b in pairs]
    return max(found[:states]), max(found[states:])


def gigabytes(kind: str, steps: int, width: int) -> float:
    """Bytes of the dense Jacobians of a sample."""
    return 8e-9 * steps * (width * (2 if kind == "LSTM" else 1)) ** 2


def measure(modules: list[nn.RNNBase], kind: str, steps: int, width: int) -> saved.Row:
    """A row, of one module for each seed."""
    torch.manual_seed(0)
    counts: dict[str, list[str]] = {method: [] for method in METHODS}
    found = []
    for module in modules:
        module = module.double()
        x = torch.randn(steps, 1, width, dtype=torch.float64).requires_grad_()
        for method, told in counts.items():
            size = gigabytes(kind, steps, width)
            if method == "Newton, dense" and size > LARGEST:
                told.append(f"not run: {size:.1f} GB")
            else:
                told.append(iterations(module, x, method, 1e-6))
        found.append(errors(module, x))
    row: saved.Row = {method: median(told) for method, told in counts.items()}
    forward, backward = zip(*found, strict=True)
    return row | {"error_forward": max(forward), "error_gradients": max(backward)}


def line(row: saved.Row) -> str:
    where = f"{row['kind']:<6}{row['steps']:>6}{row['width']:>7}  {row['memory']:<13}"
    counts = "".join(f"{row[method]:>18}" for method in METHODS)
    return f"{where}{counts}{row['error_forward']:>12.1e}{row['error_gradients']:>12.1e}"


def heads() -> str:
    counts = "".join(f"{method:>18}" for method in METHODS)
    return (
        f"{'':<6}{'steps':>6}{'width':>7}  {'memory':<13}{counts}{'forward':>12}{'gradients':>12}"
    )


def targets(rows: list[saved.Row]) -> list[saved.Row]:
    worst = max(max(row["error_forward"], row["error_gradients"]) for row in rows)
    name = f"largest relative error of output and gradients, tolerance {TIGHT:g}"
    return [saved.target(name, "at most 1e-8", f"{worst:.1e}", worst <= 1e-8)]
