"""Functions of vectors as LLVM code, because PyTorch's are not available in compiled loops.

Errors are a few units in the last place (for `tanh` at most 2), as tested against NumPy in both
precisions. `exp` uses its Taylor series after the usual reduction to |r| <= ln(2) / 2, and `tanh`
uses the same series without its first term.
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
LARGEST = {32: (-104.0, 89.0), 64: (-746.0, 710.0)}  # beyond this range, exp is 0 or infinite
ONE_FROM = {32: 9.1, 64: 19.1}  # from here on, tanh rounds to 1


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
    """2^k for a vector of integers k, made from the bits of the exponent."""
    bits = _bits(like)
    fraction, bias = (23, 127) if bits == 32 else (52, 1023)

    def whole(number: int) -> Any:
        return ir.Constant(k.type, [number] * k.type.count)

    shifted = builder.shl(builder.add(k, whole(bias)), whole(fraction))
    return builder.bitcast(shifted, like.type)


def _reduced(builder: Any, x: Any) -> tuple[Any, Any]:
    """An integer k, and r = x - k ln(2) with absolute value at most ln(2) / 2."""
    bits = _bits(x)
    k = _call(builder, "rint", builder.fmul(x, _constant(x, 1.0 / math.log(2.0))))
    r = x
    for part in LN2[bits]:
        r = _call(builder, "fmuladd", k, _constant(x, -part), r)
    return builder.fptosi(k, ir.VectorType(ir.IntType(bits), x.type.count)), r


def _exp(builder: Any, x: Any) -> Any:
    bits = _bits(x)
    low, high = LARGEST[bits]
    # maxnum and minnum drop NaN, which the last sum restores.
    held = _call(
        builder, "minnum", _call(builder, "maxnum", x, _constant(x, low)), _constant(x, high)
    )
    number, r = _reduced(builder, held)
    series = [1.0 / math.factorial(n) for n in range(TERMS[bits], -1, -1)]
    value = _polynomial(builder, r, series)
    one = ir.Constant(number.type, [1] * x.type.count)
    half = builder.ashr(number, one)
    # In two factors, because results may be subnormal or infinite.
    for part in (half, builder.sub(number, half)):
        value = builder.fmul(value, _two_to(builder, part, x))
    ordered = builder.fcmp_ordered("ord", x, x)
    return builder.select(ordered, value, x)


def _over_one_and(builder: Any, x: Any, numerator: float) -> Any:
    """Compute numerator / (1 + x)."""
    return builder.fdiv(_constant(x, numerator), builder.fadd(_constant(x, 1.0), x))


def _sigmoid(builder: Any, x: Any) -> Any:
    return _over_one_and(builder, _exp(builder, builder.fneg(x)), 1.0)


def _tanh(builder: Any, x: Any) -> Any:
    """Compute e / (e + 2), where e = exp(2 |x|) - 1 is accurate for small and large numbers."""
    bits = _bits(x)
    size = _call(builder, "fabs", x)
    held = _call(builder, "minnum", size, _constant(x, ONE_FROM[bits]))
    k, r = _reduced(builder, builder.fadd(held, held))
    series = [1.0 / math.factorial(n) for n in range(TERMS[bits], 1, -1)]
    rest = builder.fmul(builder.fmul(r, r), _polynomial(builder, r, series))
    power = _two_to(builder, k, x)
    one = builder.fsub(power, _constant(x, 1.0))
    grown = _call(builder, "fmuladd", power, builder.fadd(r, rest), one)
    inverse = builder.fdiv(_constant(x, 1.0), builder.fadd(grown, _constant(x, 2.0)))
    value = builder.fmul(grown, inverse)
    # One more correction for the residual of e = (e + 2) value, whose rounding would be noticeable.
    left = _call(builder, "fmuladd", value, _constant(x, -2.0), grown)
    left = _call(builder, "fmuladd", builder.fneg(value), grown, left)
    value = _call(builder, "fmuladd", left, inverse, value)
    value = _call(builder, "copysign", value, x)
    return builder.select(builder.fcmp_ordered("ord", x, x), value, x)


def _rectify(builder: Any, x: Any) -> Any:
    """The larger of x and 0; NaN is preserved."""
    positive = builder.fcmp_unordered("ugt", x, _constant(x, 0.0))
    return builder.select(positive, x, _constant(x, 0.0))


def _step(builder: Any, x: Any) -> Any:
    """1 where x is positive or NaN, else 0, as in PyTorch."""
    positive = builder.fcmp_unordered("ugt", x, _constant(x, 0.0))
    return builder.select(positive, _constant(x, 1.0), _constant(x, 0.0))


def _gate(builder: Any, x: Any) -> Any:
    """Compute x sigmoid(x)."""
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
