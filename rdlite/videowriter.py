"""Write an annotated video: exact times, the source's sound, and a whole file or none."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from rdlite.audiocopy import AudioCopier
from rdlite.errors import OptionError, VideoError
from rdlite.media import SWS_MATRIX, reason, yuv_matrix
from rdlite.sinks import PartialFile, WholeOrNothing
from rdlite.video import VideoReader

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_CRF_ENCODERS = ("libx264", "libx265", "libsvtav1", "libaom-av1", "libvpx-vp9")
_LIMITED_RANGE = 1  # AVCOL_RANGE_MPEG, which players take for granted in H.264
_MIN_TIMESCALE = 10_000  # ticks a second, so that a delay of the sound is kept to 0.05 ms
# Describes the source's file, not its content.
_FILE_TAGS = ("major_brand", "minor_version", "compatible_brands", "encoder")


class VideoWriter(WholeOrNothing):
    """Write an MP4 beside its final name; `close` gives it that name when it is whole.

    The time base of the source and every frame's time from the container's start are kept to the
    tick, whatever the frame rate does. Audio packets are copied as they are, all tracks; a codec
    that MP4 cannot hold is encoded again as AAC. The YUV matrix and the colour tags are the
    source's. In a `with` statement an error removes the unfinished file.

    Args:
        path: File to write; its name must end in ".mp4".
        reader: The source, read as far as its first frame.
        size: Width and height, pixels; other frames are scaled to it. H.264 wants even numbers,
            so an odd one is made even by repeating the last column or row.
        codec: FFmpeg encoder.
        crf: Constant rate factor, lower is better and larger; None is the encoder's own.
        overwrite: Replace an existing file.
        audio: Keep the sound.
        first: Tick that becomes time 0; sound before it is left out. None keeps all.
        last: Tick at which the sound ends, None for all of it.

    Attributes:
        frames: Frames written.
        rescaled: Frames that had another size.
        retimed: Frames that were not later than the one before, moved by as little as needed.
        audio: What happened to the sound, an `AudioCopier`.

    Raises:
        OptionError: The name does not end in ".mp4", or the encoder is not one of FFmpeg's.
        VideoError: The file exists already or cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        reader: VideoReader,
        *,
        size: tuple[int, int],
        codec: str = "libx264",
        crf: int | None = 23,
        overwrite: bool = False,
        audio: bool = True,
        first: int | None = None,
        last: int | None = None,
    ) -> None:
        self.frames = self.rescaled = self.retimed = 0
        self._size, self._offset = size, first or 0
        self._latest: int | None = None
        self._durations: dict[int, int] = {}
        self._time_base = reader.time_base
        self._codec, self._crf_unused = codec, crf is not None and codec not in _CRF_ENCODERS
        self._target = mp4_target(path, overwrite=overwrite)
        self.audio = AudioCopier(reader, first=first, last=last, copy=audio)
        with self._naming_errors():
            self._container = _create(self._target.partial, reader)
        try:
            self._stream = _add_video(self._container, reader, size, codec, crf)
            self.audio.add_tracks(self._container)
        except BaseException:
            self.abort()
            raise

    def write(self, image: npt.NDArray[np.uint8], *, ticks: int, duration: int = 0) -> None:
        """Add one frame, and the sound up to it.

        Args:
            image: uint8 `(H, W, 3)` BGR, upright.
            ticks: Time of the frame as in `Frame.ticks`.
            duration: Ticks until the next frame, 0 where unknown.

        Raises:
            VideoError: The file cannot be written; on a full disk this may come late.
        """
        with self._naming_errors():
            self.audio.copy_until(ticks)
            picture = self._picture(image)
            picture.pts = self._later(ticks - self._offset)
            picture.time_base = self._time_base
            self._durations[picture.pts] = duration
            self._encode(picture)
        self.frames += 1

    def warnings(self) -> list[str]:
        """Return one sentence for each thing that differs from the source."""
        bad, (width, height) = self.audio.bad_packets, self._size
        sentences = {
            f"{bad} damaged packets of sound were left out.": bad,
            f"{self.rescaled} frames were scaled to {width}x{height}.": self.rescaled,
            f"{self.retimed} frames were moved behind the frame before them.": self.retimed,
            f"{self._codec} has no constant rate factor; crf was not used.": self._crf_unused,
        }
        return self.audio.notes + [text for text, applies in sentences.items() if applies]

    def _later(self, ticks: int) -> int:
        if self._latest is not None and ticks <= self._latest:
            ticks = self._latest + 1
            self.retimed += 1
        self._latest = ticks
        return ticks

    def _picture(self, image: npt.NDArray[np.uint8]) -> VideoFrame:
        import cv2
        from av.video.frame import VideoFrame
        from av.video.reformatter import Interpolation

        bgr: npt.NDArray[Any] = image
        if bgr.shape[1::-1] != self._size:
            bgr = cv2.resize(bgr, self._size, interpolation=cv2.INTER_LINEAR)
            self.rescaled += 1
        right, bottom = (side % 2 for side in self._size)
        if right or bottom:
            bgr = cv2.copyMakeBorder(bgr, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
        return VideoFrame.from_ndarray(bgr, format="bgr24").reformat(
            format="yuv420p",
            dst_colorspace=SWS_MATRIX[self._stream.codec_context.colorspace],
            dst_color_range=_LIMITED_RANGE,
            # Without it every grey level comes out up to three levels too dark.
            interpolation=Interpolation.BILINEAR | Interpolation.ACCURATE_RND,
            threads=1,
        )

    def _encode(self, picture: VideoFrame | None) -> None:
        for packet in self._stream.encode(picture):
            # The encoder forgets durations; the last one makes the length of the video.
            duration = self._durations.pop(packet.pts or 0, 0)
            if duration:
                packet.duration = duration
            self._container.mux(packet)

    def close(self) -> None:
        """Write what is still in the encoder and give the file its final name."""
        with self._naming_errors():
            self._encode(None)
            self.audio.finish()
            self._container.close()
            self._target.commit()

    def abort(self) -> None:
        """Remove the unfinished file."""
        import av

        # Closing writes, so it fails again on a full disk.
        with contextlib.suppress(av.error.FFmpegError):
            self._container.close()
        self.audio.close()
        self._target.discard()

    @contextlib.contextmanager
    def _naming_errors(self) -> Iterator[None]:
        import av

        try:
            yield
        except (av.error.FFmpegError, OSError) as error:
            stage = f"cannot be written after {self.frames} frames"
            raise VideoError(f"{self._target.path} {stage}: {reason(error)}") from error


def mp4_target(path: str | os.PathLike[str], *, overwrite: bool) -> PartialFile:
    """Return where an MP4 is written before it is whole, or raise as `VideoWriter` does."""
    if Path(path).suffix.lower() != ".mp4":
        raise OptionError(f"{path} must end in .mp4, the only format that rdlite writes")
    return PartialFile(path, overwrite=overwrite, error=VideoError)


def _create(path: Path, reader: VideoReader) -> OutputContainer:
    import av

    # By default slow time bases are multiplied, and delays are rounded to milliseconds.
    ticks = reader.time_base.denominator
    options = {
        "movflags": "+faststart",
        "video_track_timescale": str(ticks),
        "movie_timescale": str(ticks * math.ceil(_MIN_TIMESCALE / ticks)),
    }
    return av.open(f"file:{path}", "w", format="mp4", options=options)


def _add_video(
    output: OutputContainer,
    reader: VideoReader,
    size: tuple[int, int],
    codec: str,
    crf: int | None,
) -> VideoStream:
    options = {} if crf is None else {"crf": str(crf)}
    if codec in ("libx264", "libx265"):
        options["preset"] = "veryfast"
    try:
        stream: Any = output.add_stream(codec, rate=reader.rate, options=options)
    except (ValueError, TypeError) as error:  # no such encoder, not for MP4, not for video
        raise OptionError(f"codec={codec!r} cannot be used for the video: {error}") from error
    source, context = reader.stream.codec_context, stream.codec_context
    stream.width, stream.height = (side + side % 2 for side in size)
    stream.pix_fmt = "yuv420p"  # the one format that every player decodes
    stream.time_base = context.time_base = reader.time_base
    context.thread_count = 1
    context.sample_aspect_ratio = reader.sample_aspect_ratio
    context.colorspace = yuv_matrix(source.colorspace, *size)
    context.color_range = _LIMITED_RANGE
    context.color_primaries, context.color_trc = source.color_primaries, source.color_trc
    tags = reader.stream.container.metadata
    output.metadata.update({key: tag for key, tag in tags.items() if key not in _FILE_TAGS})
    return cast("VideoStream", stream)
