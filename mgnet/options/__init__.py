"""PETSc's options for our solvers, read with petsc4py or without it.

Reading order: `option_table`, `reader`, `solver_options`, `layer_options`.
"""
