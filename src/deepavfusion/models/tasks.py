"""The table of tasks: their names, and the model class of each. Never imports torch."""

from __future__ import annotations

from typing import Literal

TaskName = Literal["classification", "localization", "separation", "segmentation"]
TASK_MODELS: dict[TaskName, str] = {
    "classification": "AudioVisualClassifier",
    "localization": "Localizer",
    "separation": "Separator",
    "segmentation": "Segmenter",
}
"""By task, in the order in which they are listed everywhere, the model's class (`deepavfusion.models`)."""
