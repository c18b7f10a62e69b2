"""Law: products through gates are those of the matrices that they stand for."""

import torch

from mgnet.depth.recurrent.step_tape import jacobian_of_gates, through_gates


def test_products_are_those_of_the_matrix():
    generator = torch.Generator().manual_seed(0)
    factors = torch.randn(2, 3, 4, 5, generator=generator)
    weight = torch.randn(20, 5, generator=generator)
    v = torch.randn(2, 3, 5, generator=generator)
    dense = jacobian_of_gates(factors, weight, "dense")
    by_loop = sum(torch.diag_embed(factors[:, :, g]) @ weight[5 * g : 5 * g + 5] for g in range(4))
    torch.testing.assert_close(dense, by_loop)
    torch.testing.assert_close(
        through_gates(v, factors) @ weight, (v[..., None, :] @ dense).squeeze(-2)
    )
    diagonal = jacobian_of_gates(factors, weight, "diagonal")
    torch.testing.assert_close(diagonal, torch.diagonal(dense, dim1=-2, dim2=-1))
