"""What people touch: the command line, scikit-learn estimators, plots and checkpoints.

Uses every other folder; no other folder uses it. Its dependencies are the extra ``app``.
"""
