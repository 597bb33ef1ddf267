"""A run as one HTML page: curves, ranked lists, clusters, times and options."""

from __future__ import annotations

from ccfast.report.page import write_report

__all__ = ["write_report"]
