"""The training engine: one loop, its optimiser and schedule, and a run folder that a stopped run continues from."""
