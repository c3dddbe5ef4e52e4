"""Evaluation of localization: what is scored, score maps, protocols, pictures."""
