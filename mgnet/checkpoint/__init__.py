"""Checkpoints: a run in files, from which it goes on with the same bits."""
