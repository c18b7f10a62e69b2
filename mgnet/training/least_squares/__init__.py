"""Losses that are sums of squares: residuals, Jacobians, and the solvers that use them.

Reading order: `problem`, `recentred`, `jacobian`, `linearization`; `levenberg_marquardt` with
`normal_equations`, `newton_krylov` and `factorizations`; the last layer: `last_layer`,
`newton_last_layer`, `adaptive_basis`.
"""
