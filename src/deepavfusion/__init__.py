"""Audio-visual learning with early-fusion transformers.

Importing this package is cheap: torch is loaded by the modules that compute, never by the configuration or the
command line.
"""

from deepavfusion.version import __version__

__all__ = ["__version__"]
