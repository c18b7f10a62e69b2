"""Many layers of one block in one call: slopes and vector-Jacobian products.

Reading order: `scheme`, `layers`, `block`, `block_call`, `draws`, `tape`; `traces` keeps what
`tracing` and `programs` make, by `stand_ins`, `graphs`, `arithmetic` and `autocast`.
"""
