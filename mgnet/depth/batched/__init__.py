"""Many layers of one block in one call: slopes and vector-Jacobian products.

Read the modules in this order: `scheme`, `layers`, `block`, `block_call`, `draws`, `tape`. The
module `traces` stores the results of `tracing` and `programs`, which use `stand_ins`, `graphs`,
`arithmetic` and `autocast`.
"""
