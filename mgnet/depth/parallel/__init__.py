"""Propagation of networks by MGRIT: the module `LayerParallel`, forward and backward.

Reading order: `layer_parallel`, `solve`, `control`, `propagation_setup`, `propagation`, `history`,
`coarse_layers`, `serial`; for several processes `local_layers`, `shared_weights`.
"""
