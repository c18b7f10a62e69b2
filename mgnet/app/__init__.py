"""The command `mgnet`: fit a network to a table, predict with it, compare it with other methods.

Reading order: `cli`, `job`; the rooms `files` (tables as they stand) and `columns` (what they
mean), `table` and `data`; `fit`, `model`, `prediction`; `comparison`, `baselines`,
`boosted_trees`, `tensor_spline`; `report`, `report_errors`, `pictures`, `terminal`,
`output_folder`. Uses the other folders; no other folder uses it. Its dependencies are the extra
`app`.
"""
