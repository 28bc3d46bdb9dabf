from __future__ import annotations

import io
import sys
from dataclasses import dataclass
from typing import Any

import pytest

from rdlite.cli import progress
from rdlite.cli.progress import Bars


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@dataclass
class Work:
    label: str

    def __call__(self, detector: Any, report: Any) -> None:
        raise NotImplementedError


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_DELAY", 0.0)
    monkeypatch.setattr(progress, "_PAUSE", 1e-9)


def show(bars: Bars) -> None:
    bars.expect(400)
    first, second = Work("a.mp4 1/3"), Work("b.mp4")
    for worker, task in enumerate((first, second)):
        bars.advance(worker, task, 0)
        bars.advance(worker, task, 50)
    third = Work("a.mp4 2/3")
    bars.advance(0, third, 0)
    bars.advance(0, third, 100)
    bars.advance(1, second, -50)  # its worker died
    bars.advance(1, second, 200)
    bars.close()


def test_all_that_is_done_and_each_worker_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    show(Bars("frame", hidden=False))
    shown = terminal.getvalue()
    assert all(label in shown for label in ("a.mp4 1/3  ", "b.mp4  ", "a.mp4 2/3  "))
    assert "/400 [" in shown and "frame/s" in shown
    assert shown.rstrip("\r").split("\r")[-1].strip() == ""  # nothing stays on the screen


@pytest.mark.parametrize(
    ("stream", "hidden"), [(Terminal(), True), (io.StringIO(), False)], ids=["hidden", "file"]
)
def test_nothing_is_shown_on_demand_or_without_a_terminal(
    stream: io.StringIO, hidden: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    show(Bars("frame", hidden=hidden))
    assert stream.getvalue() == ""
