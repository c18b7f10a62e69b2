"""The command `mgnet`: fit a network to a table, predict with it, compare it with other methods.

Reading order: `cli`, `job`; `table`, `files` and `data`; `fit`, `model`, `prediction`;
`comparison`, `baselines`, `tensor_spline`; `report`, `pictures`, `terminal`, `output_folder`. Uses
the other folders; no other folder uses it. Its dependencies are the extra `app`.
"""
