"""The report of a run: one self-contained HTML page made from the files of the run."""

from deepavfusion.report.demo_run import write_report

__all__ = ["write_report"]
