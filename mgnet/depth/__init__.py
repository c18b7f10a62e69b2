"""Multigrid methods whose grid consists of the layers of an ODE net.

This package contains one equation for the trajectory through all layers, relaxation over F- and
C-layers, MGRIT for the forward and the adjoint solve, a layer-parallel module for ordinary training
loops, and refinement in depth that leaves the network's function unchanged. It requires the core of
mgnet and PyTorch.

Reading order: `network` (the nets), `mgrit` (the layer equation and its levels), `batched` (many
layers in one call), `parallel` (propagation by MGRIT), `recurrent` (networks over time by MGRIT),
`hierarchy` (levels for training), `nested_training`, `time_grids` (time grids of initial-value
problems, such as adaptive ones), and `ode` (`odeint`, for users of torchdiffeq). The docstring of
each subpackage lists its files in order.
"""

from mgnet.depth.batched.block import StackedBlock
from mgnet.depth.batched.layers import Layers
from mgnet.depth.hierarchy import depth_hierarchy
from mgnet.depth.mgrit.c_layers import CLayers, Intervals
from mgnet.depth.mgrit.layer_equation import LayerEquation, Propagator
from mgnet.depth.mgrit.layer_hierarchy import layer_hierarchy, mgrit
from mgnet.depth.mgrit.lyapunov_exponent import Lyapunov
from mgnet.depth.mgrit.machine import Machine
from mgnet.depth.mgrit.newton import NewtonSweep
from mgnet.depth.mgrit.one_step import OneStep, dahlquist, heat
from mgnet.depth.mgrit.plan import best_plan, plan
from mgnet.depth.mgrit.relaxation import Relaxation, SerialSweep
from mgnet.depth.mgrit.spatial_coarsening import SpatialCoarsening
from mgnet.depth.nested_training import train_in_depth
from mgnet.depth.network.ode_net import ODENet
from mgnet.depth.network.optimizer_state import refine_optimizer
from mgnet.depth.network.parameter_groups import parameter_groups
from mgnet.depth.network.residual_block import ResidualBlock
from mgnet.depth.network.spline_weights import DepthSpline
from mgnet.depth.ode.odeint import odeint
from mgnet.depth.parallel.control import AdaptiveCycles, CyclesToTolerance, FixedCycles, PassReport
from mgnet.depth.parallel.gradient_norm import clip_grad_norm_
from mgnet.depth.parallel.graph_capture import GraphedLayers, capture_graph
from mgnet.depth.parallel.layer_parallel import LayerParallel
from mgnet.depth.parallel.lyapunov import lyapunov
from mgnet.depth.parallel.microbatches import accumulate_gradients
from mgnet.depth.recurrent.implicit_gru import ImplicitGRUCell
from mgnet.depth.recurrent.time_parallel import TimeParallel
from mgnet.depth.time_grids.adaptive import adaptive
from mgnet.depth.time_grids.adaptive_solution import AdaptiveSolution
from mgnet.depth.time_grids.bdf2 import bdf2
from mgnet.depth.time_grids.implicit_step import ImplicitStep
from mgnet.depth.time_grids.local_errors import local_errors, observed_order
from mgnet.depth.time_grids.observation import observed
from mgnet.depth.time_grids.parallel_in_time import TimeSolution, parallel_in_time
from mgnet.depth.time_grids.periodic import periodic_hierarchy
from mgnet.depth.time_grids.richardson import Richardson, richardson
from mgnet.depth.time_grids.van_der_pol import van_der_pol

__all__ = [
    "AdaptiveCycles",
    "AdaptiveSolution",
    "CLayers",
    "CyclesToTolerance",
    "DepthSpline",
    "FixedCycles",
    "GraphedLayers",
    "ImplicitGRUCell",
    "ImplicitStep",
    "Intervals",
    "LayerEquation",
    "LayerParallel",
    "Layers",
    "Lyapunov",
    "Machine",
    "NewtonSweep",
    "ODENet",
    "OneStep",
    "PassReport",
    "Propagator",
    "Relaxation",
    "ResidualBlock",
    "Richardson",
    "SerialSweep",
    "SpatialCoarsening",
    "StackedBlock",
    "TimeParallel",
    "TimeSolution",
    "accumulate_gradients",
    "adaptive",
    "bdf2",
    "best_plan",
    "capture_graph",
    "clip_grad_norm_",
    "dahlquist",
    "depth_hierarchy",
    "heat",
    "layer_hierarchy",
    "lyapunov",
    "local_errors",
    "mgrit",
    "observed",
    "observed_order",
    "odeint",
    "parameter_groups",
    "periodic_hierarchy",
    "plan",
    "refine_optimizer",
    "richardson",
    "parallel_in_time",
    "train_in_depth",
    "van_der_pol",
]
