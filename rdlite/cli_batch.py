"""What `rdlite detect` and `rdlite annotate` share: many inputs, of which bad ones stop nothing."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

from rdlite.cli import FAILED, INTERRUPTED, OK, SOME_FAILED, Interruption
from rdlite.cli_inputs import Input
from rdlite.detector import Detector
from rdlite.errors import ImageError, OptionError, RdliteError, VideoError


@dataclass(slots=True)
class Batch:
    """What became of a list of inputs.

    Attributes:
        quiet: Show no progress bar.
        errors: File that gets a line for each failure, at once; None for no such file.
        done: Inputs that went through.
        damaged: Those of them that could not be read in full.
        failed: Inputs that did not, and arguments that name none.
        found: Detections by class name.
        dropped: Boxes removed because the network returned NaN or infinity.
        interrupted: Stopped by the user before the end.
        stopped: Stopped because the output cannot be written.
        start: When it began, seconds of `perf_counter`.
    """

    quiet: bool
    errors: Path | None
    done: int = 0
    damaged: int = 0
    failed: int = 0
    found: Counter[str] = field(default_factory=Counter)
    dropped: int = 0
    interrupted: bool = False
    stopped: bool = False
    start: float = field(default_factory=perf_counter)

    def run(self, inputs: Sequence[Input], work: Callable[[Input], None], *, unit: str) -> None:
        """Work on every input until the user or a full disk stops it; show a person a bar."""
        from tqdm import tqdm

        hidden = True if self.quiet or len(inputs) < 2 else None  # None: on a terminal only
        with tqdm(inputs, unit=unit, disable=hidden, delay=2, file=sys.stderr) as bar:
            try:
                for one in bar:
                    self._try(one, work)
                    if self.stopped or Interruption.asked:
                        break
            except KeyboardInterrupt:
                Interruption.asked = True
        self.interrupted = Interruption.asked

    def _try(self, one: Input, work: Callable[[Input], None]) -> None:
        try:
            work(one)
            self.done += 1
        except (ImageError, VideoError) as error:
            self.fail(one.path, str(error))
        except BrokenPipeError:
            raise
        except OSError as error:  # writing a copy; the next one would fare no better
            self.stopped = True
            self.fail(one.path, f"{error.filename or one.output}: {error.strerror}")

    def fail(self, source: str | Path, error: str) -> None:
        """Report and count an input that cannot be worked on."""
        self.failed += 1
        self.say(f"rdlite: {error}", to_stderr=True)
        if self.errors is not None and not self.stopped:
            with open(self.errors, "a", encoding="utf-8") as file:
                # ASCII, because a file's name need not be UTF-8.
                file.write(json.dumps({"input": os.fspath(source), "error": error}) + "\n")

    def note(self, text: str) -> None:
        """Print what a person should know, unless there is nothing or `quiet`."""
        if text and not self.quiet:
            self.say(f"rdlite: {text}", to_stderr=True)

    def say(self, text: str, *, to_stderr: bool = False) -> None:
        """Print, without tearing the bar."""
        from tqdm import tqdm

        stream = sys.stderr if to_stderr else sys.stdout
        tqdm.write(text, file=stream)
        stream.flush()

    @property
    def seconds(self) -> float:
        """Time since the beginning."""
        return perf_counter() - self.start

    @property
    def exit_code(self) -> int:
        """The exit code of the command."""
        if self.interrupted:
            return INTERRUPTED
        if not self.done:
            return FAILED
        return SOME_FAILED if self.failed or self.damaged else OK

    def ending(self, total: int) -> str:
        """Say that inputs were left undone, for the end of a summary line; else nothing."""
        left = total - self.done - self.failed
        why = "interrupted" if self.interrupted else "stopped"
        return f"; {why}, {left} not done" if self.interrupted or self.stopped else ""


class Outputs:
    """Where annotated copies may go: into the output folder, and over no file of the user.

    Args:
        folder: The output folder.
        inputs: All inputs; none of them is replaced, asked or not.
        overwrite: Replace other files.
    """

    def __init__(self, folder: Path, inputs: Sequence[Input], *, overwrite: bool) -> None:
        self.overwrite = overwrite
        self._folder = folder
        self._root = folder.resolve()
        self._inputs = {os.path.abspath(one.path) for one in inputs}

    def path(self, one: Input, *, error: type[RdliteError]) -> Path:
        """Return where the copy of an input goes.

        Args:
            one: The input.
            error: What to raise if the copy may not go there.
        """
        path = self._folder / one.output
        if not path.parent.resolve().is_relative_to(self._root):
            raise error(f"{path} is behind a link out of {self._folder}; use another -o")
        if path.exists() and (
            os.path.abspath(path) in self._inputs or os.path.samefile(one.path, path)
        ):
            raise error(f"{path} is an input, which is never replaced; use another -o")
        refuse_existing(path, overwrite=self.overwrite, error=error)
        return path


def make_detector(
    *,
    model: str | None,
    conf: float,
    iou: float,
    nms: str,
    max_det: int,
    threads: int,
    classes: list[str | int] | None = None,
) -> Detector:
    """Return the detector that the options of a command line describe."""
    import cv2

    cv2.setNumThreads(1)  # so that --threads is the number of threads
    logging.basicConfig(level=logging.WARNING, format="rdlite: %(message)s")
    return Detector(
        model, conf=conf, iou=iou, nms=nms, max_det=max_det, classes=classes, threads=threads
    )


def output_folder(output: Path, *, overwrite: bool) -> Path:
    """Make the output folder and return where its failures are listed.

    `errors.jsonl` grows from run to run; with `overwrite` it starts anew.
    """
    output.mkdir(parents=True, exist_ok=True)
    errors = output / "errors.jsonl"
    if overwrite:
        errors.unlink(missing_ok=True)
    return errors


def refuse_existing(path: Path, *, overwrite: bool, error: type[RdliteError] = OptionError) -> None:
    """Raise if a file would be replaced unasked."""
    if path.exists() and not overwrite:
        raise error(f"{path} exists already; use --overwrite or another -o")


def count(number: int, noun: str) -> str:
    """Return "1 image", "2 images"."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def by_class(found: Mapping[str, int], most: int = 6) -> str:
    """Return the most frequent classes: " (12 car, 3 person)"."""
    common = Counter(found).most_common()
    parts = [f"{number} {name}" for name, number in common[:most]]
    if len(common) > most:
        parts.append(f"{sum(number for _, number in common[most:])} of other classes")
    return f" ({', '.join(parts)})" if parts else ""
