"""Read a video file frame by frame: upright, with exact times, past damaged packets."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rdlite.errors import OptionError, VideoError
from rdlite.image import MAX_PIXELS
from rdlite.options import check_count
from rdlite.video.media import (
    MAX_BAD_PACKETS,
    SWS_MATRIX,
    Keyframe,
    declared_seconds,
    in_place,
    open_media,
    read_from_key,
    read_packets,
    reason,
    source_path,
    video_stream,
    yuv_matrix,
)
from rdlite.wording import count

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

    from rdlite.video.plan import Part

# Containers that state a duration in their header and do not fail when they end early.
_DECLARE_DURATION = ("matroska", "avi")
_FAR = 16  # frames, more than any are stored out of order
_LATEST = (1 << 63) - 1  # the highest tick that FFmpeg can be told


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One decoded frame.

    Attributes:
        index: Number of the frame, counted from 0 at the reader's start.
        pts: Presentation time stamp as the file states it, None where it states none.
        time: Seconds since the start of the container.
        ticks: The same instant as `time`, exact, in units of the stream's time base.
        duration: Ticks until the next frame as the file states it, 0 where unknown.
        image: uint8 `(H, W, 3)` BGR, rotated upright.
    """

    index: int
    pts: int | None
    time: float
    ticks: int
    duration: int
    image: npt.NDArray[np.uint8]


class VideoReader:
    """Iterate over the frames of a video file, once, in a `with` statement.

    Every packet is decoded on its own, so that a damaged one costs its own frames only. Times
    are the file's own, so variable frame rates are right. Interlaced video is returned as stored.
    It also closes itself when the iteration ends or is abandoned.

    Args:
        path: The file. URLs and playlists are refused.
        stride: Return every Nth frame, counted through all parts.
        start: Seconds since the container's start of the first frame wanted, None for all.
        end: Seconds before which the last frame wanted begins, None for all.
        part: Return the frames of this part of a `VideoPlan` only, counted from 0, and count
            only its packets; it has its own start and end.

    Attributes:
        frames_read: Frames from `start` to `end`, those that `stride` skips included.
        bad_packets: Packets that could not be read or decoded.
        missing_pts: Frames without a usable time stamp, which follow the one before them.
        truncated: True when the file ends before the frames that it declares.
        declared_frames: Number of frames that the header states, 0 where it states none.
        duration: Seconds that the header states, 0.0 where it states none.
        other_streams: How many further streams the file has, by kind: "audio", "subtitle", ...
        stream: The `av` stream that is read.
        time_base: Seconds per tick.
        rate: Mean frames per second.
        origin: Tick of the container's start; `Frame.ticks` counts from there.
        rotation: Degrees by which the latest frame was turned to be upright.

    Raises:
        OptionError: `stride`, `start` or `end` is out of range, or is given with a part.
        VideoError: The path is none, the file holds no video or is not the one that was planned,
            or more than 32 packets in a row are damaged.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        stride: int = 1,
        start: float | None = None,
        end: float | None = None,
        part: Part | None = None,
    ) -> None:
        check_range(stride, start, end)
        if part and (start, end) != (None, None):
            raise OptionError("give start and end to plan_video, not with a part of its plan")
        self.path = source_path(path)
        self.frames_read = self.bad_packets = self.missing_pts = 0
        self.truncated = False
        self._stride, self._part = stride, part
        self.rotation = self._end_ticks = self._last_dts = self._next_pts = 0
        self._open()
        self._start = part.start if part else self.ticks(start)
        self._before = part.frames_before if part else 0
        self._first, self._last = self._start, self.ticks(end)
        if part:
            # Up to the next part's keyframe all frames belong here, whatever their time.
            self._first, self._last = part.first, part.last if part.next_key is None else None
        self.declared_frames = self.stream.frames
        self.duration = (self._container.duration or 0) / 1e6
        streams = self._container.streams
        self.other_streams = dict(Counter(str(s.type) for s in streams if s is not self.stream))

    def _open(self) -> None:
        from av.stream import Discard

        self._container = open_media(self.path)
        self._sought = self._wait_for_key = self._in_next_part = False
        try:
            self.stream = video_stream(self._container, self.path)
            self._check_size(self.stream.codec_context)
        except VideoError:
            self.close()
            raise
        # One thread gives the same frames on every machine and reports errors where they are.
        self.stream.codec_context.thread_count = 1
        for other in self._container.streams:
            if other is not self.stream:
                other.discard = Discard.all  # skipped unread, where the container can
        self._unread = read_packets(self._container, self.stream)
        self.time_base = _fraction(self.stream.time_base, Fraction(1, 90_000))
        guess = _fraction(self.stream.guessed_rate, Fraction(25))
        self.rate = _fraction(self.stream.average_rate, guess)
        self.origin = _origin(self._container, self.stream, self.time_base)

    @property
    def far(self) -> int:
        """Ticks by which a time stamp is too far from both its neighbours to be true."""
        return max(round(_FAR / self.rate / self.time_base), round(1 / self.time_base))

    @property
    def sample_aspect_ratio(self) -> Fraction:
        """Width to height of one pixel of the upright picture."""
        aspect = _fraction(self.stream.codec_context.sample_aspect_ratio, Fraction(1))
        return 1 / aspect if self.rotation % 180 else aspect

    def warnings(self) -> list[str]:
        """Return one sentence for each thing that could not be read as the file promises.

        That of a file that ends early counts the frames of all parts up to there.
        """
        read, declared = self._before + self.frames_read, self.declared_frames
        frames = count(read, "frame was", "frames were")
        if declared and not (self._start or 0) > 0:  # nobody counted those before the start
            frames = f"{read:,} of {declared:,} frames were"
        bad = count(self.bad_packets, "damaged packet was", "damaged packets were")
        unstamped = count(self.missing_pts, "frame has", "frames have")
        sentences = {
            f"{bad} skipped.": self.bad_packets,
            f"The file ends early: {frames} read.": self.truncated,
            f"{unstamped} no usable time stamp, and the mean rate is taken, "
            f"{float(self.rate):.3f} a second.": self.missing_pts,
        }
        return [sentence for sentence, applies in sentences.items() if applies]

    def __iter__(self) -> Iterator[Frame]:
        with self:
            for ticks, decoded, stated in self._timed():
                if self._last is not None and ticks >= self._last:
                    if self._in_next_part:
                        continue  # earlier ones may still be in the decoder
                    return
                if self._first is None or ticks >= self._first:
                    index = self.frames_read
                    self.frames_read += 1
                    self.missing_pts += not stated
                    if (self._before + index) % self._stride == 0:
                        yield self._frame(index, ticks, decoded)
            if not self._in_next_part:
                self.truncated = self.truncated or self._ends_early()

    def _frame(self, index: int, ticks: int, decoded: VideoFrame) -> Frame:
        seconds, duration = float(ticks * self.time_base), decoded.duration or 0
        return Frame(index, decoded.pts, seconds, ticks, duration, self._image(decoded))

    def ticks(self, seconds: float | None) -> int | None:
        """Return the first tick at or after an instant, to the microsecond; None stays None.

        Args:
            seconds: Since the start of the container.
        """
        return None if seconds is None else math.ceil(Fraction(seconds - 1e-6) / self.time_base)

    def _timed(self) -> Iterator[tuple[int, VideoFrame, bool]]:
        """Yield frames with their ticks, and whether the file states those."""
        step = max(1, round(1 / self.rate / self.time_base))
        following = 0
        for pts, frame in in_place(self._decoded_from_first(), self.far):
            ticks = following if pts is None else pts - self.origin
            following = ticks + (frame.duration or step)
            self._end_ticks = max(self._end_ticks, following)
            yield ticks, frame, pts is not None

    def packets(self) -> Iterator[Packet[VideoStream] | None]:
        """Yield the packets undecoded, once more from where the frames were read from.

        None stands for a packet that cannot be read.
        """
        sought = self._sought
        self._restart()
        if sought:
            self._seek()
        return self._unread

    def _decoded_from_first(self) -> Iterator[VideoFrame]:
        if self._part and self._part.key:
            self._go_to(self._part.key)
            yield from self._decoded()
            return
        # Where a seek leads is checked, because an index may point too far; reading from the
        # beginning is slower and always right.
        first = 0 if self._first is None else self._first
        if self._seek():
            frames = self._decoded()
            head = next(frames, None)
            if head is not None and head.pts is not None and head.pts - self.origin <= first:
                yield head
                yield from frames
                return
            self._restart()
        yield from self._decoded()

    def _seek(self) -> bool:
        import av

        # One second early, for frames that are stored after later ones.
        target = (self._first or 0) + self.origin - int(1 / self.time_base)
        if target <= (self.stream.start_time or 0):
            return False
        try:
            self._container.seek(min(target, _LATEST), stream=self.stream)
        except av.error.FFmpegError:
            self._restart()
            return False
        self._sought = self._wait_for_key = True
        return True

    def _go_to(self, key: Keyframe) -> None:
        packets = read_from_key(self.stream, key)
        if packets is None:  # the index of a damaged file leads to other places
            self._restart()
            head = next((packet for packet in self._unread if packet and key.matches(packet)), None)
            if head is None:
                raise VideoError(f"{self.path} has changed since it was planned; plan it again")
            packets = chain((head,), self._unread)
        self._unread = packets

    def _restart(self) -> None:
        self.close()
        self._open()
        self.bad_packets = 0

    def _decoded(self) -> Iterator[VideoFrame]:
        import av

        in_a_row = 0
        for packet in self._packets():
            try:
                frames = self.stream.decode(packet)
            except av.error.FFmpegError as error:
                in_a_row += 1
                self._count_bad(not (packet and packet.is_corrupt))  # or it is counted already
                if in_a_row > MAX_BAD_PACKETS:
                    raise VideoError(
                        f"{self.path} is damaged: after {self.frames_read} frames {in_a_row} "
                        f"packets in a row cannot be decoded ({reason(error)}); stop before them "
                        "with end (--end), or begin behind them with start (--start)"
                    ) from error
                continue
            in_a_row = 0
            yield from frames

    def _packets(self) -> Iterator[Packet[VideoStream] | None]:
        unread = 0
        for packet in self._unread:
            if packet is None:
                unread += 1
                continue
            self._count_bad(unread)
            unread = 0
            if self._in_next_part and packet.pts is not None and packet.pts > self._next_pts:
                break  # all frames of the part are in the decoder
            self._meet(packet)
            self._count_bad(packet.is_corrupt)
            if self._wait_for_key:
                continue
            self._last_dts = packet.dts or 0
            yield packet
        # Packets that cannot be read up to the end of the file were cut off.
        self.truncated = unread > 0 and not self._in_next_part
        yield None

    def _meet(self, packet: Packet[VideoStream]) -> None:
        self._wait_for_key = self._wait_for_key and not packet.is_keyframe
        # Frames of this part may be stored behind the next part's keyframe, which they need.
        if self._part and self._part.next_key and self._part.next_key.matches(packet):
            self._in_next_part, self._next_pts = True, self._part.next_key.pts
            self._last = self._part.last

    def _count_bad(self, packets: int) -> None:
        self.bad_packets += 0 if self._in_next_part else int(packets)

    def _image(self, frame: VideoFrame) -> npt.NDArray[np.uint8]:
        self._check_size(frame)
        # FFmpeg leaves the matrix of RGB alone and would refuse one that does not fit.
        matrix = yuv_matrix(frame.colorspace, frame.width, frame.height)
        bgr = frame.to_ndarray(
            format="bgr24",
            src_colorspace=None if frame.format.is_rgb else SWS_MATRIX[matrix],
            threads=1,
        )
        self.rotation = round(frame.rotation / 90) * 90
        return np.ascontiguousarray(np.rot90(bgr, k=self.rotation // 90), dtype=np.uint8)

    def _check_size(self, picture: Any) -> None:
        if picture.width * picture.height > MAX_PIXELS:
            raise VideoError(
                f"{self.path} has frames of {picture.width}x{picture.height} pixels; "
                f"the limit is {MAX_PIXELS} pixels"
            )

    def _ends_early(self) -> bool:
        index, name = self.stream.index_entries, self._container.format.name
        # That of ASF has an entry for every so many seconds, the last beyond the end.
        if name != "asf" and len(index) and self._last_dts < index[-1].timestamp:
            return True
        if not name.startswith(_DECLARE_DURATION):
            return False
        # Matroska states where the last frame ends, counted from 0 and not from the first.
        read = float((self._end_ticks + self.origin) * self.time_base)
        declared = declared_seconds(self._container, self.stream)
        return declared - read > max(0.25, 2 / float(self.rate))

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def check_range(stride: int, start: float | None, end: float | None) -> None:
    """Raise `OptionError` if a stride, a start or an end is none."""
    check_count("stride", stride)
    for name, value in (("start", start), ("end", end)):
        if value is not None and not 0 <= value < float("inf"):
            raise OptionError(f"{name} must be 0 seconds or more, got {value}")
    if end is not None and end <= (start or 0.0):
        raise OptionError(f"end must be later than start, got start={start} and end={end}")


def _origin(container: InputContainer, stream: VideoStream, time_base: Fraction) -> int:
    # Encoders state the inaudible beginning of sound as negative time: it is no start.
    whole = max(0, round(Fraction(container.start_time or 0, 1_000_000) / time_base))
    return min(stream.start_time or 0, whole)


def _fraction(value: Any, default: Fraction) -> Fraction:
    # Unset rates are None in some versions of PyAV and a false 0/1 in others.
    return Fraction(value.numerator, value.denominator) if value else default
