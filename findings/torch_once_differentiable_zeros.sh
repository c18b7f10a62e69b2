#!/usr/bin/env bash
# PyTorch 2.13.0: torch.autograd.functional gives zeros for a function whose backward pass is
# `once_differentiable`, even jvp, which is a first derivative.
#
# Guess: what needs a second derivative of such a function raises "trying to differentiate twice a
# function that was marked with @once_differentiable", as autograd.grad of a gradient does.
# Seen: for f(x) = sum x^3, jvp along v = (1, 1) is 0 (right: sum 3 x^2 v = 15), and hvp, vhp and
# hessian are 0 (right: 6 x). No error and no warning; only strict=True objects, and calls the
# function independent of its input. once_differentiable marks gradients for the error only if the
# incoming cotangent requires grad; that of a sum does not, and jvp (the derivative of the backward
# pass in its cotangent) and the others put zeros where autograd finds no path.
#
# Exits with 0 while that is so. Needs Python 3 and a package index; runs without mgnet.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  torch==2.13.0 numpy==2.2.6
"$folder/venv/bin/python" - <<'PY'
import sys

import torch
from torch.autograd import functional
from torch.autograd.function import once_differentiable


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    @once_differentiable
    def backward(ctx, cotangent):
        (x,) = ctx.saved_tensors
        return 3.0 * x**2 * cotangent


def total(x):
    return Cube.apply(x).sum()


x, v = torch.tensor([1.0, 2.0]), torch.ones(2)
found = {name: getattr(functional, name)(total, x, v)[1] for name in ("jvp", "hvp", "vhp")}
found["hessian"] = functional.hessian(total, x)
right = {"jvp": 15.0, "hvp": (6.0 * x).tolist(), "vhp": (6.0 * x).tolist()}
right["hessian"] = torch.diag(6.0 * x).tolist()
print(f"torch {torch.__version__}")
for name, value in found.items():
    print(f"  {name}: {value.tolist()}, right: {right[name]}")
as_seen = not any(value.any() for value in found.values())

z = x.clone().requires_grad_()
(slope,) = torch.autograd.grad(total(z), z, create_graph=True)
print(f"  gradient with create_graph=True requires grad: {slope.requires_grad}")
as_seen = as_seen and not slope.requires_grad

(slope,) = torch.autograd.grad(Cube.apply(z).square().sum(), z, create_graph=True)
try:
    slope.sum().backward()
    raised = ""
except RuntimeError as error:
    raised = str(error)
print(f"  of sum x^6, whose cotangent requires grad: {raised!r}")
as_seen = as_seen and "once_differentiable" in raised
print("as seen before" if as_seen else "changed: look again")
sys.exit(not as_seen)
PY
