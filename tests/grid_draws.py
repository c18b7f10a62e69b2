"""Random grids, boundary kinds and stencils."""

from itertools import product

import numpy as np

ENDS = [(left, right) for left, right in product(("dirichlet", "neumann"), repeat=2)]
ENDS += [("periodic", "periodic")] * 2


def drawn_grid(generator, longest=8):
    """The shape of a grid of one to three axes, and the kinds of its ends."""
    axes = generator.integers(1, 4)
    most = longest if axes < 3 else 5
    shape = tuple(int(n) for n in generator.integers(1, most + 1, axes))
    return shape, tuple(ENDS[k] for k in generator.integers(0, len(ENDS), axes))


def drawn_stencil(generator, shape, dtype=float):
    """A stencil for each point, dominated by its center; sometimes along the axes alone."""
    axes = len(shape)
    stencil = generator.standard_normal((3,) * axes + shape).astype(dtype)
    if np.dtype(dtype).kind == "c":
        stencil = stencil + 1j * generator.standard_normal(stencil.shape)
    if generator.random() < 0.3:
        for offset in product((0, 1, 2), repeat=axes):
            if sum(k != 1 for k in offset) > 1:
                stencil[offset] = 0.0
    stencil[(1,) * axes] += 20.0
    return stencil


def periodic(kinds):
    return tuple("periodic" in ends for ends in kinds)


def padded(u, kinds):
    """A grid function with one more layer of points, by NumPy's own modes."""
    modes = {"dirichlet": "constant", "neumann": "symmetric"}
    for axis, ends in enumerate(kinds):
        widths = [(0, 0)] * u.ndim
        if "periodic" in ends:
            widths[axis] = (1, 1)
            u = np.pad(u, widths, mode="wrap")
            continue
        for side, kind in enumerate(ends):
            widths[axis] = (1, 0) if side == 0 else (0, 1)
            u = np.pad(u, widths, mode=modes[kind])
    return u
