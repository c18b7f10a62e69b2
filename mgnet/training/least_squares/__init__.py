"""Losses that are sums of squares: residuals, Jacobians, and the solvers that use them.

Reading order: `problem` with `losses` and `weights`, `recentred`, `jacobian`, `linearization`,
`covariance`; `levenberg_marquardt` with `bounds`, `normal_equations`, `newton_krylov` and
`factorizations`; the last layer: `last_layer`, `newton_last_layer`, `adaptive_basis`.
"""
