"""Write an annotated video: exact times, the source's sound, and a whole file or none."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rdlite.errors import OptionError, VideoError
from rdlite.sinks import PartialFile, WholeOrNothing
from rdlite.video import SWS_MATRIX, VideoReader, open_media, read_packets, reason, yuv_matrix

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer, OutputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_LIMITED_RANGE = 1  # AVCOL_RANGE_MPEG, which players take for granted in H.264
_AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)
_AAC_LAYOUTS = {1: "mono", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 8: "7.1"}
_AAC_BIT_RATE = 192_000
_AUDIO_GAP = 0.1  # seconds
_INTERLEAVING = 10  # seconds by which one track may be stored after another
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
        size: Width and height of the output, pixels. Frames of another size are scaled to it. An
            odd number is made even by repeating the last column or row, as H.264 wants.
        codec: FFmpeg encoder.
        crf: Constant rate factor, lower is better and larger; None is the encoder's own.
        overwrite: Replace an existing file.
        audio: Keep the sound.
        first: Tick that becomes time 0 of the output; sound before it is left out. None is the
            container's start, with all that was stored before it.
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
        self._size = size
        self._offset = first or 0
        self._latest: int | None = None
        self._durations: dict[int, int] = {}
        self._time_base = reader.time_base
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
            VideoError: The file cannot be written, for one because the disk is full.
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
        with contextlib.suppress(av.error.FFmpegError, ValueError):
            self._container.close()
        self.audio.close()
        self._target.discard()

    @contextlib.contextmanager
    def _naming_errors(self) -> Iterator[None]:
        import av

        try:
            yield
        except (av.error.FFmpegError, OSError) as error:
            path, frames = self._target.path, self.frames
            raise VideoError(
                f"{path} cannot be written after {frames} frames: {reason(error)}"
            ) from error


@dataclass(slots=True)
class _Track:
    source: AudioStream
    output: AudioStream
    copied: bool
    base: Fraction
    shift: int
    latest: int | None = None  # time stamp copied last, or number of samples encoded


class AudioCopier:
    """Move the sound of a source into an output file, as stored where MP4 allows it.

    It reads the source on its own, so that damage to the picture does not touch the sound.

    Args:
        reader: The source.
        first: See `VideoWriter`.
        last: See `VideoWriter`.
        copy: False leaves all sound out.

    Attributes:
        copied: Tracks copied packet for packet.
        encoded: Tracks encoded again as AAC.
        dropped: Tracks that could neither be copied nor decoded.
        bad_packets: Packets left out: damaged, without a time, or out of order.
        notes: One sentence for each track that was not copied.
    """

    def __init__(
        self,
        reader: VideoReader,
        *,
        first: int | None,
        last: int | None,
        copy: bool,
    ) -> None:
        self.copied = self.encoded = self.dropped = self.bad_packets = 0
        self.notes: list[str] = []
        self._time_base = reader.time_base
        self._origin = reader.origin * reader.time_base
        self._first = None if first is None else first * reader.time_base
        self._last = None if last is None else last * reader.time_base
        self._tracks: dict[int, _Track] = {}
        self._container: InputContainer | None = None
        self._waiting: tuple[Fraction, Packet[AudioStream]] | None = None
        self._path = reader.path if copy and reader.other_streams.get("audio") else None
        self._packets = self._read()

    def add_tracks(self, output: OutputContainer) -> None:
        """Open the source and add its tracks to an output file, before any is written."""
        from av.stream import Discard

        self._output = output
        if self._path is None:
            return
        self._container = open_media(self._path)
        for stream in self._container.streams:
            if stream.type != "audio":
                stream.discard = Discard.all  # skipped unread, where the container can
            elif stream.codec_context:
                self._add_track(stream)
            else:
                self.dropped += 1
                self.notes.append("A sound track was left out: FFmpeg does not know its codec.")

    def _add_track(self, source: Any) -> None:
        try:
            output, copied = self._output.add_stream_from_template(source), True
            self.copied += 1
        except ValueError:
            output, copied = self._add_aac(source), False
            self.encoded += 1
            name = source.codec_context.name
            self.notes.append(f"A sound track was encoded again as AAC: MP4 cannot hold {name}.")
        output.metadata.update(source.metadata)
        output.disposition = source.disposition
        base = Fraction(source.time_base or 0)
        shift = round((self._origin + (self._first or 0)) / base)
        self._tracks[source.index] = _Track(source, output, copied, base, shift)

    def _add_aac(self, source: AudioStream) -> AudioStream:
        rate = source.rate if source.rate in _AAC_RATES else 48000
        layout = _AAC_LAYOUTS.get(source.layout.nb_channels, "stereo")
        return self._output.add_stream("aac", rate=rate, layout=layout, bit_rate=_AAC_BIT_RATE)

    def copy_until(self, ticks: int) -> None:
        """Write the sound that begins before a tick of the video."""
        self._copy(ticks * self._time_base)

    def finish(self) -> None:
        """Write the rest of the sound."""
        self._copy(None)
        for track in self._tracks.values():
            if not track.copied:
                self._encode_packet(track, None)
        self.close()

    def close(self) -> None:
        """Close the source."""
        if self._container is not None:
            self._container.close()

    def _copy(self, until: Fraction | None) -> None:
        while True:
            self._waiting = self._waiting or next(self._packets, None)
            if self._waiting is None or (until is not None and self._waiting[0] >= until):
                return
            self._put(self._waiting[1])
            self._waiting = None

    def _read(self) -> Iterator[tuple[Fraction, Packet[AudioStream]]]:
        if self._container is None or not self._tracks:
            return
        unread = 0
        for packet in read_packets(self._container, *(t.source for t in self._tracks.values())):
            if packet is None:
                unread += 1
                continue
            self.bad_packets += unread + (packet.pts is None)
            unread = 0  # what stays unread up to the end was cut off
            if packet.pts is None:
                continue
            base = self._tracks[packet.stream_index].base
            begin = packet.pts * base - self._origin
            if self._first is not None and begin + (packet.duration or 0) * base <= self._first:
                continue
            if self._last is None or begin < self._last:
                yield begin, packet
            elif begin > self._last + _INTERLEAVING:
                return

    def _put(self, packet: Packet[AudioStream]) -> None:
        track = self._tracks[packet.stream_index]
        if not track.copied:
            self._encode_packet(track, packet)
            return
        pts = packet.pts or 0  # `_read` leaves packets without a time out
        dts = pts if packet.dts is None else packet.dts
        if track.latest is not None and dts <= track.latest:
            self.bad_packets += 1
            return
        track.latest = dts
        packet.pts, packet.dts = pts - track.shift, dts - track.shift
        packet.stream = track.output
        self._output.mux(packet)

    def _encode_packet(self, track: _Track, packet: Packet[AudioStream] | None) -> None:
        import av

        try:
            frames = track.source.decode(packet)
        except av.error.FFmpegError:
            self.bad_packets += 1
            return
        for frame in frames:
            begin = track.latest or 0
            if frame.pts is not None:
                stated = round((frame.pts - track.shift) * track.base * frame.sample_rate)
                # Stored times are rounded; sound without a real gap is kept seamless.
                if track.latest is None or stated - begin > frame.sample_rate * _AUDIO_GAP:
                    begin = max(begin, stated)
            frame.pts, frame.time_base = begin, Fraction(1, frame.sample_rate)
            track.latest = begin + frame.samples
            self._output.mux(track.output.encode(frame))
        if packet is None:
            self._output.mux(track.output.encode(None))


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
    if codec == "libx265":
        options["x265-params"] = "log-level=error"
    try:
        stream: Any = output.add_stream(codec, rate=reader.rate, options=options)
    except (ValueError, TypeError) as error:  # no such encoder, not for MP4, not for video
        raise OptionError(f"codec={codec!r} cannot be used for the video: {error}") from error
    source, context = reader.stream.codec_context, stream.codec_context
    stream.width, stream.height = (side + side % 2 for side in size)
    stream.pix_fmt = "yuv420p"
    stream.time_base = context.time_base = reader.time_base
    context.thread_count = 1
    context.sample_aspect_ratio = reader.sample_aspect_ratio
    context.colorspace = yuv_matrix(source.colorspace, *size)
    context.color_range = _LIMITED_RANGE
    context.color_primaries, context.color_trc = source.color_primaries, source.color_trc
    tags = reader.stream.container.metadata
    output.metadata.update({key: tag for key, tag in tags.items() if key not in _FILE_TAGS})
    video: VideoStream = stream
    return video
