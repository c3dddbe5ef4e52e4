"""Evaluation of trained models: one loop for all tasks, coverage, scores and comparisons."""
