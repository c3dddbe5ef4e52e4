"""The report of a run: one self-contained HTML page made of the files the run left behind."""

from deepavfusion.report.demo_run import write_report

__all__ = ["write_report"]
