"""Ensembles of small KANs whose penalties are chosen by the marginal likelihood.

Reading order: `modes`, `features`, `prior`, `likelihood`; `model`; `maximization`; `stacking`,
`assembly`, `ensemble`. All modules use NumPy; the resulting network is a `mgnet.knots.KAN`.
"""
