"""All layers, or all steps of a one-step method, as one equation solved by multigrid (MGRIT).

This package does not depend on networks. Only `communicator`, for several processes, needs PyTorch.
Reading order: `c_layers`, `layer_equation`, `relaxation`, `scan`, `newton`, `layer_hierarchy`,
`one_step`, `spatial_coarsening`, `lyapunov_exponent`, `machine`, `plan`; `communicator`.
"""
