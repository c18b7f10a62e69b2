"""Optimizers as smoothers: PyTorch's own, `broyden` with `wolfe`, and `early_stop`."""
