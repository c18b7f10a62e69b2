"""Differential equations as least squares: `collocation`, `derivatives`, `batches`."""
