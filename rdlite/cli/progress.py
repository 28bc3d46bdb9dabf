"""Progress for a person at a terminal: one bar for the whole batch, and a line for each worker."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final

from rdlite.workers.pool import Task

_DELAY: Final = 2.0  # seconds; a bar for a shorter job only flickers
_PAUSE: Final = 0.2  # seconds between two changes on the screen


class Bars:
    """Shows nothing where standard error is no terminal.

    Args:
        unit: What is counted: "img", "frame".
        hidden: Show nothing anywhere.
    """

    def __init__(self, unit: str, *, hidden: bool) -> None:
        self._hidden = hidden or not sys.stderr.isatty()
        self._lines: dict[int, _Line] = {}
        self._begun = monotonic()
        self._bar = self._tqdm(
            unit=unit, delay=_DELAY, mininterval=_PAUSE, miniters=1, smoothing=0.1
        )

    def expect(self, units: float) -> None:
        """Set how much there is to do in all."""
        self._bar.total = round(units)

    def advance(self, worker: int, task: Task, units: int) -> None:
        """See `rdlite.workers.pool.Pool.on_progress`."""
        if self._hidden:
            return
        self._bar.update(units)
        now = monotonic()
        line = self._lines.get(worker)
        if line is None or line.task is not task:
            # Shown after a pause, when there is a rate to show.
            line = self._lines[worker] = _Line(task, now, now, line and line.bar)
        line.units += units
        if now - self._begun < _DELAY or now - line.shown < _PAUSE:
            return
        line.shown = now
        if line.bar is None:
            line.bar = self._tqdm(position=worker + 1, bar_format="  {desc}")
        line.bar.set_description_str(f"{task.label}  {line.units / (now - line.begun):.1f}/s")

    def close(self) -> None:
        """Remove all of it from the screen."""
        for line in self._lines.values():
            if line.bar is not None:
                line.bar.close()
        self._bar.close()

    def _tqdm(self, **options: Any) -> Any:
        from tqdm import tqdm

        return tqdm(disable=self._hidden, file=sys.stderr, leave=False, **options)


@dataclass(slots=True)
class _Line:
    """What one worker does; its tqdm bar, once it is shown, goes from task to task."""

    task: Task
    begun: float
    shown: float
    bar: Any
    units: int = 0
