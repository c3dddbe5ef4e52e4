"""A run's metrics: metrics.csv and probes.csv, figures under pictures/, and all of it to the trackers too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from PIL import Image

from deepavfusion.training.run_folder import CsvTable, RunFolder
from deepavfusion.training.trackers import Tracker
from deepavfusion.weight_files import one_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class MetricsLog:
    """Writes rows and pictures of one run; rows after `step`, from before an interruption, are dropped on opening.

    A tracker that cannot take something is named, and the run goes on: the files have it.
    """

    def __init__(self, folder: RunFolder, step: int, trackers: Sequence[Tracker], say: Callable[[str], None]) -> None:
        self.folder = folder
        self.table = CsvTable(folder.metrics)
        self.probes = CsvTable(folder.probes)
        for table in (self.table, self.probes):
            table.cut(step)
        self._trackers, self._say = trackers, say

    def row(self, row: dict[str, Any]) -> None:
        """Log one row; `step` is required, the other columns are numbers."""
        self.table.append([_short(row)])
        values = {key: value for key, value in row.items() if key != "step"}
        self._tell(lambda tracker: tracker.values(values, row["step"]), f"step {row['step']}")

    def probe(self, values: dict[str, float], step: int) -> None:
        """Log what a probe measured."""
        self.probes.append([_short({"step": step, **values})])
        probed = {f"probe/{name}": value for name, value in values.items()}
        self._tell(lambda tracker: tracker.values(probed, step), f"the probe of step {step}")

    def picture(self, name: str, figure: Figure, step: int) -> None:
        """Save a figure under pictures/ as NAME_STEP.png, and give what was drawn to the trackers."""
        path = self.folder.write_figure(f"{name}_{step:08d}", figure)
        with Image.open(path) as drawn:
            self._tell(lambda tracker: tracker.picture(name, drawn, step), path.name)

    def close(self) -> None:
        """Flush everything."""
        self._tell(lambda tracker: tracker.close(), "the end of the run")

    def _tell(self, give: Callable[[Tracker], None], what: str) -> None:
        for tracker in self._trackers:
            try:
                give(tracker)
            except tracker.failures as error:
                self._say(f"{tracker.name} did not take {what}: {one_line(error)}")


def _short(row: dict[str, Any]) -> dict[str, Any]:
    return {key: f"{value:.8g}" if isinstance(value, float) else value for key, value in row.items()}
