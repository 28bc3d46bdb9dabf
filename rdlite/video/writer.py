"""Encode the frames of one part of a video, always the same way, whole or not at all."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
import numpy.typing as npt

from rdlite.errors import OptionError, RdliteError, VideoError
from rdlite.storage.partial import PartialFile, WholeOrNothing
from rdlite.video.media import reason, yuv_matrix
from rdlite.video.reader import VideoReader

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

PRESETS: Final = (
    *("ultrafast", "superfast", "veryfast", "faster", "fast", "medium"),
    *("slow", "slower", "veryslow", "placebo"),
)
"""What `preset` may be, fastest first."""

_MOST_CRF = {"libx264": 51, "libx265": 51, "libsvtav1": 63, "libaom-av1": 63, "libvpx-vp9": 63}
_PRESET_ENCODERS = ("libx264", "libx265")
_LIMITED_RANGE = 1  # AVCOL_RANGE_MPEG, which players take for granted in H.264
_AVX512 = 13  # CV_CPU_AVX_512F
_MAX_DELAY = 16  # frames by which H.264 and HEVC may store one before it is shown
_MPEG4_TICKS = 65_535  # MPEG-4 allows no more a second
# How much red and blue weigh in brightness, by AVColorSpace number of the YUV matrix.
_RED_BLUE = {
    1: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
}


@dataclass(frozen=True, slots=True)
class Encoding:
    """How to encode a video; the parts of one video have it in common, so that they fit together.

    Attributes:
        size: Upright width and height, pixels; frames of another size are scaled to it. Most
            encoders want even numbers, so an odd one is made even by repeating the last column
            or row.
        time_base: Seconds per tick.
        rate: Mean frames per second.
        sample_aspect_ratio: Width to height of one pixel.
        colors: `AVColorSpace`, `AVColorPrimaries` and `AVColorTransferCharacteristic` numbers.
        codec: FFmpeg encoder.
        crf: Constant rate factor, lower is better and larger, from 0 to 51 (libx264, libx265) or 63
            (AV1, VP9); None is the encoder's own.
        preset: One of `PRESETS`, for libx264 and libx265; None is the encoder's own.
        threads: Threads of the encoder.
    """

    size: tuple[int, int]
    time_base: Fraction
    rate: Fraction
    sample_aspect_ratio: Fraction
    colors: tuple[int, int, int]
    codec: str
    crf: int | None
    preset: str | None
    threads: int

    @classmethod
    def like(
        cls,
        reader: VideoReader,
        *,
        size: tuple[int, int],
        sample_aspect_ratio: Fraction,
        codec: str,
        crf: int | None,
        preset: str | None,
        threads: int,
    ) -> Encoding:
        """Return the encoding with the times and colours of a source that was just opened."""
        source = reader.stream.codec_context
        colors = (
            yuv_matrix(source.colorspace, *size),
            source.color_primaries,
            source.color_trc,
        )
        base, rate, aspect = reader.time_base, reader.rate, sample_aspect_ratio
        return cls(size, base, rate, aspect, colors, codec, crf, preset, threads)

    @property
    def padded(self) -> tuple[int, int]:
        """Width and height as they are encoded."""
        width, height = self.size
        return width + width % 2, height + height % 2

    @property
    def step(self) -> int:
        """Ticks of a frame at the mean rate, at least 1."""
        return max(1, round(1 / self.rate / self.time_base))

    @property
    def frame_time(self) -> Fraction:
        """Seconds per tick of the encoder, which counts frames: not all take every time base."""
        shortest = Fraction(1, _MPEG4_TICKS)
        return max(shortest, (1 / self.rate).limit_denominator(_MPEG4_TICKS))

    def warnings(self) -> list[str]:
        """Return one sentence for each option that the encoder does not have."""
        sentences = {
            f"{self.codec} has no constant rate factor; crf was not used.": self.crf is not None
            and self.codec not in _MOST_CRF,
            f"{self.codec} has no such presets; preset was not used.": self.preset is not None
            and self.codec not in _PRESET_ENCODERS,
        }
        return [text for text, applies in sentences.items() if applies]

    def add_stream(self, output: OutputContainer) -> VideoStream:
        """Add a stream with this encoding to a file, and start the encoder.

        Raises:
            OptionError: FFmpeg has no such encoder, it is not for video or not for MP4, or it
                cannot be started here, as one of a graphics card that is not there.
        """
        import av

        stream = _add_stream(output, self.codec, 1 / self.frame_time, self._options())
        context = stream.codec_context
        stream.width, stream.height = self.padded
        stream.pix_fmt = "yuv420p"  # the one format that every player decodes
        stream.time_base, context.time_base = self.time_base, self.frame_time
        context.thread_count, context.thread_type = self.threads, "AUTO"
        context.sample_aspect_ratio = self.sample_aspect_ratio
        context.colorspace, context.color_primaries, context.color_trc = self.colors
        context.color_range = _LIMITED_RANGE
        try:
            context.open()
        except av.error.FFmpegError as error:
            raise OptionError(
                f"the encoder {self.codec} could not be started here for this video "
                f"(FFmpeg: {reason(error)}); choose another one with codec (--codec)"
            ) from error
        return cast("VideoStream", stream)

    def _options(self) -> dict[str, str]:
        import cv2

        options = {}
        if self.crf is not None:
            options["crf"] = str(self.crf)
        if self.preset is not None and self.codec in _PRESET_ENCODERS:
            options["preset"] = self.preset
        if self.codec == "libx264" and cv2.checkHardwareSupport(_AVX512):
            # Its AVX-512 code (of "mbtree") gives other results from run to run.
            options["x264-params"] = "asm=AVX2"
        if self.codec == "libx265":
            options["x265-params"] = f"log-level=error:pools={self.threads}"
        if self.codec == "libsvtav1":
            os.environ.setdefault("SVT_LOG", "1")  # errors; it tells all it does otherwise
        return options


@dataclass(frozen=True, slots=True)
class Piece:
    """The times of a part that is written.

    Attributes:
        frames: Number of frames, at least 1.
        first: Tick of the first frame.
        latest: Tick of the last frame.
        duration: Ticks for which the last frame is shown, 0 where unknown.
        delay: Frames that are stored before one that is shown earlier, at most.
    """

    frames: int
    first: int
    latest: int
    duration: int
    delay: int


class PartWriter(WholeOrNothing):
    """Write one part of a video as an MP4, whose time 0 is the part's first frame.

    The part begins with a new encoder, so it depends on its own frames alone.

    Args:
        path: File to write, replaced if it exists.
        encoding: How.
        name: What errors call the file; None for its path.

    Attributes:
        frames: Frames written.
        rescaled: Frames that had another size.
        retimed: Frames that were not later than the one before, moved by as little as needed.

    Raises:
        OptionError: The encoder cannot be used.
        VideoError: The file cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        encoding: Encoding,
        *,
        name: str | os.PathLike[str] | None = None,
    ) -> None:
        self.frames = self.rescaled = self.retimed = 0
        self._first = self._latest = self._duration = self._delay = 0
        self._name = name or path
        self._encoding = encoding
        self._yuv = _YuvConverter(encoding.colors[0], encoding.padded)
        self._ticks: dict[int, int] = {}  # by number of frame
        self._packets = 0
        self._target = PartialFile(path, overwrite=True, error=VideoError)
        with self._naming_errors():
            self._container = create_mp4(self._target.partial, encoding.time_base)
        try:
            self._stream = encoding.add_stream(self._container)
        except BaseException:
            self.abort()
            raise

    @property
    def piece(self) -> Piece:
        """The times of what is written, once it is closed."""
        return Piece(self.frames, self._first, self._latest, self._duration, self._delay)

    def write(self, image: npt.NDArray[np.uint8], *, ticks: int, duration: int = 0) -> None:
        """Add one frame.

        Args:
            image: uint8 `(H, W, 3)` BGR, upright.
            ticks: Time of the frame as in `Frame.ticks`.
            duration: Ticks until the next frame, 0 where unknown.

        Raises:
            VideoError: The file cannot be written; on a full disk this may come late.
        """
        if self.frames == 0:
            self._first = ticks
        elif ticks <= self._latest:
            ticks = self._latest + 1
            self.retimed += 1
        self._latest = self._ticks[self.frames] = ticks
        self._duration = duration
        picture = self._yuv.frame(self._fitted(image))
        picture.pts, picture.time_base = self.frames, self._encoding.frame_time
        with self._naming_errors():
            self._encode(picture)
        self.frames += 1

    def _fitted(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        import cv2

        bgr: npt.NDArray[Any] = image
        size = self._encoding.size
        if bgr.shape[1::-1] != size:
            bgr = cv2.resize(bgr, size, interpolation=cv2.INTER_LINEAR)
            self.rescaled += 1
        right, bottom = (side % 2 for side in size)
        if right or bottom:
            bgr = cv2.copyMakeBorder(bgr, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
        return bgr

    def _encode(self, picture: VideoFrame | None) -> None:
        for packet in self._stream.encode(picture):
            self._set_times(packet)
            self._container.mux(packet)

    def _set_times(self, packet: Packet[Any]) -> None:
        """Turn numbers of frames into times."""
        shown = packet.pts or 0
        # Not the encoder's decoding time: that of libx265 is arbitrary for a single frame.
        stored = self._packets - _MAX_DELAY
        self._delay = max(self._delay, self._packets - shown)
        self._packets += 1
        packet.pts = self._ticks[shown] - self._first
        before = stored * self._encoding.step
        packet.dts = self._ticks[stored] - self._first if stored >= 0 else before
        packet.time_base = self._encoding.time_base
        self._ticks.pop(stored - 1, None)

    def close(self) -> None:
        """Write what is still in the encoder and give the file its final name."""
        with self._naming_errors():
            self._encode(None)
            self._container.close()
        self._target.commit()

    def abort(self) -> None:
        """Remove the unfinished file."""
        import av

        # Closing writes, so it fails again on a full disk.
        with contextlib.suppress(av.error.FFmpegError):
            self._container.close()
        self._target.discard()

    def _naming_errors(self) -> contextlib.AbstractContextManager[None]:
        return naming_errors(f"{self._name} cannot be written")


class _YuvConverter:
    """Turns BGR into yuv420p, in a third of the time that FFmpeg takes.

    Args:
        matrix: `AVColorSpace` number.
        size: Even width and height, pixels.
    """

    def __init__(self, matrix: int, size: tuple[int, int]) -> None:
        red, blue = _RED_BLUE[matrix]
        y = np.array([blue, 1 - red - blue, red])
        u = (np.array([1, 0, 0]) - y) / (2 - 2 * blue)
        v = (np.array([0, 0, 1]) - y) / (2 - 2 * red)
        # ITU-T H.273: limited range takes 219 levels from 16 on, and 224 around 128.
        levels = np.array([y * 219, u * 224, v * 224]) / 255
        self._matrix = np.column_stack([levels, [16, 128, 128]])
        self._size = size

    def frame(self, bgr: npt.NDArray[Any]) -> VideoFrame:
        """Convert uint8 `(H, W, 3)`."""
        import cv2
        from av.video.frame import VideoFrame

        width, height = self._size
        planes = np.empty((height * 3 // 2, width), np.uint8)
        y, u, v = np.split(planes.reshape(-1), (width * height, width * height * 5 // 4))
        # OpenCV has a fast way from three channels to three, and none from three to one.
        yuv = cv2.transform(bgr, self._matrix)
        small = cv2.resize(yuv, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
        cv2.extractChannel(yuv, 0, y.reshape(height, width))
        cv2.extractChannel(small, 1, u.reshape(height // 2, width // 2))
        cv2.extractChannel(small, 2, v.reshape(height // 2, width // 2))
        return VideoFrame.from_ndarray(planes, format="yuv420p")


def check_encoding(*, codec: str, crf: Any, preset: Any) -> None:
    """Raise `OptionError` if an encoder, a quality or a preset is none."""
    import av

    with av.open(io.BytesIO(), "w", format="mp4") as nowhere:
        _add_stream(nowhere, codec, Fraction(25), {})
    most = _MOST_CRF.get(codec, max(_MOST_CRF.values()))
    if crf is not None and (type(crf) is not int or not 0 <= crf <= most):
        text = f"crf must be None or a whole number from 0 to {most} with {codec}, got {crf!r}"
        raise OptionError(text)
    if preset is not None and preset not in PRESETS:
        raise OptionError(f"preset must be None or one of {', '.join(PRESETS)}, got {preset!r}")


def _add_stream(
    output: OutputContainer, codec: str, rate: Fraction, options: dict[str, str]
) -> Any:
    import av

    try:
        return output.add_stream(codec, rate, options)
    except av.codec.codec.UnknownCodecError as error:
        text = f"codec={codec!r} cannot be used: this FFmpeg has no encoder of that name"
        raise OptionError(text) from error
    except (ValueError, TypeError) as error:
        raise OptionError(f"codec={codec!r} cannot be used for the video: {error}") from error


def create_mp4(path: Path, time_base: Fraction, **options: str) -> OutputContainer:
    """Open an MP4 for writing whose video has exactly this time base."""
    import av

    # By default slow time bases are multiplied.
    options = {"video_track_timescale": str(time_base.denominator), **options}
    return av.open(f"file:{path}", "w", format="mp4", options=options)


@contextlib.contextmanager
def naming_errors(text: str) -> Iterator[None]:
    """Turn errors of FFmpeg and of the system into a `VideoError` that begins with `text`."""
    import av

    try:
        yield
    except RdliteError:
        raise
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(f"{text}: {reason(error)}") from error
