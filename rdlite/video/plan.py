"""Cut a video at keyframes into parts that can be decoded on their own."""

from __future__ import annotations

import contextlib
import os
import zlib
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rdlite.errors import VideoError
from rdlite.options import check_count
from rdlite.video.media import Keyframe, Packets, read_from_key
from rdlite.video.reader import Frame, VideoReader

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

PART_FRAMES = 250

_LOWEST, _HIGHEST = -(2**63), 2**63 - 1
# Packets on each side of a cut that must be sound: more than any decoder holds back.
_NEAR = 64
# In these FFmpeg seeks by halving the file. In others without an index it reads all that comes
# before, so that the number of parts has to be limited.
_BISECTED = ("asf", "mpeg", "mpegts", "nut", "ogg", "wtv")
_MAX_UNINDEXED_PARTS = 64


@dataclass(frozen=True, slots=True)
class Part:
    """A run of frames of one video that can be decoded on its own.

    Attributes:
        index: Number of the part, counted from 0.
        key: The keyframe that decoding begins at; None for the first part, which begins where
            a `VideoReader` of the whole range does.
        next_key: The keyframe that the next part begins at, None for the last part.
        start: Tick, as `Frame.ticks`, before which no frame of any part begins; None for no limit.
        first: Tick, as `Frame.ticks`, before which no frame of it begins; None for no lower limit.
        last: Tick before which its last frame begins; None for no upper limit.
        frames_before: Frames of the earlier parts, by the scan.
        frames: Frames of this part, by the scan: exact where the file is not damaged.
    """

    index: int
    key: Keyframe | None
    next_key: Keyframe | None
    start: int | None
    first: int | None
    last: int | None
    frames_before: int
    frames: int


@dataclass(frozen=True, slots=True)
class VideoPlan:
    """What `plan_video` found: the same for the same file and range, and picklable.

    Attributes:
        path: The video.
        start: Seconds since the container's start of the first frame wanted, None for all.
        end: Seconds before which the last frame wanted begins, None for all.
        size: Width and height of the first wanted frame, upright, pixels.
        sample_aspect_ratio: Width to height of one pixel of that frame.
        first_ticks: Tick, as `Frame.ticks`, of the first wanted frame.
        longest_gap: Most time from one frame to the next, in the finest units of the time base.
        frames: Frames wanted, by the scan.
        parts: At least one, in the order of their frames.
    """

    path: Path
    start: float | None
    end: float | None
    size: tuple[int, int]
    sample_aspect_ratio: Fraction
    first_ticks: int
    longest_gap: int
    frames: int
    parts: tuple[Part, ...]


def plan_video(
    path: str | os.PathLike[str],
    *,
    start: float | None = None,
    end: float | None = None,
    part_frames: int = PART_FRAMES,
) -> VideoPlan:
    """Read the packets of a video once, and find where it can be cut without a difference.

    Only the first frame and those at the cuts are decoded. The frames of all parts, one after the
    other, are those that a `VideoReader` of the whole range returns. What a damaged packet does
    not tell a decoder makes up from earlier frames, so in these it may differ. Where no keyframe
    will do, as in files without time stamps, there is one part.

    Args:
        path: A video file.
        start: Seconds since the container's start of the first frame wanted, None for all.
        end: Seconds before which the last frame wanted begins, None for all.
        part_frames: Fewest frames of a part, give or take a few that are stored out of order.

    Raises:
        OptionError: `start`, `end` or `part_frames` is out of range.
        VideoError: The file holds no video that can be decoded, or no frame in the range.
    """
    check_count("part_frames", part_frames)
    with VideoReader(path, start=start, end=end) as reader:
        head = next(iter(reader), None)
        if head is None:
            raise VideoError(f"{path} has no frame in the wanted range")
        height, width = head.image.shape[:2]
        aspect = reader.sample_aspect_ratio
        scan = _Scan(reader, reader.ticks(start), reader.ticks(end), head)
    with VideoReader(path) as reader:
        cuts = list(scan.cuts(reader.stream, part_frames))
    parts = tuple(scan.parts(cuts))
    frames = sum(part.frames for part in parts)
    return VideoPlan(
        path=Path(path),
        start=start,
        end=end,
        size=(width, height),
        sample_aspect_ratio=aspect,
        first_ticks=head.ticks,
        longest_gap=scan.longest_gap,
        frames=frames,
        parts=parts,
    )


class _Scan:
    """The time stamps and keyframes of a range of a video.

    It takes 12 bytes a packet, and up to 60 more while it looks for cuts.
    """

    def __init__(
        self, reader: VideoReader, first: int | None, last: int | None, head: Frame
    ) -> None:
        self._origin, self._first, self._last = reader.origin, first, last
        ticks = array("q")  # of a packet without a time stamp: the highest before it
        checksums = array("I")  # 0 for packets that are no keyframes
        bad = array("q")  # numbers of packets that are damaged or without a true time stamp
        highest = _LOWEST
        for packet in _up_to(reader.packets(), None if last is None else last + reader.origin):
            if packet is None or packet.pts is None or packet.is_corrupt:
                bad.append(len(ticks))
            if packet is not None:
                now = highest if packet.pts is None else packet.pts - reader.origin
                highest = max(highest, now)
                ticks.append(now)
                checksums.append(zlib.crc32(packet) if packet.is_keyframe else 0)
        self._ticks, self._checksums = np.array(ticks, np.int64), np.array(checksums, np.uint32)
        astray = _astray(self._ticks, reader.far)
        self._ticks[astray] = self._ticks[astray - 1]
        self._bad = np.sort(np.append(np.array(bad, np.int64), astray))
        # A recording may begin inside an open group of pictures, whose first frames are lost.
        lost = self._ticks[:_NEAR] < (_LOWEST if head.pts is None else head.ticks)
        self._lost = np.flatnonzero(lost)
        gaps = np.diff(np.sort(self._ticks[self._wanted() & (self._ticks > _LOWEST)]))
        self.longest_gap = int(gaps.max(initial=0)) * reader.time_base.numerator

    def cuts(self, stream: VideoStream, part_frames: int) -> Iterator[Keyframe]:
        """Yield the keyframes at which a part is to begin."""
        count = len(self._ticks)
        if not _has_index(stream, until=int(self._ticks[count // 2]) + self._origin):
            part_frames = max(part_frames, count // _MAX_UNINDEXED_PARTS)
        numbers = self._borders()
        before = np.cumsum(self._wanted(), dtype=np.int32)[numbers] - 1
        last = np.count_nonzero(self._wanted()) - part_frames
        at, pause = np.searchsorted(before, part_frames), 1
        while at < len(numbers) and before[at] <= last:
            key = self._key(numbers[at])
            if _can_begin(stream, key):
                yield key
                at, pause = np.searchsorted(before, before[at] + part_frames), 1
            else:  # each costs a seek, so that few are tried where none will do
                at, pause = at + pause, 2 * pause

    def _key(self, number: int) -> Keyframe:
        return Keyframe(int(self._ticks[number]) + self._origin, int(self._checksums[number]))

    def _wanted(self) -> npt.NDArray[np.bool_]:
        wanted = np.ones(len(self._ticks), bool)
        wanted[self._lost] = False
        if self._first is not None:
            wanted &= self._ticks >= self._first
        if self._last is not None:
            wanted &= self._ticks < self._last
        return wanted

    def _borders(self) -> npt.NDArray[np.intp]:
        """Return the numbers of the keyframes at which time may be cut.

        All packets stored before one are shown before it. Of those stored behind it at most the
        first few are; all others are shown later.
        """
        ticks = self._ticks
        numbers = np.flatnonzero((self._checksums > 0) & self._wanted())
        first_bad, end_bad = (np.searchsorted(self._bad, numbers + n) for n in (-_NEAR, _NEAR))
        numbers = numbers[(first_bad == end_bad) & (numbers > 0)]
        highest = np.maximum.accumulate(ticks)
        numbers = numbers[highest[numbers - 1] < ticks[numbers]]
        earlier = np.searchsorted(np.sort(ticks), ticks[numbers])  # packets shown before each
        lowest = np.append(np.minimum.accumulate(ticks[::-1])[::-1], _HIGHEST)
        apart = (lowest[earlier + 1] > ticks[numbers]) & (earlier - numbers < _NEAR)
        borders: npt.NDArray[np.intp] = numbers[apart]
        return borders

    def parts(self, cuts: list[Keyframe]) -> Iterator[Part]:
        """Yield the parts that begin at the start of the range and at `cuts`."""
        limits = [self._first, *(key.pts - self._origin for key in cuts), self._last]
        shown = np.sort(self._ticks[self._wanted()])
        before = [0, *np.searchsorted(shown, np.array(limits[1:-1], np.int64)).tolist(), len(shown)]
        keys = [None, *cuts, None]
        for index in range(len(cuts) + 1):
            yield Part(
                index=index,
                key=keys[index],
                next_key=keys[index + 1],
                start=self._first,
                first=limits[index],
                last=limits[index + 1],
                frames_before=before[index],
                frames=before[index + 1] - before[index],
            )


def _astray(ticks: npt.NDArray[np.int64], far: int) -> npt.NDArray[np.intp]:
    """Return the numbers of those that are far from both their neighbours, which are together."""
    steps = np.abs(np.diff(ticks)) >= far
    together = np.abs(ticks[2:] - ticks[:-2]) < far
    astray: npt.NDArray[np.intp] = np.flatnonzero(steps[:-1] & steps[1:] & together) + 1
    return astray


def _up_to(packets: Packets, last: int | None) -> Packets:
    """Leave out what gives no frame before the raw time stamp `last`."""
    over = None
    for packet in packets:
        if packet is not None and packet.pts is not None and last is not None:
            # Wanted frames may still be stored directly behind the first keyframe past the end.
            if over is not None and packet.pts > over:
                return
            if over is None and packet.is_keyframe and packet.pts >= last:
                over = packet.pts
        if packet is None or not packet.is_discard:  # as an edit list may say
            yield packet


def _can_begin(stream: VideoStream, key: Keyframe) -> bool:
    """Whether a seek finds a keyframe, it is sound, and a new decoder loses no frame after it."""
    packets = list(_first_packets(stream, key))
    alone = _decode(stream, packets[:1], err_detect="explode")
    sound = [(f.pts, f.key_frame, f.is_corrupt) for f in alone] == [(key.pts, True, False)]
    return sound and _shown(_decode(stream, packets), key) == _shown(packets, key)


def _shown(items: Iterable[Packet[Any] | VideoFrame], key: Keyframe) -> list[int]:
    """Return the time stamps of packets or frames from a keyframe on."""
    return [item.pts for item in items if item.pts is not None and item.pts >= key.pts]


def _decode(stream: VideoStream, packets: list[Packet[Any]], **options: str) -> list[VideoFrame]:
    """Return what a decoder that has seen nothing else makes of some packets."""
    import av

    decoder: Any = av.CodecContext.create(stream.codec_context.codec.name, "r")
    for name in ("extradata", "width", "height", "codec_tag"):
        setattr(decoder, name, getattr(stream.codec_context, name))
    decoder.thread_count = 1
    decoder.options = options
    frames = []
    for packet in (*packets, None):
        with contextlib.suppress(av.error.FFmpegError):
            frames += decoder.decode(packet)
    return frames


def _first_packets(stream: VideoStream, key: Keyframe) -> Iterator[Packet[VideoStream]]:
    """Yield the packets from a keyframe to the first that is shown after it."""
    for packet in read_from_key(stream, key) or ():
        if packet is None or packet.pts is None:
            return
        yield packet
        if packet.pts > key.pts:
            return


def _has_index(stream: VideoStream, *, until: int) -> bool:
    """Whether FFmpeg can seek to a raw time stamp without reading all that comes before."""
    import av

    container: Any = stream.container
    if container.format.name in _BISECTED:
        return True
    with contextlib.suppress(av.error.FFmpegError):
        container.seek(stream.start_time or 0, stream=stream)  # Matroska reads its index now
    index = stream.index_entries
    return len(index) > 0 and bool(index[-1].timestamp >= until)
