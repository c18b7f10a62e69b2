"""Vectors for loops that numba compiles: `mgnet.knots.kernels`, `mgnet.depth.compiled.loops`.

LLVM does not vectorize those loops, since it cannot prove that arrays do not overlap. Therefore
they are written with explicit vectors of 64 bytes (AVX-512); other machines split each vector into
two or four. `Lanes(float32, 4)` are 4 vectors of 16 numbers each. All tables are flat arrays. Only
the length of a tuple `like` or `order` matters: it gives the compiler the number of vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model

__all__ = [
    "BYTES",
    "collect",
    "equal",
    "fused",
    "gather",
    "load",
    "map_vectors",
    "minus",
    "over",
    "plus",
    "prefetch",
    "pull",
    "put",
    "scatter",
    "spread",
    "spread_rows",
    "store",
    "times",
    "total",
    "transpose",
    "zeros",
]

BYTES = 64
INT32 = ir.IntType(32)


class Lanes(types.Type):
    """The type of `count` vectors of 64 bytes."""

    def __init__(self, scalar: Any, count: int):
        self.scalar = scalar
        self.count = count
        super().__init__(name=f"Lanes({scalar}, {count})")


def _vector(scalar: Any) -> Any:
    number = ir.FloatType() if scalar.bitwidth == 32 else ir.DoubleType()
    return ir.VectorType(number, 8 * BYTES // scalar.bitwidth)


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, lanes: Lanes):
        super().__init__(manager, lanes, ir.ArrayType(_vector(lanes.scalar), lanes.count))


class _Table:
    """Addresses in a flat array during code generation."""

    def __init__(self, context: Any, builder: Any, table: Any, value: Any):
        self.builder = builder
        self.start = context.make_array(table)(context, builder, value).data
        self.vector = _vector(table.dtype)
        self.align = table.dtype.bitwidth // 8

    def address(self, offset: Any, vectors: int = 0) -> Any:
        offset = self.builder.add(offset, ir.Constant(offset.type, vectors * self.vector.count))
        return self.builder.bitcast(
            self.builder.gep(self.start, [offset]), self.vector.as_pointer()
        )

    def load(self, offset: Any, vectors: int = 0) -> Any:
        return self.builder.load(self.address(offset, vectors), align=self.align)

    def store(self, value: Any, offset: Any, vectors: int = 0) -> None:
        self.builder.store(value, self.address(offset, vectors), align=self.align)


def _add_product(builder: Any, total: Any, a: Any, b: Any) -> Any:
    """`total + a b`, fused if the machine can; reproducible, unlike "fast" arithmetic."""
    if total is None:
        return builder.fmul(a, b)
    name = f"llvm.fmuladd.v{a.type.count}f{8 * BYTES // a.type.count}"
    function = builder.module.globals.get(name)
    if function is None:
        function = ir.Function(builder.module, ir.FunctionType(a.type, [a.type] * 3), name)
    return builder.call(function, [a, b, total])


def _combination(builder: Any, rows: _Table, weights: list[Any], at: Any, m: int, stride: Any):
    """The m-th vector of `sum_k weights[k] * rows[at + k stride]`."""
    total = None
    for weight in weights:
        total = _add_product(builder, total, weight, rows.load(at, m))
        at = builder.add(at, stride)
    return total


def _unpack(builder: Any, lanes: Lanes, value: Any) -> list[Any]:
    return [builder.extract_value(value, k) for k in range(lanes.count)]


def _pack(builder: Any, vectors: list[Any]) -> Any:
    packed = ir.Constant(ir.ArrayType(vectors[0].type, len(vectors)), ir.Undefined)
    for k, vector in enumerate(vectors):
        packed = builder.insert_value(packed, vector, k)
    return packed


@intrinsic
def load(typing, table, at, like):
    """Load vectors from `table[at:]`, as many as the tuple `like` has entries."""

    def generate(context, builder, signature, args):
        rows = _Table(context, builder, table, args[0])
        return _pack(builder, [rows.load(args[1], m) for m in range(like.count)])

    return Lanes(table.dtype, like.count)(table, at, like), generate


@intrinsic
def store(typing, table, at, value):
    """Write vectors to `table[at:]`."""

    def generate(context, builder, signature, args):
        rows = _Table(context, builder, table, args[0])
        for m, vector in enumerate(_unpack(builder, value, args[2])):
            rows.store(vector, args[1], m)
        return context.get_dummy_value()

    return types.void(table, at, value), generate


def _spread(builder: Any, rows: _Table, at: Any, stride: Any, count: int) -> Any:
    """Vectors whose numbers are all `table[at]`, all `table[at + stride]`, and so on."""
    none = ir.Constant(rows.vector, ir.Undefined)
    first = ir.Constant(ir.VectorType(INT32, rows.vector.count), [0] * rows.vector.count)
    vectors = []
    for _ in range(count):
        number = builder.load(builder.gep(rows.start, [at]))
        one = builder.insert_element(none, number, ir.Constant(INT32, 0))
        vectors.append(builder.shuffle_vector(one, none, first))
        at = builder.add(at, stride)
    return _pack(builder, vectors)


@intrinsic
def spread(typing, table, at, like):
    """A vector of equal numbers for each of `table[at], table[at + 1], ...`."""

    def generate(context, builder, signature, args):
        rows = _Table(context, builder, table, args[0])
        return _spread(builder, rows, args[1], ir.Constant(args[1].type, 1), like.count)

    return Lanes(table.dtype, like.count)(table, at, like), generate


@intrinsic
def spread_rows(typing, table, at, stride, like):
    """A vector of equal numbers for each of `table[at], table[at + stride], ...`."""

    def generate(context, builder, signature, args):
        rows = _Table(context, builder, table, args[0])
        return _spread(builder, rows, args[1], args[2], like.count)

    return Lanes(table.dtype, like.count)(table, at, stride, like), generate


@intrinsic
def transpose(typing, table, at, stride, to, wide):
    """Transpose a square of numbers with as many rows as a vector has numbers, and write it."""

    def generate(context, builder, signature, args):
        rows = _Table(context, builder, table, args[0])
        count, (_, at, stride, to, wide) = rows.vector.count, args
        square = []
        for _ in range(count):
            square.append(rows.load(at))
            at = builder.add(at, stride)
        half = count // 2
        while half:  # blocks of this size; those off the diagonal are swapped
            for k in range(count):
                if not k & half:
                    a, b = square[k], square[k + half]
                    upper = [e if not e & half else e - half + count for e in range(count)]
                    lower = [e + half if not e & half else e + count for e in range(count)]
                    for place, order in ((k, upper), (k + half, lower)):
                        mask = ir.Constant(ir.VectorType(INT32, count), order)
                        square[place] = builder.shuffle_vector(a, b, mask)
            half //= 2
        for row in square:
            rows.store(row, to)
            to = builder.add(to, wide)
        return context.get_dummy_value()

    return types.void(table, at, stride, to, wide), generate


@intrinsic
def prefetch(typing, table, at):
    """Announce that the cache line with `table[at]` will soon be read."""

    def generate(context, builder, signature, args):
        rows = _Table(context, builder, table, args[0])
        byte = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, INT32, INT32, INT32])
        function = builder.module.globals.get("llvm.prefetch.p0i8")
        if function is None:
            function = ir.Function(builder.module, kind, "llvm.prefetch.p0i8")
        place = builder.bitcast(builder.gep(rows.start, [args[1]]), byte)
        # Arguments: for reading, kept in all caches, data.
        builder.call(function, [place, *[ir.Constant(INT32, k) for k in (0, 3, 1)]])
        return context.get_dummy_value()

    return types.void(table, at), generate


@intrinsic
def gather(typing, total, weights, table, at, stride):
    """`total + sum_k weights[k] * table[at + k stride:]`."""

    def generate(context, builder, signature, args):
        rows = _Table(context, builder, table, args[2])
        scales = _unpack(builder, weights, args[1])
        sums = []
        for m, old in enumerate(_unpack(builder, total, args[0])):
            # The sum comes first, so the dependency chain between inputs is one addition.
            new = _combination(builder, rows, scales, args[3], m, args[4])
            sums.append(builder.fadd(old, new))
        return _pack(builder, sums)

    return total(total, weights, table, at, stride), generate


@intrinsic
def zeros(typing, table, order, like):
    """A block of zero vectors, one for each entry of `order` and each of `like`."""
    lanes = Lanes(table.dtype, order.count * like.count)

    def generate(context, builder, signature, args):
        return ir.Constant(ir.ArrayType(_vector(table.dtype), lanes.count), None)

    return lanes(table, order, like), generate


@intrinsic
def collect(typing, block, weights, value):
    """Add `weights[k] * value` to row k of the block, for all k."""

    def generate(context, builder, signature, args):
        sums = _unpack(builder, block, args[0])
        vectors = _unpack(builder, value, args[2])
        for k, weight in enumerate(_unpack(builder, weights, args[1])):
            for m, vector in enumerate(vectors):
                at = k * len(vectors) + m
                sums[at] = _add_product(builder, sums[at], weight, vector)
        return _pack(builder, sums)

    return block(block, weights, value), generate


def _written(block: Any, order: Any, adds: bool) -> Callable[..., Any]:
    def generate(context, builder, signature, args):
        rows, at = _Table(context, builder, signature.args[2], args[2]), args[3]
        for k, vector in enumerate(_unpack(builder, block, args[0])):
            m = k % (block.count // order.count)
            rows.store(builder.fadd(rows.load(at, m), vector) if adds else vector, at, m)
            if m == block.count // order.count - 1:
                at = builder.add(at, args[4])
        return context.get_dummy_value()

    return generate


@intrinsic
def scatter(typing, block, order, table, at, stride):
    """`table[at + k stride:] += row k of the block`, for all k."""
    return types.void(block, order, table, at, stride), _written(block, order, True)


@intrinsic
def put(typing, block, order, table, at, stride):
    """`table[at + k stride:] = row k of the block`, for all k."""
    return types.void(block, order, table, at, stride), _written(block, order, False)


@intrinsic
def pull(typing, value, weights, table, at, stride):
    """The number `sum_k weights[k] <value, table[at + k stride:]>`."""

    def generate(context, builder, signature, args):
        rows = _Table(context, builder, table, args[2])
        scales = _unpack(builder, weights, args[1])
        total = None
        for m, vector in enumerate(_unpack(builder, value, args[0])):
            row = _combination(builder, rows, scales, args[3], m, args[4])
            total = _add_product(builder, total, vector, row)
        return _sum(builder, total)

    return value.scalar(value, weights, table, at, stride), generate


def _sum(builder: Any, vector: Any) -> Any:
    """The sum of the numbers of one vector, by repeated halving."""
    width = vector.type.count
    while width > 1:
        width //= 2
        halves = [
            builder.shuffle_vector(
                vector,
                vector,
                ir.Constant(ir.VectorType(INT32, width), list(range(k, k + width))),
            )
            for k in (0, width)
        ]
        vector = builder.fadd(*halves)
    return builder.extract_element(vector, ir.Constant(INT32, 0))


@intrinsic
def total(typing, value):
    """The sum of all numbers."""

    def generate(context, builder, signature, args):
        first, *others = _unpack(builder, value, args[0])
        for vector in others:
            first = builder.fadd(first, vector)
        return _sum(builder, first)

    return value.scalar(value), generate


@intrinsic
def equal(typing, table, number, like):
    """Make a vector of one number for each entry of the tuple `like`, of the type of `table`."""
    lanes = Lanes(table.dtype, like.count)

    def generate(context, builder, signature, args):
        kind = _vector(table.dtype)
        none = ir.Constant(kind, ir.Undefined)
        one = builder.insert_element(none, args[1], ir.Constant(INT32, 0))
        first = ir.Constant(ir.VectorType(INT32, kind.count), [0] * kind.count)
        return _pack(builder, [builder.shuffle_vector(one, none, first)] * like.count)

    return lanes(table, table.dtype, like), generate


def map_vectors(code: Callable[..., Any]) -> Callable[..., Any]:
    """Generate code for a function of vectors: `code(builder, *vectors)` for each of them.

    Parameters
    ----------
    code : callable
        Function that generates the code for one vector.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lists = [_unpack(builder, lanes, x) for lanes, x in zip(signature.args, args, strict=True)]
        return _pack(builder, [code(builder, *each) for each in zip(*lists, strict=True)])

    return generate


@intrinsic
def plus(typing, a, b):
    """`a + b`."""
    return a(a, b), map_vectors(lambda builder, x, y: builder.fadd(x, y))


@intrinsic
def minus(typing, a, b):
    """`a - b`."""
    return a(a, b), map_vectors(lambda builder, x, y: builder.fsub(x, y))


@intrinsic
def times(typing, a, b):
    """`a b`."""
    return a(a, b), map_vectors(lambda builder, x, y: builder.fmul(x, y))


@intrinsic
def over(typing, a, b):
    """`a / b`."""
    return a(a, b), map_vectors(lambda builder, x, y: builder.fdiv(x, y))


@intrinsic
def fused(typing, a, b, c):
    """`a + b c`, with one rounding if the machine can."""
    return a(a, b, c), map_vectors(_add_product)
