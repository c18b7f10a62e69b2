"""Optimizers as smoothers: PyTorch's own (`optimizer`), `broyden` with `wolfe`, `early_stop`."""
