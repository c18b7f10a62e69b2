"""Many layers of one block in one call: slopes and vector-Jacobian products.

Reading order: `scheme`, `layers`, `block`, `tape`; `tracing`, `arithmetic` and `autocast` make the
programs.
"""
