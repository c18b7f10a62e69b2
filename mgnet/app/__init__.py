"""The command `mgnet`: fit a network to a table, predict with it, compare it with other methods.

Reading order: `cli`, `job`; the subpackages `files` (tables as they stand) and `columns` (their
meaning), `table` and `data`; `fit`, `model`, `prediction`; `comparison`, `baselines`,
`boosted_trees`, `tensor_spline`; `report`, `report_errors`, `pictures`, `terminal`,
`output_folder`. This package uses the others, and no other package uses it. Its dependencies are
the extra `app`.
"""
