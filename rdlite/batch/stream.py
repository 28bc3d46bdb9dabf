"""A batch whose detections come out at once and in order, with nothing on disk to go on from."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from rdlite.batch.images import Image, ImageTask, chunk_size
from rdlite.batch.totals import Forecast, Listener, Totals, failure_text
from rdlite.overlap import prefetch
from rdlite.sinks.base import to_line
from rdlite.storage.outputs import Input, utf8_name
from rdlite.video.plan import Part, VideoPlan, plan_video
from rdlite.video.reader import VideoReader, check_range
from rdlite.workers.pool import Outcome, Pool

if TYPE_CHECKING:
    from rdlite.detector import Detector

_AHEAD: Final = 8  # tasks for each worker that may wait for an earlier one to end


@dataclass(frozen=True, slots=True)
class PartLines:
    """What `LinesTask` found.

    Attributes:
        lines: As `rdlite.sinks.base.to_line` makes them; `frame` counts from the part's first one.
        frames: Frames of the part.
        damaged: It could not be read in full.
        warnings: One sentence for each thing that could not be read.
    """

    lines: list[dict[str, Any]]
    frames: int
    damaged: bool
    warnings: list[str]


@dataclass(frozen=True, slots=True)
class LinesTask:
    """A task for `rdlite.workers.pool.Pool`: the objects in a part of a video; returns `PartLines`.

    Attributes:
        number: Of the video among the inputs.
        plan: The video.
        part: The part.
        stride: Detect in every Nth frame of the video.
    """

    number: int
    plan: VideoPlan
    part: Part
    stride: int

    @property
    def label(self) -> str:
        """Name of the video, and which part of it this is: "clip.mp4 3/12"."""
        return f"{self.plan.path.name} {self.part.index + 1}/{len(self.plan.parts)}"

    def __call__(self, detector: Detector, report: Callable[[int], None]) -> PartLines:
        """Look at the part; see `rdlite.workers.pool.Task`."""
        lines = []
        with VideoReader(self.plan.path, part=self.part) as reader, prefetch(reader, 2) as frames:
            for frame in frames:
                if (self.part.frames_before + frame.index) % self.stride == 0:
                    found = detector(frame.image)
                    line = to_line(found, frame=frame.index, pts=frame.pts, time=frame.time)
                    lines.append(line | {"dropped_nonfinite": found.dropped_nonfinite})
                report(1)
        damaged = reader.truncated or reader.bad_packets > 0
        return PartLines(lines, reader.frames_read, damaged, reader.warnings())


@dataclass(frozen=True, slots=True)
class _Unplanned:
    number: int
    error: str


_Item: TypeAlias = "ImageTask | LinesTask | _Unplanned"
_Ended: TypeAlias = "Outcome | _Unplanned"


class Stream:
    """Looks at images and videos, and yields what it finds in their order.

    Args:
        inputs: The images and videos.
        detector: What looks at them.
        pool: The workers, started.
        listener: Who is told what happens.
        totals: Where all of it is counted.
        stride: In videos, detect in every Nth frame.
        start: Seconds since the container's start of a video's first frame, None for all.
        end: Seconds before which a video's last frame begins, None for all.
    """

    def __init__(
        self,
        inputs: Sequence[Input],
        detector: Detector,
        pool: Pool,
        listener: Listener,
        totals: Totals,
        *,
        stride: int = 1,
        start: float | None = None,
        end: float | None = None,
    ) -> None:
        self._totals = totals
        self._inputs, self._detector, self._pool, self._listener = inputs, detector, pool, listener
        check_range(stride, start, end)
        self._stride = stride
        self._start, self._end = start, end
        videos = sum(one.video for one in inputs)
        self._images = len(inputs) - videos
        self._forecast = Forecast(self._images, videos)
        # Of the video whose parts are coming out: frames so far, and whether all is well.
        self._frames, self._damaged, self._failed = 0, False, False

    def lines(self) -> Generator[dict[str, Any], None, None]:
        """Yield a line for each image and each frame, as `rdlite.convert.copy_lines` takes it."""
        self._pool.on_progress = self._listener.progress
        with prefetch(self._items(), 1 + self._pool.workers) as items:
            for ended in self._in_order(items):
                if isinstance(ended, _Unplanned):
                    self._fail(ended.number, ended.error)
                elif isinstance(ended.task, ImageTask):
                    yield from self._image_lines(ended.task, ended)
                elif isinstance(ended.task, LinesTask):
                    yield from self._frame_lines(ended.task, ended)

    def _items(self) -> Iterator[_Item]:
        """Yield what is to be done; in a thread of its own, since planning a video takes time."""
        images: list[Image] = []
        size = chunk_size(self._images, self._pool.workers)
        for number, one in enumerate(self._inputs):
            if not one.video:
                images.append(Image(number, Path(one.path), None))
            if images and (one.video or len(images) == size):
                yield ImageTask(None, tuple(images))
                images.clear()
            if one.video:
                yield from self._parts(number, one)
        if images:
            yield ImageTask(None, tuple(images))

    def _parts(self, number: int, one: Input) -> Iterator[LinesTask | _Unplanned]:
        try:
            plan = plan_video(one.path, start=self._start, end=self._end)
        except Exception as error:  # whatever is wrong with one video, the others go on
            yield _Unplanned(number, failure_text(one.path, error))
            return
        for part in plan.parts:
            yield LinesTask(number, plan, part, self._stride)

    def _in_order(self, items: Iterator[_Item]) -> Iterator[_Ended]:
        """Submit tasks and yield how they ended, in the same order."""
        waiting: deque[_Item] = deque()
        ended: dict[int, _Ended] = {}
        while True:
            while self._pool.wanting and len(waiting) < _AHEAD * self._pool.workers:
                item = next(items, None)
                if item is None:
                    break
                waiting.append(item)
                self._take(item, ended)
            if not waiting:
                return
            if id(waiting[0]) not in ended:
                self._wait(ended)
                continue
            head = waiting.popleft()
            result = ended.pop(id(head))
            if isinstance(head, ImageTask) and len(head.images) > 1 and _error(result):
                # One of them is to blame, say for the death of a worker.
                for one in reversed(head.alone()):
                    waiting.appendleft(one)
                    self._pool.submit(one, first=True)
            else:
                yield result

    def _take(self, item: _Item, ended: dict[int, _Ended]) -> None:
        if isinstance(item, _Unplanned):
            ended[id(item)] = item
            self._forecast.drop(video=True)
        else:
            self._pool.submit(item)
            if isinstance(item, ImageTask):
                self._forecast.add_images(len(item.images))
            elif item.part.index == 0:
                self._forecast.add_video(item.plan.frames, item.plan.frames)
        self._listener.expect(self._forecast.units)

    def _wait(self, ended: dict[int, _Ended]) -> None:
        outcome = self._pool.wait()
        if outcome is not None:
            ended[id(outcome.task)] = outcome
        self._listener.check()

    def _image_lines(self, task: ImageTask, outcome: Outcome) -> Iterator[dict[str, Any]]:
        if outcome.error is not None:
            path = task.images[0].path
            self._fail(task.images[0].number, failure_text(path, outcome.error))
            return
        for result in outcome.value:
            if result.entry is None:
                self._fail(result.number, result.error)
            else:
                self._totals.add_image(result.entry)
                yield result.entry | self._where(result.number)

    def _frame_lines(self, task: LinesTask, outcome: Outcome) -> Iterator[dict[str, Any]]:
        path = task.plan.path
        if task.part.index == 0:
            self._frames, self._damaged, self._failed = 0, False, False
        if outcome.error is not None and not self._failed:
            self._failed = True
            self._fail(task.number, failure_text(path, outcome.error))
        if self._failed:
            return
        found: PartLines = outcome.value
        for line in found.lines:
            self._totals.add_objects(line)
            frame = {"frame": line["frame"] + self._frames}
            yield line | frame | self._where(task.number)
        for sentence in found.warnings:
            self._listener.warn(f"{path}: {sentence}")
        self._frames += found.frames
        self._damaged |= found.damaged
        if task.part.index == len(task.plan.parts) - 1:
            self._totals.videos += 1
            self._totals.frames += self._frames
            self._totals.units += self._frames
            self._totals.damaged += self._damaged

    def _where(self, number: int) -> dict[str, str]:
        one = self._inputs[number]
        return {"image": utf8_name(one.path), "place": one.output}

    def _fail(self, number: int, error: str) -> None:
        self._totals.failed += 1
        self._listener.failed(self._inputs[number].path, error)


def _error(ended: _Ended) -> Exception | None:
    return ended.error if isinstance(ended, Outcome) else None
