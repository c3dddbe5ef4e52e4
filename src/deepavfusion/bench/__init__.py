"""Benchmarks: cost of models, of reading and of training steps. Variants are measured alternately in one run."""
