"""The command `mgnet`: fit a network to a table, predict with it, compare it with other methods.

Reading order: `cli`, `job`; the subpackages `files` (tables as they are stored) and `columns`
(their meaning), `table` and `data`; `fit`, `model`, `prediction`; `comparison`, `baselines`,
`boosted_trees`, `tensor_spline`; `report`, `report_errors`, `pictures`, `terminal`,
`output_folder`. It uses the other packages of mgnet, and none of them uses it. Its dependencies are
listed in the extra `app`.
"""
