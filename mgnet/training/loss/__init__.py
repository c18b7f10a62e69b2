"""The loss of a network as a function of its flat parameter vector, and the gradient of the loss.

Reading order: `objective`, `parameters`, `checks`.
"""
