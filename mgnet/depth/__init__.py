"""The grid of an ODE net is its layers.

All layers at once as one equation for the trajectory, relaxation over F- and C-layers, MGRIT for
the forward and the adjoint solve, a layer-parallel module for ordinary training loops, and
refinement in depth that leaves the network unchanged. Needs the core and PyTorch.
"""
