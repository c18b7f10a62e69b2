"""Time grids of initial-value problems: adaptive grids, and other time grids known from XBraid.

This subpackage uses NumPy and the levels of `mgrit`, without networks. Reading order:
`implicit_step` and `van_der_pol` (a stiff problem), `parallel_in_time` (a solve that falls back to
the serial march), `local_errors` (Richardson's estimate), `richardson` (extrapolation),
`dyadic_grid`, `adaptive_solution`, `adaptive`; `periodic`, `bdf2`, `observation`.
"""
