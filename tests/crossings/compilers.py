"""Rows on compilers and exporters."""

import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from crossings.networks import (
    Network,
    batches,
    close,
    data,
    loss_of,
    plainly_trained,
    same_step,
    weights_of,
)
from crossings.rows import row
from torch import Tensor

from mgnet.knots import plain_operators

SECTION = "Compilers and exporters"


def _compiled(network: Network, **options) -> None:
    torch._dynamo.reset()
    module = network.make()
    compiled = torch.compile(module, **options)
    for samples in (12, 12, 20):
        same_step(network, module, compiled, samples=samples)
    with torch.no_grad():
        x, _ = data()
        close(compiled(x), network.plain(weights_of(module), x), "outputs without gradients")


@row(SECTION, '`torch.compile(backend="eager")`')
def compile_eager(network: Network) -> None:
    _compiled(network, backend="eager")


@row(SECTION, '`torch.compile(backend="aot_eager")`', quick=False)
def compile_aot_eager(network: Network) -> None:
    _compiled(network, backend="aot_eager")


@row(SECTION, '`torch.compile(backend="eager", fullgraph=True)`')
def compile_fullgraph(network: Network) -> None:
    _compiled(network, backend="eager", fullgraph=True)


@row(SECTION, "`torch.compile` (inductor)", quick=False)
def compile_inductor(network: Network) -> None:
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        raise RuntimeError("there is no C++ compiler")
    _compiled(network)


@row(SECTION, "`torch.compile` of a whole training step, SGD included", quick=False)
def compile_step(network: Network) -> None:
    def sgd(values: list[Tensor]) -> torch.optim.Optimizer:
        return torch.optim.SGD(values, 0.05, 0.9)

    torch._dynamo.reset()
    module, steps = network.make(), batches(3)
    right = plainly_trained(network, weights_of(module), sgd, steps)
    optimizer = sgd([*module.parameters()])

    @torch.compile(backend="eager")
    def step(x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        loss_of(module(x), y).backward()
        optimizer.step()

    for x, y in steps:
        step(x, y)
    close(weights_of(module), right, "weights")


@row(SECTION, "`torch.export`, saved and loaded, for any batch size")
def export(network: Network) -> None:
    module = network.make()
    x, _ = data()
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(module, (x,), dynamic_shapes=({0: batch},))
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    buffer.seek(0)
    loaded = torch.export.load(buffer).module()
    for samples in (12, 5):
        x, _ = data(samples=samples)
        close(loaded(x), network.plain(weights_of(module), x), "outputs")


ELSEWHERE = """
import sys

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "mgnet":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, NotInstalled())
import torch

x = torch.load("x.pt")
torch.save(torch.export.load("net.pt2").module()(x), "y.pt")
"""


@row(
    SECTION,
    "`torch.export` within `plain_operators`, loaded in a process without mgnet",
    quick=False,
)
def export_plain(network: Network) -> None:
    module = network.make()
    x, _ = data()
    with tempfile.TemporaryDirectory() as folder:
        with plain_operators():
            program = torch.export.export(module, (x,))
        torch.export.save(program, Path(folder) / "net.pt2")
        torch.save(x, Path(folder) / "x.pt")
        subprocess.run([sys.executable, "-c", ELSEWHERE], cwd=folder, check=True)
        found = torch.load(Path(folder) / "y.pt")
    close(found, network.plain(weights_of(module), x), "outputs")


@row(SECTION, "`torch.export` for one batch size")
def export_static(network: Network) -> None:
    module = network.make()
    x, _ = data()
    loaded = torch.export.export(module, (x,)).module()
    close(loaded(x), network.plain(weights_of(module), x), "outputs")


def _onnx(network: Network, **options) -> None:
    import onnxruntime

    module = network.make().float().eval()
    x, _ = data(torch.float32)
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "net.onnx")
        torch.onnx.export(module, (x,), file, verbose=False, **options)
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        got = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    close(
        torch.from_numpy(np.asarray(got)),
        network.plain(weights_of(module), x.double()),
        "outputs",
        1e-5,
    )


@row(
    SECTION,
    "ONNX, `dynamo=True`, run by onnxruntime",
    "onnx",
    "onnxscript",
    "onnxruntime",
    quick=False,
)
def onnx_dynamo(network: Network) -> None:
    _onnx(network, dynamo=True)


@row(
    SECTION,
    "ONNX, `dynamo=False`, run by onnxruntime",
    "onnx",
    "onnxscript",
    "onnxruntime",
    quick=False,
)
def onnx_torchscript(network: Network) -> None:
    _onnx(network, dynamo=False)


def _scripted(network: Network, module: torch.nn.Module, made) -> None:
    buffer = io.BytesIO()
    torch.jit.save(made, buffer)
    buffer.seek(0)
    loaded = torch.jit.load(buffer)
    for samples in (12, 5):
        x, _ = data(samples=samples)
        close(loaded(x), network.plain(weights_of(module), x), "outputs")


@row(SECTION, "`torch.jit.trace`, saved and loaded")
def jit_trace(network: Network) -> None:
    module = network.make()
    _scripted(network, module, torch.jit.trace(module, data()[0]))


@row(SECTION, "`torch.jit.script`, saved and loaded")
def jit_script(network: Network) -> None:
    module = network.make()
    _scripted(network, module, torch.jit.script(module))


@row(SECTION, "`torch.fx.symbolic_trace`")
def fx_trace(network: Network) -> None:
    module = network.make()
    same_step(network, module, torch.fx.symbolic_trace(module))
