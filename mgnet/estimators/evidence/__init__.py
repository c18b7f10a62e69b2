"""Ensembles of small KANs whose penalties are chosen by the marginal likelihood.

Reading order: `modes`, `features`, `prior`, `likelihood`; `model`; `maximization`; `stacking`,
`assembly`, `ensemble`. All of it is NumPy; the network that comes out is a `mgnet.knots.KAN`.
"""
