"""Recurrent networks that solve for all time steps at once: the module `TimeParallel`.

Reading order: `time_parallel`, `solve`, `cycles`, `chaos`, `propagation`; for steps of cells:
`step_tape`, `gru_steps`, `lstm_steps`, `implicit_gru`, `cell_steps`, `cell_call`, `extrapolation`,
`recurrence`; for the user's arguments: `sequences`, `initial_state`, `cell_checks`,
`saved_settings`; `serial`, `measured`; for several processes: `time_share`, `pieces`,
`shared_solve`.
"""
