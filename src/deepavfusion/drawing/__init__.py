"""Figures, overlays and videos of runs, scores and predictions, drawn from arrays."""
