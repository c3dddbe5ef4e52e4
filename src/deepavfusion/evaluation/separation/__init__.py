"""Evaluation of separation: which mixtures, what is made of them, protocols, pictures and sounds."""
