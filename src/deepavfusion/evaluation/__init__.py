"""Evaluation: one loop for all tasks, what it covers, the scores and comparisons made of it."""
