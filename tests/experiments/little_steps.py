"""Functions that steps of the tests run in processes of their own; alone in a file that loads nothing heavy."""

import os
import time
from pathlib import Path


def copy(sources: tuple[Path, ...], out: Path) -> None:
    """Write the sources' texts to `out`."""
    out.write_text("+".join(source.read_text() for source in sources) or "start")


def wait_long(out: Path) -> None:
    """Say who waits, and wait."""
    (out.parent / "began").write_text(str(os.getpid()))
    time.sleep(120)
