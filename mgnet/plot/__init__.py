"""Pictures: cycles, convergence and training; the edges of a KAN. Needs matplotlib."""
