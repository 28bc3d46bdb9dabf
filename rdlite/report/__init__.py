"""A page on a file of detections that a browser opens without a network; see `write_report`."""

from rdlite.report.write import Progress, Report, write_report

__all__ = ["Progress", "Report", "write_report"]
