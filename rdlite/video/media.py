"""Open media files on disk safely: nothing that they refer to, and past damaged packets."""

from __future__ import annotations

import os
import re
import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from rdlite.errors import VideoError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

Packets: TypeAlias = "Iterator[Packet[Any] | None]"
MAX_BAD_PACKETS = 32
_PROBE = {"analyzeduration": str(60 * 10**6), "probesize": str(2**30)}  # microseconds, bytes
_SEEK_BACK = (1, 10, 100)  # seconds before a keyframe, tried in turn

# FFmpeg would follow what these name, other files included.
_PLAYLISTS = {".m3u", ".m3u8", ".ffconcat", ".concat", ".sdp", ".mpd", ".pls"}
# A playlist is recognised by its content as well, so only containers that hold their own
# media may be opened.
_CONTAINERS = (
    "apng,asf,av1,avi,cavsvideo,dv,flv,gif,gxf,h261,h263,h264,hevc,ivf,m4v,matroska,webm,mjpeg,"
    "mov,mp4,mpeg,mpegts,mpegtsraw,mpegvideo,mxf,nut,obu,ogg,rm,vc1,vvc,wtv,yuv4mpegpipe"
)
# The YUV matrices that swscale converts, by AVColorSpace number, and its own number for each.
SWS_MATRIX = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}
_BT709, _BT601 = 1, 6


def source_path(source: Any) -> Path:
    """Return the path of a video.

    Raises:
        VideoError: It is no path.
    """
    try:
        return Path(source)
    except TypeError:
        camera = "; live cameras are not read" if isinstance(source, int) else ""
        kind = type(source).__name__
        raise VideoError(f"a video must be the path of a file, got {kind}{camera}") from None


def open_media(path: str | os.PathLike[str], *, probe: bool = False) -> InputContainer:
    """Open a media file on disk, and nothing that it refers to.

    Args:
        path: The file.
        probe: Read up to a minute of it to learn of streams that begin late.

    Raises:
        VideoError: The path is no regular file, or the file is empty, a playlist or no media.
    """
    import av

    _refuse(os.fspath(path))
    # Older PyAV fails on titles that are not UTF-8; newer keeps them and has no such option.
    older: Any = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
    try:
        # The prefix keeps FFmpeg from taking a name such as "concat:a.mp4" for a protocol.
        options = {"protocol_whitelist": "file", "format_whitelist": _CONTAINERS}
        options |= _PROBE if probe else {}
        container: InputContainer = av.open(f"file:{os.fspath(path)}", options=options, **older)
        return container
    except (av.error.FFmpegError, UnicodeError) as error:
        raise VideoError(
            f"{path} cannot be opened as a video ({reason(error)}): it is damaged, was cut before "
            "its index was written, or is not a video"
        ) from error


def read_packets(container: InputContainer, *streams: Any) -> Packets:
    """Yield packets, None for one that cannot be read, until 33 in a row cannot or the end."""
    import av

    unread = 0
    while unread <= MAX_BAD_PACKETS:
        try:
            for packet in container.demux(*streams):
                if packet.size:  # an empty packet would end the decoder
                    unread = 0
                    yield packet
            return
        except IndexError:
            return  # PyAV's at the end of a file in which a damaged table has announced a stream
        except av.error.FFmpegError:
            unread += 1
            yield None


@dataclass(frozen=True, slots=True)
class Keyframe:
    """Tells a keyframe packet from all others of a file, however it was reached.

    Attributes:
        pts: Raw time stamp.
        checksum: CRC-32 of its data; some formats count packets instead of storing time stamps,
            and count differently behind damage when they seek.
    """

    pts: int
    checksum: int

    def matches(self, packet: Packet[Any]) -> bool:
        """Whether a packet is this one."""
        return packet.pts == self.pts and packet.is_keyframe and zlib.crc32(packet) == self.checksum


def read_from_key(stream: Any, key: Keyframe) -> Packets | None:
    """Yield a stream's packets as `read_packets` does, from a keyframe on.

    Returns:
        None where no seek leads there.
    """
    import av

    for seconds in _SEEK_BACK:
        try:
            stream.container.seek(key.pts - round(seconds / stream.time_base), stream=stream)
        except av.error.FFmpegError:
            return None
        packets = read_packets(stream.container, stream)
        head = _find(packets, key)
        if head is not None:
            return chain((head,), packets)
    return None


def _find(packets: Packets, key: Keyframe) -> Packet[Any] | None:
    for packet in packets:
        if packet is None or packet.pts is None:
            continue
        if key.matches(packet):
            return packet
        if packet.pts >= key.pts:
            return None  # the seek led too far
    return None


def in_place(frames: Iterator[VideoFrame], far: int) -> Iterator[tuple[int | None, VideoFrame]]:
    """Yield frames with their time stamps, but None for one that a changed bit has led astray.

    Args:
        frames: Frames in the order in which they are shown.
        far: Ticks by which a stamp is too far from both its neighbours, which are together.
    """
    before, frame = None, next(frames, None)
    while frame is not None:
        pts, following = frame.pts, next(frames, None)
        after = None if following is None else following.pts
        if before is not None and pts is not None and after is not None:
            together = before < after < before + far
            if together and not before - far < pts < after + far:
                pts = None
        yield pts, frame
        before, frame = before if pts is None else pts, following


def reason(error: Exception) -> str:
    """Return FFmpeg's words for an error, without its number and file name."""
    return str(getattr(error, "strerror", None) or error).lower()


def yuv_matrix(tag: int, width: int, height: int) -> int:
    """Return the stated YUV matrix (`AVColorSpace`), or what players take for that size."""
    if tag in SWS_MATRIX:
        return tag
    return _BT709 if width >= 1280 or height > 576 else _BT601


def video_stream(container: InputContainer, path: Path) -> VideoStream:
    """Return the video of a file.

    Raises:
        VideoError: There is none that can be decoded.
    """
    from av.stream import Disposition

    for stream in container.streams.video:
        # Cover art is stored as a video of one picture.
        if stream.codec_context and not stream.disposition & Disposition.attached_pic:
            return stream
    kinds = ", ".join(sorted({stream.type for stream in container.streams}))
    others = f"only {kinds}" if kinds else "nor any other track; make it anew from its source"
    raise VideoError(f"{path} holds no video that can be decoded, {others}")


def declared_seconds(container: InputContainer, stream: VideoStream) -> float:
    """Return how long a video says it is, in seconds; 0 where it does not say."""
    tag = re.fullmatch(r"(\d+):(\d+):([\d.]+)", stream.metadata.get("DURATION", "").strip("\0 "))
    if tag:
        return int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3])
    if stream.frames and stream.average_rate:  # AVI, whose duration FFmpeg guesses from the size
        return float(stream.frames / stream.average_rate)
    if stream.duration:
        return float(stream.duration * Fraction(stream.time_base or 0))
    return (container.duration or 0) / 1e6 if len(container.streams) == 1 else 0.0


def _refuse(path: str) -> None:
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", path) and not os.path.exists(path):
        raise VideoError(f"{path} is not a file on this machine; download it and pass the file")
    if Path(path).suffix.lower() in _PLAYLISTS:
        raise VideoError(f"{path} is a playlist, which names other files; pass a video file")
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        raise VideoError(f"{path} cannot be opened: {reason(error)}") from error
    if not stat.S_ISREG(status.st_mode):
        kind = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise VideoError(f"{path} is {kind}; pass a video file")
    if status.st_size == 0:
        raise VideoError(f"{path} is empty; pass a video file")
