"""Small videos made with PyAV, whose frames carry their number, and what tests ask of a file."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from rdlite.results import Detections
from rdlite.video.pipeline import annotate_video

BITS = 8


@dataclass(frozen=True)
class Sound:
    """A tone for one audio track."""

    codec: str = "aac"
    rate: int = 44100
    layout: str = "stereo"
    seconds: float = 2.0
    language: str = "und"


def picture(number: int, size: tuple[int, int] = (96, 64)) -> npt.NDArray[np.uint8]:
    """Gray BGR image whose upper half shows `number` as black and white blocks."""
    width, height = size
    image = np.full((height, width, 3), 128, np.uint8)
    for bit in range(BITS):
        left, right = bit * width // BITS, (bit + 1) * width // BITS
        image[: height // 2, left:right] = 235 if number >> bit & 1 else 20
    return image


def number(image: npt.NDArray[Any]) -> int:
    """The number that `picture` drew."""
    height, width = image.shape[:2]
    levels = [image[height // 4, (2 * bit + 1) * width // (2 * BITS)].mean() for bit in range(BITS)]
    return sum(1 << bit for bit, level in enumerate(levels) if level > 128)


def noise(count: int, size: tuple[int, int] = (96, 64)) -> list[npt.NDArray[np.uint8]]:
    """Numbered pictures whose lower half does not compress, so that packets have some size."""
    random = np.random.default_rng(1)
    images = [picture(n, size) for n in range(count)]
    for image in images:
        half = image[image.shape[0] // 2 :]
        half[:] = random.integers(0, 256, half.shape, np.uint8)
    return images


def damage(path: Path, begin: float, size: int) -> None:
    """Overwrite a part of a file, `begin` being a fraction of its length."""
    data = bytearray(path.read_bytes())
    at = int(len(data) * begin)
    data[at : at + size] = np.random.default_rng(0).bytes(size)
    path.write_bytes(data)


def clip(
    path: Path,
    frames: int | Sequence[npt.NDArray[np.uint8]] = 50,
    *,
    size: tuple[int, int] = (96, 64),
    rate: Fraction | int = 25,
    time_base: Fraction | None = None,
    ticks: Sequence[int] | None = None,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    sounds: Sequence[Sound] = (),
    subtitles: bool = False,
    rotation: int = 0,
    format: str | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    title: str = "",
    keys: Collection[int] = (),
    **context: Any,
) -> Path:
    """Write a video of numbered pictures, or of the given BGR images, and return its path.

    `ticks` are the frames' times in `time_base`; those numbered in `keys` become keyframes.
    """
    images = [picture(n, size) for n in range(frames)] if isinstance(frames, int) else frames
    base = time_base or 1 / Fraction(rate)
    with av.open(str(path), "w", format=format, options=container_options or {}) as output:
        video: Any = output.add_stream(codec, rate=Fraction(rate), options=options or {})
        video.width, video.height = size
        video.pix_fmt = pix_fmt
        video.time_base = video.codec_context.time_base = base
        for name, value in context.items():
            setattr(video.codec_context, name, value)
        if rotation:
            video.set_display_rotation(rotation)
        tracks = [_add_sound(output, sound) for sound in sounds]
        text: Any = output.add_mux_stream("mov_text") if subtitles else None
        output.metadata["title"] = title
        output.start_encoding()
        for n, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            frame = frame.reformat(format=pix_fmt, dst_color_range=context.get("color_range"))
            frame.pts = n if ticks is None else ticks[n]
            frame.time_base = base
            if n in keys:
                frame.pict_type = av.video.frame.PictureType.I
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
        for track, sound in zip(tracks, sounds, strict=True):
            _write_sound(output, track, sound)
        if subtitles:
            _write_subtitle(output, text)
    return path


def _add_sound(output: Any, sound: Sound) -> Any:
    track = output.add_stream(sound.codec, rate=sound.rate, layout=sound.layout, bit_rate=96000)
    track.metadata["language"] = sound.language
    return track


def _write_sound(output: Any, track: Any, sound: Sound) -> None:
    samples = round(sound.seconds * sound.rate)
    wave = (np.sin(np.arange(samples) * 440 * 2 * np.pi / sound.rate) * 8000).astype(np.int16)
    channels = track.codec_context.layout.nb_channels
    for begin in range(0, samples, 1024):
        part = np.repeat(wave[begin : begin + 1024], channels)[None]
        frame = av.AudioFrame.from_ndarray(part, format="s16", layout=sound.layout)
        frame.sample_rate, frame.pts, frame.time_base = sound.rate, begin, Fraction(1, sound.rate)
        output.mux(track.encode(frame))
    output.mux(track.encode(None))


def _write_subtitle(output: Any, track: Any) -> None:
    packet = av.Packet(b"\x00\x05hello")
    packet.stream, packet.pts, packet.dts, packet.duration = track, 0, 0, 1000
    packet.time_base = Fraction(1, 1000)
    output.mux(packet)


def frame_times(path: Path) -> list[Fraction]:
    """Time stamp of every video frame in seconds, exactly as the file states it."""
    with av.open(str(path)) as source:
        base = Fraction(source.streams.video[0].time_base)
        return [frame.pts * base for frame in source.decode(video=0)]


def frame_numbers(path: Path) -> list[int]:
    """The number that every frame shows."""
    with av.open(str(path)) as source:
        return [number(f.to_ndarray(format="bgr24")) for f in source.decode(video=0)]


def sound_packets(path: Path, track: int = 0) -> list[tuple[Fraction, bytes]]:
    """Time in seconds and bytes of every packet of one audio track."""
    with av.open(str(path)) as source:
        stream = source.streams.audio[track]
        base = Fraction(stream.time_base)
        return [(p.pts * base, bytes(p)) for p in source.demux(stream) if p.size]


class TwoBoxes:
    """Stands for a detector: a person and a bicycle at fixed places, and a count of its calls."""

    names = ("person", "bicycle")
    category_ids = (1, 2)
    model_sha256 = "0" * 64
    options: dict[str, object] = {}  # noqa: RUF012

    def __init__(self) -> None:
        self.sizes: list[tuple[int, int]] = []

    def __call__(self, image: npt.NDArray[np.uint8], **options: Any) -> Detections:
        height, width = image.shape[:2]
        self.sizes.append((width, height))
        boxes = np.array([[0.1, 0.6, 0.4, 0.9], [0.5, 0.6, 0.9, 0.9]]) * [
            width,
            height,
            width,
            height,
        ]
        return Detections(
            xyxy=boxes.astype(np.float32),
            confidence=np.array([0.9, 0.4], np.float32),
            class_id=np.array([0, 1]),
            names=self.names,
            category_ids=self.category_ids,
            image_size=(width, height),
        )


def annotated(source: Path, **options: Any) -> tuple[Path, Any]:
    """Annotate a clip with `TwoBoxes`; returns the output beside it and the summary."""
    output = source.with_name("out.mp4")
    return output, annotate_video(TwoBoxes(), source, output, **options)
