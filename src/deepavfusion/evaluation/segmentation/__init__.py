"""Evaluation of segmentation: what is scored, masks, protocols, pictures."""
