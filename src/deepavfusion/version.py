"""The package version, in a file of its own so that `--version` and the build need nothing else."""

__version__ = "0.1.0"
