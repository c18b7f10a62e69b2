"""All layers, or all steps of a one-step method, as one equation solved by multigrid (MGRIT).

Needs the core alone: no network, no torch. Reading order: `c_layers`, `layer_equation`,
`relaxation`, `layer_hierarchy`, `one_step`, `plan`; `communicator` for several processes.
"""
