"""Evaluation of separation: mixtures, estimates, protocols, figures and sounds."""
