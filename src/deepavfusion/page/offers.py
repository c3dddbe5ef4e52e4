"""The tasks that a model can do, and the reasons why not the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from deepavfusion.inference.predictor import TASKS, Task

PageTask = Literal[Task, "search"]
"""What the page does with a recording: predictions, and the search of an archive."""


@dataclass(frozen=True)
class Words:
    """How the page speaks of a task."""

    title: str
    question: str


WORDS: dict[PageTask, Words] = {
    "classification": Words("Classes", "Which classes, over time?"),
    "localization": Words("Heat map", "Where in the frame does the sound come from?"),
    "separation": Words("Separation", "Which part of the sound comes from what the frame shows?"),
    "segmentation": Words("Masks", "Which pixels show what sounds?"),
    "embedding": Words("Features", "How similar are the moments of the recording, to the encoder?"),
    "search": Words("Search", "Which moments of the archive are most similar?"),
}


@dataclass(frozen=True)
class Offer:
    """One task on the page."""

    task: PageTask
    lacking: str = ""
    """Why it cannot be chosen; empty if it can."""

    @property
    def words(self) -> Words:
        return WORDS[self.task]


def offers_of(tasks: tuple[str, ...]) -> list[Offer]:
    """All tasks in their order, with the reason where a model has no head for one; a search only if there is one.

    Args:
        tasks: that can be done (`Analyst.tasks`).
    """
    offers = [
        Offer(task, "" if task in tasks else f"this model has no head for it; deepavfusion train {task} trains one")
        for task in TASKS
    ]
    return [*offers, Offer("search")] if "search" in tasks else offers


def chosen_first(offers: list[Offer]) -> list[PageTask]:
    """What is ticked when the page opens: all tasks with a head, and the search; features only where there is nothing
    else."""
    heads: list[PageTask] = [offer.task for offer in offers if not offer.lacking and offer.task != "embedding"]
    features: list[PageTask] = ["embedding"]
    return heads or features
