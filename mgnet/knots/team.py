"""Loops compiled by numba that run on PyTorch's own threads.

PyTorch's threads spin for some milliseconds after their work, before they sleep. Other threads
would compete with them for the cores, which would cost more time than most layers take. These loops
therefore use the same threads, through the OpenMP library that PyTorch has loaded: the threads
start at once, and no core has to run two of them. Source of the interface: libgomp,
`GOMP_parallel`.
"""
# pyright: reportCallIssue=false
# (numba's intrinsics have one argument less at the call than in their definition)

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import torch
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from mgnet.threads import forked

__all__ = ["borrowed", "on_team", "openmp"]

NAMES = "GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads"
NONE = (0, 0, 0)
BYTE, INT32, INT64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)

_found: list[tuple[int, int, int]] = []


def openmp() -> tuple[int, int, int]:
    """The addresses of three functions of PyTorch's OpenMP; zeros if there is no suitable library.

    A forked process also gets zeros, because the threads remain in its parent.
    """
    if forked():
        return NONE
    if not _found:
        try:
            library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
            functions = [getattr(library, name) for name in NAMES]
        except (OSError, AttributeError):
            _found.append(NONE)
        else:
            first, second, third = (ctypes.cast(f, ctypes.c_void_p).value or 0 for f in functions)
            _found.append((first, second, third))
    return _found[0]


def _function(builder: Any, address: Any, result: Any, *arguments: Any) -> Any:
    return builder.inttoptr(address, ir.FunctionType(result, arguments).as_pointer())


@intrinsic
def borrowed(typing, array):
    """The same array without reference counting.

    Every call with an array changes its reference count, so threads that share the array would wait
    for each other. It may be used only for arguments, whose memory the caller keeps alive.
    """

    def generate(context, builder, signature, args):
        view = context.make_array(array)(context, builder, args[0])
        none = cgutils.get_null_value(view.meminfo.type)
        view.meminfo, view.parent = none, cgutils.get_null_value(view.parent.type)
        return view._getvalue()

    return array(array), generate


@intrinsic
def on_team(typing, loop, arguments, size, threads, functions):
    """Call `loop(*arguments, start, stop)` for parts of range(size), one part per thread.

    `functions` are those of `openmp`. The result states whether an error occurred in one of the
    parts.
    """
    taken = (*arguments.types, types.int64, types.int64)
    loop.get_call_type(typing, taken, {})  # compiles it
    call = types.boolean(loop, arguments, types.int64, types.int64, functions)

    def generate(context, builder, signature, args):
        compiled = loop.dispatcher.overloads[taken]
        context.active_code_library.add_linking_library(compiled.library)
        _, values, size, threads, functions = args
        addresses = cgutils.unpack_tuple(builder, functions, 3)
        shared = ir.LiteralStructType([values.type, INT64, INT64, INT64, INT32])
        data = cgutils.alloca_once(builder, shared)
        zero = ir.Constant(INT32, 0)
        for k, value in enumerate((values, size, *addresses[1:], zero)):
            builder.store(value, cgutils.gep_inbounds(builder, data, 0, k))
        body = _body(context, builder.module, shared, compiled, len(taken) - 2)
        start = _function(
            builder, addresses[0], ir.VoidType(),
            body.type, BYTE.as_pointer(), INT32, INT32,
        )  # fmt: skip
        team = builder.trunc(threads, INT32)
        builder.call(start, [body, builder.bitcast(data, BYTE.as_pointer()), team, zero])
        failed = builder.load(cgutils.gep_inbounds(builder, data, 0, 4))
        return builder.icmp_unsigned("!=", failed, zero)

    return call, generate


def _body(context: Any, module: Any, shared: Any, compiled: Any, count: int) -> Any:
    """The work of each thread: its part of the range."""
    name = f"mgnet_team_{compiled.fndesc.mangled_name}"
    if name in module.globals:
        return module.globals[name]
    body = ir.Function(module, ir.FunctionType(ir.VoidType(), [BYTE.as_pointer()]), name)
    body.linkage = "internal"
    builder = ir.IRBuilder(body.append_basic_block())
    data = builder.bitcast(body.args[0], shared.as_pointer())
    places = [cgutils.gep_inbounds(builder, data, 0, k) for k in range(5)]
    values, size, *addresses = (builder.load(place) for place in places[:4])
    number, threads = (
        builder.sext(builder.call(_function(builder, address, INT32), []), INT64)
        for address in addresses
    )
    ends = [
        builder.sdiv(builder.mul(size, part), threads)
        for part in (number, builder.add(number, ir.Constant(INT64, 1)))
    ]
    arguments = [*cgutils.unpack_tuple(builder, values, count), *ends]
    status, _ = context.call_internal_no_propagate(
        builder, compiled.fndesc, compiled.signature, arguments
    )
    with builder.if_then(status.is_error):
        builder.store(ir.Constant(INT32, 1), places[4])
    builder.ret_void()
    return body
