"""The options of the commands that read results and show or convert them."""

from __future__ import annotations

from typing import Any


def add_results(commands: Any) -> None:
    """Add convert, report and compare."""
