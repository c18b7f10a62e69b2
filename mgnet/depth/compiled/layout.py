"""Positions of values, adjoints and gradients in the memory of the compiled loops."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from mgnet.depth.compiled import operations as ops
from mgnet.depth.compiled.layer_code import LayerCode

__all__ = ["Block", "Layout", "Sums", "blocks_of", "kept_values", "operations_of"]

FROM_INPUT = {ops.SILU, *range(ops.GELU, ops.COS + 1)}  # derivatives computed from arguments

WIDEST = 128  # largest number of samples of one part
CACHE = 2**13  # bytes of a value of one part; several of these and a matrix fit into the cache


@dataclass(frozen=True)
class Block:
    """Parts of a batch that have the same size.

    Attributes
    ----------
    first, samples : int
        First sample, and number of samples.
    parts, S : int
        Number of parts, and number of samples of each, which fill whole vectors.
    """

    first: int
    samples: int
    parts: int
    S: int


def blocks_of(samples: int, lanes: int, rows: int, alone: bool = True) -> list[Block]:
    """The parts of a batch; each is processed through all layers, one after another or by threads.

    The parts do not depend on the number of threads, so neither do sums over samples.

    Parameters
    ----------
    samples, lanes : int
        Number of samples, and number of entries of a vector register.
    rows : int
        Number of rows of the widest value.
    alone : bool
        Whether the threads have no other work to share; if so, there are at least four parts where
        possible.

    Returns
    -------
    list of Block
        The parts.

    Examples
    --------
    >>> blocks_of(50, 16, 4)
    [Block(first=0, samples=32, parts=1, S=32), Block(first=32, samples=18, parts=1, S=32)]
    """
    vectors = -(-samples // lanes)
    most = max(min(WIDEST // lanes, CACHE // (64 * rows)), 1)
    each = min(max(-(-vectors // 4), 1 if vectors < 4 else 2) if alone else vectors, most)
    parts = samples // (each * lanes)
    S, done = each * lanes, parts * each * lanes
    found = [Block(0, done, parts, S)] if parts else []
    if done < samples:
        found.append(Block(done, samples - done, 1, -(-(samples - done) // lanes) * lanes))
    return found


def operations_of(code: LayerCode) -> tuple[np.ndarray, set[int]]:
    """The operations, and whether each is the first to write an adjoint in the backward pass.

    Returns
    -------
    table : ndarray
        Integers of shape (operations, 10). The last one is the sum of 1 if the operation is the
        first to write the adjoint of a, and 2 if it is the first to write that of b.
    empty : set of int
        Values whose adjoints must first be set to zero, for example because parts of them are
        written separately.
    """
    values = code.values
    empty = {value.root for k, value in enumerate(values) if value.root != k}
    empty |= {k for k, value in enumerate(values) if value.given}
    written, table = empty | {0, values[code.slope].root}, []
    for op, out, a, b, *rest in reversed(code.code):
        first = 0
        reads_b = op in (ops.ADD, ops.MULTIPLY)
        for bit, k in ((2, b),) * reads_b + ((1, a),) * (op != ops.FILL):
            if values[k].root not in written:
                written.add(values[k].root)
                first |= bit
        table.append((op, out, a, b, *rest, first))
    roots = {k for k, value in enumerate(values) if value.root == k}
    return np.array(table[::-1], np.int64).reshape(-1, 10), (roots - written) | (empty - {0})


def kept_values(code: LayerCode, wanted: Collection[int]) -> set[int]:
    """The values of each layer that the backward pass reads.

    Parameters
    ----------
    code : LayerCode
        The operations.
    wanted : set of int
        The parameters of the loops whose gradients are needed.
    """
    found = {0, code.slope} if 0 in wanted else {0}
    for op, out, a, b, _, _, p, _, kind in code.code:
        if op == ops.UNARY:
            found.add(a if kind in FROM_INPUT else out)
        elif op == ops.NORM:
            found |= {out, b}
        elif op == ops.MULTIPLY:
            found |= {a, b}
        elif op in (ops.LINEAR, ops.SCALE) and p in wanted:
            found.add(a)
    return {code.values[k].root for k in found}


class Layout:
    """Positions of the values and adjoints of one part.

    Parameters
    ----------
    code : LayerCode
        The operations.
    empty : set of int
        The set from `operations_of`.
    layers, S : int
        Number of layers, and samples of a part.
    kept : set of int or None
        The values that a backward pass reads; None if there is no backward pass.
    given : dict
        Number of rows of each given value: one per layer, or 1.
    lanes : int
        Numbers per vector.
    of_all : bool
        Whether gradients with respect to all states are given.

    Attributes
    ----------
    at, of : ndarray
        Start of each value and of each adjoint, and strides between layers.
    empty : ndarray
        Memory to be set to zero: (position, stride between layers, rows).
    lam, source, turned, size : int
        Positions of the adjoint of the state, of the given adjoints, and of space for the
        transposed rows of an adjoint; and the total size.
    """

    def __init__(
        self,
        code: LayerCode,
        empty: set[int],
        layers: int,
        S: int,
        kept: set[int] | None,
        given: dict[int, int],
        lanes: int,
        of_all: bool,
    ):
        values = code.values
        roots = [k for k, value in enumerate(values) if value.root == k]
        self.at, self.of = (np.zeros((len(values), 2), np.int64) for _ in range(2))
        begins, rows = {}, 0
        for k in sorted((kept or set()) - {*given}):
            begins[k], rows = rows * S, rows + values[k].rows
        stride, end = rows * S, (layers + 1) * rows * S
        for k in roots:
            size = values[k].rows * S
            if k in begins:
                self.at[k] = begins[k], stride
            else:
                self.at[k] = end, size if given.get(k, 1) > 1 else 0
                end += size * given.get(k, 1)
        zeros: list[tuple[int, int, int]] = []
        self.lam = self.source = self.turned = end
        if kept is not None:
            for k in roots:
                size, many = values[k].rows * S, k in given
                self.of[k] = end, size if many else 0
                if k in empty:
                    zeros.append((end, size if many else 0, values[k].rows))
                end += size * (layers if many else 1)
            self.lam, self.source = int(self.of[0, 0]), end
            end += layers * values[0].rows * S if of_all else 0
            self.turned = end
            end += S * max([lanes, *[-(-x.rows // lanes) * lanes for x in values]])
        for k, value in enumerate(values):
            if value.root != k:
                for table in (self.at, self.of):
                    table[k] = table[value.root] + (value.first * S, 0)
        self.empty = np.array(zeros, np.int64).reshape(-1, 3)
        self.size = end


class Sums:
    """Positions of the gradients of the parameters.

    Parameters
    ----------
    code : LayerCode
        The operations.
    counts : dict
        For the number of each parameter of the loops, how many copies it has: one per layer, or 1.
    lanes : int
        Numbers per vector.
    shared : set of int
        Parameters whose gradients come first and are contiguous.

    Attributes
    ----------
    at : ndarray
        Start of each gradient, and stride between layers; -1 for the second copy of a matrix.
    shared, size : int
        Total size of the gradients that come first, and of all gradients.
    """

    def __init__(
        self, code: LayerCode, counts: dict[int, int], lanes: int, shared: Collection[int] = ()
    ):
        self.shapes, self.lanes, self.counts = code.shapes, lanes, counts
        self.at = np.full((len(code.shapes), 2), (-1, 0), np.int64)
        end = self.shared = 0
        for p in sorted(counts, key=lambda p: (p not in shared, p)):
            each = self._numbers(p)
            self.at[p] = end, each if counts[p] > 1 else 0
            end += each * counts[p]
            self.shared = end if p in shared else self.shared
        self.size = end

    def _numbers(self, p: int) -> int:
        """Size for one layer, where the last axis is padded to whole vectors."""
        *columns, rows = self.shapes[p] or (0,)
        return -(-rows // self.lanes) * self.lanes * int(np.prod(columns)) if rows else 1

    def of(self, numbers: Tensor, p: int) -> Tensor:
        """The gradient of a parameter, (layers or 1, ...)."""
        shape, count, first = self.shapes[p], self.counts[p], int(self.at[p, 0])
        found = numbers[first : first + self._numbers(p) * count]
        return found.view(count, *shape[:-1], -1)[..., : shape[-1]] if shape else found
