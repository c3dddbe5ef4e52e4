"""Evaluation of classifiers: predictions of whole clips, scores, ensembles."""
