"""Figures, overlays and films: what is drawn of runs, scores and predictions. Numbers in, pictures out."""
