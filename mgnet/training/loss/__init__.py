"""A network as an equation: the loss over its flat parameter vector, and the gradient of it.

Reading order: `objective`, `parameters`, `checks`.
"""
