"""Initial-value problems for those who come from torchdiffeq: `odeint`.

Reading order: `state_tree`, `right_hand_side` (what users give), `fixed_grid` and `step_doubling`
(time grids), `time_steps` and `integration` (the layers of a grid, solved), `arguments`, `odeint`.
"""
