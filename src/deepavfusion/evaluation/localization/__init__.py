"""Evaluation of localization: samples, maps, protocols, figures."""
