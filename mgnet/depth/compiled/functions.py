"""Functions of vectors, as LLVM code: PyTorch's own are not at hand inside a compiled loop.

Errors are a few units in the last place, tested against NumPy in both precisions. Coefficients of
`tanh` near 0: S. L. Moshier, Cephes mathematical library; `exp` is its Taylor series after the
usual reduction to |r| <= ln(2) / 2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.extending import intrinsic

from mgnet.simd import map_vectors

__all__ = ["exp", "gate", "gate_slope", "rectify", "root", "sigmoid", "step", "tanh"]

LN2 = {32: (0.693359375, -2.12194440e-4), 64: (6.93145751953125e-1, 1.42860682030941723212e-6)}
TERMS = {32: 7, 64: 13}
LARGEST = {32: (-104.0, 89.0), 64: (-746.0, 710.0)}  # beyond, exp is 0 or infinite
TANH = {
    32: (
        (
            -5.70498872745e-3,
            2.06390887954e-2,
            -5.37397155531e-2,
            1.33314422036e-1,
            -3.33332819422e-1,
        ),
        (),
    ),
    64: (
        (-9.64399179425052238628e-1, -9.92877231001918586564e1, -1.61468768441708447952e3),
        (1.0, 1.12811678491632931402e2, 2.23548839060100448583e3, 4.84406305325125486048e3),
    ),
}


def _bits(x: Any) -> int:
    return 32 if isinstance(x.type.element, ir.FloatType) else 64


def _constant(x: Any, number: float) -> Any:
    return ir.Constant(x.type, [float(number)] * x.type.count)


def _call(builder: Any, name: str, *given: Any) -> Any:
    x = given[0]
    name = f"llvm.{name}.v{x.type.count}f{_bits(x)}"
    function = builder.module.globals.get(name)
    if function is None:
        function = ir.Function(builder.module, ir.FunctionType(x.type, [x.type] * len(given)), name)
    return builder.call(function, given)


def _polynomial(builder: Any, x: Any, coefficients: Sequence[float]) -> Any:
    total = _constant(x, coefficients[0])
    for each in coefficients[1:]:
        total = _call(builder, "fmuladd", total, x, _constant(x, each))
    return total


def _two_to(builder: Any, k: Any, like: Any) -> Any:
    """2^k for a vector of integers, by the bits of the exponent."""
    bits = _bits(like)
    fraction, bias = (23, 127) if bits == 32 else (52, 1023)

    def whole(number: int) -> Any:
        return ir.Constant(k.type, [number] * k.type.count)

    shifted = builder.shl(builder.add(k, whole(bias)), whole(fraction))
    return builder.bitcast(shifted, like.type)


def _exp(builder: Any, x: Any) -> Any:
    bits = _bits(x)
    low, high = LARGEST[bits]
    # maxnum and minnum drop NaN, which comes back by the last sum.
    held = _call(
        builder, "minnum", _call(builder, "maxnum", x, _constant(x, low)), _constant(x, high)
    )
    k = _call(builder, "rint", builder.fmul(held, _constant(x, 1.0 / math.log(2.0))))
    r = held
    for part in LN2[bits]:
        r = _call(builder, "fmuladd", k, _constant(x, -part), r)
    series = [1.0 / math.factorial(n) for n in range(TERMS[bits], -1, -1)]
    value = _polynomial(builder, r, series)
    kind = ir.VectorType(ir.IntType(bits), x.type.count)
    number = builder.fptosi(k, kind)
    one = ir.Constant(kind, [1] * x.type.count)
    half = builder.ashr(number, one)
    # In two factors: results may be smaller than the smallest normal number, or infinite.
    for part in (half, builder.sub(number, half)):
        value = builder.fmul(value, _two_to(builder, part, x))
    ordered = builder.fcmp_ordered("ord", x, x)
    return builder.select(ordered, value, x)


def _over_one_and(builder: Any, x: Any, numerator: float) -> Any:
    """Numerator / (1 + x)."""
    return builder.fdiv(_constant(x, numerator), builder.fadd(_constant(x, 1.0), x))


def _sigmoid(builder: Any, x: Any) -> Any:
    return _over_one_and(builder, _exp(builder, builder.fneg(x)), 1.0)


def _tanh(builder: Any, x: Any) -> Any:
    size = _call(builder, "fabs", x)
    far = _exp(builder, builder.fmul(_constant(x, 2.0), size))
    far = builder.fsub(_constant(x, 1.0), _over_one_and(builder, far, 2.0))
    far = _call(builder, "copysign", far, x)
    square = builder.fmul(x, x)
    upper, lower = TANH[_bits(x)]
    near = _polynomial(builder, square, upper)
    if lower:
        near = builder.fdiv(near, _polynomial(builder, square, lower))
    near = _call(builder, "fmuladd", builder.fmul(x, square), near, x)
    return builder.select(builder.fcmp_ordered("olt", size, _constant(x, 0.625)), near, far)


def _rectify(builder: Any, x: Any) -> Any:
    """The larger of x and 0; NaN stays."""
    positive = builder.fcmp_unordered("ugt", x, _constant(x, 0.0))
    return builder.select(positive, x, _constant(x, 0.0))


def _step(builder: Any, x: Any) -> Any:
    """1 where x is positive or NaN, else 0: as PyTorch has it."""
    positive = builder.fcmp_unordered("ugt", x, _constant(x, 0.0))
    return builder.select(positive, _constant(x, 1.0), _constant(x, 0.0))


def _gate(builder: Any, x: Any) -> Any:
    """X sigmoid(x)."""
    return builder.fmul(x, _sigmoid(builder, x))


def _gate_slope(builder: Any, x: Any) -> Any:
    """The derivative of x sigmoid(x)."""
    s = _sigmoid(builder, x)
    rest = builder.fsub(_constant(x, 1.0), s)
    inner = _call(builder, "fmuladd", x, rest, _constant(x, 1.0))
    return builder.fmul(s, inner)


def _root(builder: Any, x: Any) -> Any:
    return _call(builder, "sqrt", x)


def _made(code: Callable[[Any, Any], Any]) -> Any:
    @intrinsic
    def function(typing, value):
        return value(value), map_vectors(code)

    return function


exp, tanh, sigmoid, rectify, step, gate, gate_slope, root = map(
    _made, (_exp, _tanh, _sigmoid, _rectify, _step, _gate, _gate_slope, _root)
)
