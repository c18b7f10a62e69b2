"""Loops over runs of layers, compiled by numba: one call replaces several calls of `loops.py`.

Each part of a batch has its own memory of `size` numbers in each run, and the memory of the runs is
consecutive. A task is one part of one run: task t is part `t % parts` of run `t // parts`.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from mgnet.depth.compiled.loops import backward, forward

__all__ = ["backward_runs", "forward_runs"]


@njit(cache=True, nogil=True)
def _move(table, layers, here):
    """Offsets for a later layer; negative positions, which stand for none, are left unchanged."""
    for k in range(len(table)):
        here[k, 0] = table[k, 0] + layers * table[k, 1]
        here[k, 1] = table[k, 1]


@njit(cache=True, nogil=True)
def _read(given, at, mem, to, samples, S, rows, repeats):
    """Convert consecutive samples to rows of samples, padded with the first sample or zeros."""
    for s in range(S):
        for r in range(rows):
            if s < samples:
                mem[to + r * S + s] = given[at + s * rows + r]
            elif repeats:
                mem[to + r * S + s] = given[at + r]
            else:
                mem[to + r * S + s] = 0.0


@njit(cache=True, nogil=True)
def _write(mem, at, out, to, samples, S, rows):
    for s in range(samples):
        for r in range(rows):
            out[to + s * rows + r] = mem[at + r * S + s]


@njit(cache=True, nogil=True)
def forward_runs(
    tasks, block, size, runs, code, numbers, at, par, par_at, mem, given, added, out, slope, adds,
    width, lanes,
):  # fmt: skip
    """Run `forward` for the tasks from tasks[0] to tasks[1].

    `block` contains the first sample, and the numbers of samples, of parts, of samples per part,
    and of samples of the whole batch. `runs` contains the first layer of the first run, the
    distance to the next one, the number of runs, and the numbers of layers of each run and of the
    last run. `given` contains the state before each run, and `added`, unless empty, the terms to be
    added after each layer. The last state of each run is written to `out` or, if `out` is large
    enough, the state after each layer.
    """
    here = np.empty_like(par_at)
    sample, samples, parts, S, batch = block
    first, step, count, length, last = runs
    state, every = batch * width, len(out) > count * batch * width
    for t in range(tasks[0], tasks[1]):
        run, part = t // parts, t % parts
        some, begin = min(S, samples - part * S), t * size
        _move(par_at, first + run * step, here)
        layers = last if run == count - 1 else length
        own, x = mem[begin : begin + size], (sample + part * S) * width
        _read(given, run * state + x, own, at[0, 0], some, S, width, True)
        if len(added):
            for n in range(layers):
                to = at[0, 0] + (n + 1) * at[0, 1]
                _read(added, (run * length + n) * state + x, own, to, some, S, width, True)
        forward(
            code, numbers, at, par, here, own, len(added) > 0, slope, adds, width, layers, S, lanes
        )
        if every:
            for n in range(layers):
                y = at[0, 0] + (n + 1) * at[0, 1]
                _write(own, y, out, (run * length + n) * state + x, some, S, width)
        else:
            _write(own, at[0, 0] + layers * at[0, 1], out, run * state + x, some, S, width)


@njit(cache=True, nogil=True)
def backward_runs(
    tasks, block, size, span, runs, code, numbers, at, of, empty, after, by, turned, par, par_at,
    mem, given, added, out, sums, sums_at, slope, adds, width, lanes,
):  # fmt: skip
    """Run `backward` for the tasks from tasks[0] to tasks[1]; stored runs have `span` layers.

    Each run starts where a stored run starts and lies inside it, unless `span` is 1; in that case,
    the strides of the tables lead from one stored run to the next. `given` contains the adjoint
    after each run, and `added`, unless empty, the terms to be added before each layer. The adjoint
    before each run is written to `out` or, if `out` is large enough, the adjoint before each layer.
    """
    here, sums_here = np.empty_like(par_at), np.empty_like(sums_at)
    sample, samples, parts, S, batch = block
    first, step, count, length, last = runs
    state, every = batch * width, len(out) > count * batch * width
    for t in range(tasks[0], tasks[1]):
        run, part = t // parts, t % parts
        layer, some, x = first + run * step, min(S, samples - part * S), (sample + part * S) * width
        own = mem[(layer // span * parts + part) * size :]
        _move(par_at, layer, here)
        _move(sums_at, layer, sums_here)
        layers = last if run == count - 1 else length
        _read(given, run * state + x, own, of[0, 0], some, S, width, False)
        if after >= 0:
            for n in range(layers):
                to = after + n * by
                if len(added):
                    _read(added, (layer + n) * state + x, own, to, some, S, width, False)
                else:
                    own[to : to + S * width] = 0.0
        backward(
            code, numbers, at, of, empty, -1, after, by, turned, par, here, own, sums, sums_here,
            slope, adds, width, layers, S, lanes,
        )  # fmt: skip
        if every:
            for n in range(layers):
                _write(own, after + n * by, out, (layer + n) * state + x, some, S, width)
        else:
            _write(own, of[0, 0], out, run * state + x, some, S, width)
