"""Time grids of initial-value problems: adaptive ones, and what else XBraid does to a time grid.

Uses NumPy and the levels of `mgrit`, no network. Reading order: `implicit_step` and `van_der_pol`
(a stiff problem), `parallel_in_time` (a solve that falls back to the serial march), `local_errors`
(Richardson's estimate), `richardson` (extrapolation), `dyadic_grid`, `adaptive_solution`,
`adaptive`; `periodic`, `bdf2`, `observation`.
"""
