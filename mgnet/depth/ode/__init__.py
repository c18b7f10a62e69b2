"""Initial-value problems for users of torchdiffeq: `odeint`.

Reading order: `state_tree`, `right_hand_side` (the user's arguments), `fixed_grid` and
`step_doubling` (time grids), `time_steps` and `integration` (the layers of a grid, solved),
`arguments`, `odeint`.
"""
