"""Propagation of networks by MGRIT: the module `LayerParallel`, forward and backward.

Read the modules in this order: `layer_parallel`, `solve`, `control`, `propagation_setup`,
`propagation`, `history`, `coarse_layers`, `serial`; then, for several processes, `local_layers` and
`shared_weights`.
"""
