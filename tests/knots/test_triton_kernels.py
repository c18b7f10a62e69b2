"""Triton's kernels: right when interpreted, compiled for GPUs without one, chosen by device.

What they must compute is in `triton_cases.py`.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

# Where `make test` insists on Triton, doctests of triton_kernels.py fail without it (conftest.py).
triton = pytest.importorskip("triton")
if triton.knobs.runtime.interpret:
    pytest.skip("TRITON_INTERPRET is set: run triton_cases.py itself", allow_module_level=True)

from mgnet.knots import layer, triton_kernels  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]


def cases(interpreted: str) -> subprocess.CompletedProcess:
    command = "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "tests/knots/triton_cases.py"
    environment = {**os.environ, "TRITON_INTERPRET": interpreted}
    environment.pop("PYTEST_XDIST_WORKER", None)
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True
    )


@pytest.mark.slow
def test_the_cases_hold_interpreted():
    run = cases("1")
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    assert "passed" in run.stdout


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_the_cases_hold_on_a_gpu():
    run = cases("0")
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]


WIDE = {"order": 0, "weighted": True, "rows": 32, "columns": 64, "together": 8}
NARROW = {"order": 1, "weighted": False, "rows": 32, "columns": 1, "together": 8}
ONES = dict.fromkeys(("samples", "inputs", "outputs", "intervals", "parts"), 1)  # 1 is a constant


def compiled(kernel, numbers, degree, constants, target):
    """The kernel for tensors of `numbers`, as a launch would compile it."""
    known = {**constants, "degree": degree, "padded": triton.next_power_of_2(degree + 1)}
    sums = "fp64" if numbers == "fp64" else "fp32"
    pointers = {"table": sums, "sums": sums, "ranks": "i64", "starts": "i64", "keys": "i32"}
    pointers |= dict.fromkeys(("x", "U", "g", "h", "y", "v", "V"), numbers)
    fixed = {name: known[name] for name in kernel.arg_names if name in known}
    signature = {
        name: "constexpr" if name in fixed else f"*{pointers[name]}" if name in pointers else "i32"
        for name in kernel.arg_names
    }
    source = triton.compiler.ASTSource(kernel, signature, fixed)
    return triton.compile(source, target=target, options={"enable_fp_fusion": True})


@pytest.mark.parametrize("name", ["_layer", "_pull", "_intervals", "_run", "_gather"])
@pytest.mark.parametrize("numbers", ["fp32", "fp64", "bf16"])
def test_kernels_compile_for_gpus_and_add_nothing_by_atomics(name, numbers, tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    kernel = getattr(triton_kernels, name)
    for degree, constants, capability in ((3, WIDE, 80), (1, {**NARROW, **ONES}, 90)):
        target = triton.backends.compiler.GPUTarget("cuda", capability, 32)
        made = compiled(kernel, numbers, degree, constants, target).asm
        assert made["cubin"] and not re.search(r"\b(atom|red)\.", made["ptx"])


def on_gpu(dtype):
    return SimpleNamespace(device=torch.device("cuda", 0), is_cuda=True, dtype=dtype)


def test_tensors_of_a_gpu_take_the_kernels_where_they_run(monkeypatch):
    monkeypatch.setattr(triton_kernels, "runs_on", lambda device: device.index == 0)
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        assert layer._kernels(on_gpu(dtype)) is triton_kernels
    assert layer._kernels(on_gpu(torch.float8_e5m2)) is None
    assert layer._kernels(torch.ones(1)) is not triton_kernels
    monkeypatch.setattr(triton_kernels, "runs_on", lambda device: False)
    assert layer._kernels(on_gpu(torch.float32)) is None


def test_without_triton_they_take_plain_torch(monkeypatch):
    monkeypatch.setattr(layer, "has_triton", False)
    assert layer._kernels(on_gpu(torch.float32)) is None
