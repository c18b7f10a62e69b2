"""The meaning of the columns of a table, and their conversion to numbers.

Reading order: `dates`, `meaning`, `codes`, `encoding`, `targets`, `selection`.
"""
