"""Losses that are sums of squares: residuals, Jacobians, and the solvers that use them.

Reading order: `problem` with `losses` and `weights`, `recentred`, `jacobian`, `linearization`,
`row_blocks`, `covariance`; `levenberg_marquardt` (the smoother) and `minimization` (the function)
with `arguments`, `sweep`, `device_steps`, `device_reads`, `units`, `proportion`, `step_rules`,
`probed_radius`, `bounds` and `endings`; `normal_equations`, `singular_values` and `newton_krylov`
for their linear systems; and for the last layer `last_layer`, `newton_last_layer` and
`adaptive_basis`.
"""
