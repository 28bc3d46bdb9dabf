"""Tasks for the tests of pools, in a module that worker processes can import."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rdlite import Detector

Report = Callable[[int], None]


@dataclass(frozen=True)
class Square:
    """Its number squared, after `units` reports of one unit each."""

    number: int
    units: int = 0
    pause: float = 0.0

    @property
    def label(self) -> str:
        return f"square {self.number}"

    def __call__(self, detector: Detector, report: Report) -> int:
        for _ in range(self.units):
            report(1)
            time.sleep(self.pause)
        return self.number**2


@dataclass(frozen=True)
class Pid:
    """The number of the worker's process."""

    label: str = "pid"

    def __call__(self, detector: Detector, report: Report) -> int:
        return os.getpid()


@dataclass(frozen=True)
class Until:
    """Reports one unit, waits until a file is there, and then writes `done` beside it.

    When it is interrupted it writes `tidied` instead.
    """

    gate: Path
    label: str = "until"

    def __call__(self, detector: Detector, report: Report) -> int:
        (self.gate.parent / f"begun-{os.getpid()}").touch()
        report(1)
        try:
            while not self.gate.exists():
                time.sleep(0.005)
        except BaseException:
            (self.gate.parent / "tidied").touch()
            raise
        (self.gate.parent / "done").touch()
        return os.getpid()


@dataclass(frozen=True)
class Flood:
    """Waits until a file is there, reports units one by one, and writes `flooded` beside it."""

    gate: Path
    units: int
    label: str = "flood"

    def __call__(self, detector: Detector, report: Report) -> None:
        while not self.gate.exists():
            time.sleep(0.005)
        for _ in range(self.units):
            report(1)
        (self.gate.parent / "flooded").touch()


@dataclass(frozen=True)
class Dies:
    """Ends its process as often as `times` says, by a signal or with an exit code."""

    folder: Path
    times: int
    code: int | None = None
    label: str = "dies"

    def __call__(self, detector: Detector, report: Report) -> str:
        tries = len(list(self.folder.iterdir()))
        if tries >= self.times:
            report(10)
            return f"done at try {tries + 1}"
        (self.folder / f"{tries}").touch()
        report(5)
        time.sleep(0.5)  # so that the five are told before
        if self.code is not None:
            os._exit(self.code)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


class Awkward(Exception):
    """Can be pickled, but not unpickled."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


class Holding(Exception):
    """Cannot be pickled."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


ERRORS: dict[str, Callable[[], Exception]] = {
    "key": lambda: KeyError("missing"),
    "awkward": lambda: Awkward("one", "two"),
    "holding": lambda: Holding("a lock"),
}


@dataclass(frozen=True)
class Fails:
    """Raises one of `ERRORS`."""

    kind: str
    label: str = "fails"

    def __call__(self, detector: Detector, report: Report) -> None:
        raise ERRORS[self.kind]()


@dataclass(frozen=True)
class Unsendable:
    """Returns what cannot be pickled."""

    label: str = "unsendable"

    def __call__(self, detector: Detector, report: Report) -> Any:
        return threading.Lock()


@dataclass(frozen=True)
class Big:
    """Carries and returns many bytes."""

    content: bytes
    label: str = "big"

    def __call__(self, detector: Detector, report: Report) -> bytes:
        return self.content[::-1]


@dataclass(frozen=True)
class Detect:
    """What the worker's detector finds in a picture, and how many threads OpenCV has there."""

    image: np.ndarray
    label: str = "detect"

    def __call__(self, detector: Detector, report: Report) -> tuple[Any, int]:
        import cv2

        return detector(self.image).to_dict(), cv2.getNumThreads()


@dataclass(frozen=True)
class Complains:
    """Writes to stderr and warns."""

    label: str = "complains"

    def __call__(self, detector: Detector, report: Report) -> None:
        print("a line on stderr", file=sys.stderr)
        warnings.warn("a warning from a worker", stacklevel=1)
