"""Optimizers as smoothers: those of PyTorch (`optimizer`), `broyden` with `wolfe`, `early_stop`."""
