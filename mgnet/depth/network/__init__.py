"""Residual networks whose layers are time steps of an ordinary differential equation.

Reading order: `ode_net`, `layer_stack`, `residual_block`; then `refinement`, `sequential`,
`foreign_layers`, `layer_calls`, `spline_weights`, `dropout`, `parameter_groups`.
"""
