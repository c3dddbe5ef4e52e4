"""Evaluation of classifiers: predictions of whole clips, their scores, and what is made of several."""
