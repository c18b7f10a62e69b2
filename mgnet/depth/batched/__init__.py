"""Many layers of one block in one call: slopes and vector-Jacobian products.

Reading order: `scheme`, `layers`, `block`, `block_call`, `draws`, `tape`; `traces` stores the
results of `tracing` and `programs`, which use `stand_ins`, `graphs`, `arithmetic` and `autocast`.
"""
