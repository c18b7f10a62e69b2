"""Our hierarchies under PETSc's solvers, and PETSc's solvers under our schedules.

Options from the command line, views shared by PETSc vectors and tensors, the DM that carries a
hierarchy, bindings for SNES, KSP and TAO, and the layout of layers and samples over MPI ranks. The
only folder that imports petsc4py; everything outside works without it.
"""
