"""Asks runs of real tasks to stop, as a scheduler would."""

import os
import signal
from typing import Any

from deepavfusion.training.task import Task


def stop_in_step_three(task: Task[Any]) -> None:
    """SIGTERM to this process while the third step's batch is counted."""
    counts, calls = task.counts, []

    def counted(batch: Any) -> dict[str, int]:
        calls.append(batch)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return counts(batch)

    task.counts = counted  # type: ignore[method-assign]
