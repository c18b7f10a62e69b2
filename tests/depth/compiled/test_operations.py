"""Every operation and every function has a number of its own."""

from mgnet.depth.compiled import operations as ops

FUNCTIONS = "TANH SIGMOID RELU SILU EXP GELU GELU_TANH SOFTPLUS ELU LEAKY SIN COS".split()


def test_numbers_are_different():
    functions = [getattr(ops, name) for name in FUNCTIONS]
    others = [getattr(ops, name) for name in ops.__all__ if name not in FUNCTIONS]
    assert sorted(functions) == list(range(len(functions)))
    assert sorted(others) == list(range(len(others)))


def test_functions_of_vectors_come_first():
    first = {ops.TANH, ops.SIGMOID, ops.RELU, ops.SILU, ops.EXP}
    assert first == set(range(ops.GELU))
