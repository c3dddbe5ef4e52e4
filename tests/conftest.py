"""Fixtures every test may use."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

# A shell starts background jobs with SIGINT ignored, and programs inherit that: tests that interrupt a program of
# theirs would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference cases and real clips beside the checkout; tests that need it skip without it."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("needs the folder of reference cases and clips beside the checkout (../shared)")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _few_samples_are_measured() -> Iterator[None]:
    """The scale of heads' tokens from a few samples: reading 128 takes longer than the little runs that follow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("deepavfusion.tasks.encoder_task.NUM_MEASURED", 8)
        yield
