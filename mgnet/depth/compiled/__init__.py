"""Layers run one after another in one compiled loop, forward and backward."""
