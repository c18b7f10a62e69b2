"""What the columns of a table mean, and the numbers that stand for them.

Reading order: `dates`, `meaning`, `codes`, `encoding`, `targets`, `selection`.
"""
