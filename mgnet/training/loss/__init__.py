"""A network as an equation: its loss as a function of the flat parameter vector, with its gradient.

Reading order: `objective`, `parameters`, `checks`.
"""
