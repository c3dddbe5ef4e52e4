"""Training tasks: each defines its model, its data, its loss and its figures."""
