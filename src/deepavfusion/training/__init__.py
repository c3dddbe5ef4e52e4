"""The training engine: the loop of all tasks, optimiser, schedule, and the run folder from which a run continues."""
