"""The longer runs behind the figures of the docs: `python -m experiments` (or `make results`).

Worlds, encoders and task runs are kept in a folder outside the checkout, named by configuration and seed, and reused by
every experiment. Each step is one command of the package; what is done is not done again. The small result files that
the docs quote are written to docs/results.
"""
