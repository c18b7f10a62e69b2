"""The operations of a layer that the compiled loops support, as numbers."""

from __future__ import annotations

__all__ = [
    "ADD",
    "AFFINE",
    "COPY",
    "COS",
    "ELU",
    "EXP",
    "FILL",
    "GELU",
    "GELU_TANH",
    "LEAKY",
    "LINEAR",
    "MULTIPLY",
    "NORM",
    "RELU",
    "SCALE",
    "SHIFT",
    "SIGMOID",
    "SILU",
    "SIN",
    "SOFTPLUS",
    "TANH",
    "UNARY",
]

# a, b: values; v, W: parameters; c, d: plain numbers.
LINEAR = 0  # W a + v
UNARY = 1  # f(a)
NORM = 2  # (a - mean) / deviation over the features
FILL = 3  # v for all samples
ADD = 4  # a + c b
MULTIPLY = 5  # a b
SHIFT = 6  # a + c v
SCALE = 7  # a v
AFFINE = 8  # c a + d
COPY = 9  # a

# Functions of one number; those before GELU are evaluated for a vector at once.
TANH, SIGMOID, RELU, SILU, EXP = range(5)
GELU, GELU_TANH, SOFTPLUS, ELU, LEAKY, SIN, COS = range(5, 12)
