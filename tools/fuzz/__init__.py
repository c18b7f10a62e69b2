"""Fuzzers: what mgnet does with damaged files, odd texts, interruptions and faults.

`python -m tools.fuzz NAME --count N --seed S`, from the root of the repository, or `--help`.
"""
