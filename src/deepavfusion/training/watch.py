"""What happens between the steps of a run: stopping, counting failures, logging, saving, drawing, probing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from deepavfusion.data.dataset import Batch
from deepavfusion.training.guards import FailureLog, FiniteGuard
from deepavfusion.training.intake import FIRST_LOOK, Intake
from deepavfusion.training.record import RunRecord
from deepavfusion.training.schedule import is_due
from deepavfusion.training.signals import StopRequest
from deepavfusion.training.state import TrainingState


class Watch:
    """Stopping, failures and schedule of one start of a run."""

    def __init__(self, state: TrainingState, record: RunRecord, stop: StopRequest, total_steps: int) -> None:
        """
        Args:
            state: what is trained.
            record: what is written about it.
            stop: whether somebody asked to stop.
            total_steps: steps of the whole run.
        """
        self.state, self.record, self.stop, self.total_steps = state, record, stop, total_steps
        self.settings, self.processes, folder = state.config.training, state.processes, record.folder
        self.failures = FailureLog(folder.failures, self.settings.max_failures, state.step, write=self.processes.first)
        self.guard = FiniteGuard(folder.path / "nonfinite", self.processes.rank)

    def agree(self, share: Sequence[Batch], counts: Sequence[Mapping[str, int]]) -> dict[str, float] | None:
        """Exchange what all processes must know before a step.

        Returns:
            For each loss term, the number of samples of the whole step over which it is a mean; None if any process was
            asked to stop, so that all stop at the same step.

        Raises:
            FailureBudgetError: too many clips could not be read, or none could.
            NothingLearnedError: there was nothing to learn from in an epoch, or by the end of the run.
        """
        totals = {term: sum(count[term] for count in counts) for term in counts[0]}
        failed = [{"clip": f.clip_id, "cause": f.cause} for batch in share for f in batch.failures]
        tracks = Intake.of(share)
        stopping, num_failed, *sums = self.processes.sum(
            [self.stop.requested is not None, len(failed), *tracks.values(), *totals.values()]
        )
        if stopping:
            return None
        self.state.intake.add(dict(zip([*tracks, *totals], sums, strict=True)))
        if num_failed:
            rows = [row for part in self.processes.gather(failed) for row in part]
            step = self.state.step + 1
            self.failures.record(step, rows, step * self.settings.batch_size)
        self._check_intake(next(iter(totals)))
        return dict(zip(totals, sums[len(tracks) :], strict=True))

    def look(self, lr: float) -> None:
        """After a step, whatever is due: a row of metrics, a checkpoint, figures, a probe."""
        settings, state, record = self.settings, self.state, self.record
        step, epochs_per_step, last = state.step, record.epochs_per_step, state.step == self.total_steps
        if last or step % settings.log_every == 0:
            record.row(step, lr, state.means)
        with record.aside():
            if last or step % settings.checkpoint_every == 0:
                self.guard.check()
                state.save()
            if is_due(settings.picture_every, step, epochs_per_step, last):
                record.pictures(step, state.whole_model())
            if last or is_due(settings.picture_every, step, epochs_per_step):
                record.learning_curve()
            if is_due(settings.probe_every, step, epochs_per_step, last):
                record.probe(step, state.whole_model())

    def summary(self) -> list[str]:
        """Warnings and counts to print at the end."""
        idle = [f"warning: loss_{term} was a mean over no clip at all" for term in self.state.intake.idle_terms()]
        unread = self.failures.summary()
        return idle if unread is None else [*idle, unread]

    def _check_intake(self, main_term: str) -> None:
        """Stop a run that had nothing to learn from in an epoch, or by its end."""
        num_drawn = (self.state.step + 1) * self.settings.batch_size
        last, task = self.state.step + 1 == self.total_steps, self.state.task
        if last or num_drawn >= min(len(task.clips), FIRST_LOOK):
            self.failures.check_some_read(num_drawn)
            self.state.intake.check(task.needs, main_term, num_drawn, self.state.config.data.source)
