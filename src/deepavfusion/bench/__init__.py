"""Measurements: what a model, a reader, a training step costs, each ratio taken side by side in one run."""
