"""The package version, on its own so that `--version` and the build need nothing else."""

__version__ = "0.1.0"
