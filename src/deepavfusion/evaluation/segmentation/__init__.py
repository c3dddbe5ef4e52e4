"""Evaluation of segmentation: frames, masks, protocols, figures."""
