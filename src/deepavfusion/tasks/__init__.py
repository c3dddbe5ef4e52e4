"""What can be trained: each task says how to build its model, its data, its loss and its pictures."""
