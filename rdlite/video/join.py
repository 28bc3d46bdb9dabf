"""Join the encoded parts of a video, packet by packet, and give it the sound of its source."""

from __future__ import annotations

import heapq
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rdlite.errors import VideoError
from rdlite.storage.partial import PartialFile
from rdlite.video.audio import AudioCopier
from rdlite.video.media import open_media
from rdlite.video.reader import VideoReader
from rdlite.video.writer import Piece, create_mp4, naming_errors

if TYPE_CHECKING:
    from av.packet import Packet

_MIN_TIMESCALE = 10_000  # ticks a second, so that a delay of the sound is kept to 0.05 ms
# Describes the source's file, not its content.
_FILE_TAGS = ("major_brand", "minor_version", "compatible_brands", "encoder")


def join(
    output: str | os.PathLike[str],
    reader: VideoReader,
    pieces: Mapping[Path, Piece],
    audio: AudioCopier,
    *,
    zero: int,
    step: int,
) -> int:
    """Write an MP4 of all pieces and the sound, in place of a file that has that name.

    Args:
        output: File to write.
        reader: The source, for its time base and its title.
        pieces: What `PartWriter` wrote, at least one, in order.
        audio: The sound.
        zero: Tick that becomes time 0.
        step: Ticks of a frame at the mean rate.

    Returns:
        How many frames were moved, because a piece began before the end of the one before.

    Raises:
        VideoError: A piece is missing or does not fit to the others, or the disk is full.
    """
    placed = _one_after_the_other(list(pieces.values()))
    packets = _in_time(_packets(pieces, placed, reader.time_base.numerator), placed, step)
    target = PartialFile(output, overwrite=True, error=VideoError)
    try:
        with naming_errors(f"{output} cannot be written"):
            _write(target.partial, reader, next(iter(pieces)), packets, audio, zero)
        target.commit()
    finally:
        audio.close()
        target.discard()
    moved = zip(pieces.values(), placed, strict=True)
    return sum(new.frames for old, new in moved if new.first != old.first)


def _one_after_the_other(pieces: Sequence[Piece]) -> list[Piece]:
    """Move pieces that begin too early, which frames can cause that were moved themselves."""
    placed = [pieces[0]]
    for piece in pieces[1:]:
        late = max(0, placed[-1].latest + 1 - piece.first)
        placed.append(replace(piece, first=piece.first + late, latest=piece.latest + late))
    return placed


def _packets(paths: Iterable[Path], pieces: Iterable[Piece], ticks: int) -> Iterator[Packet[Any]]:
    """Yield the packets of all pieces with the times at which they are shown."""
    extradata = None
    for path, piece in zip(paths, pieces, strict=True):
        with open_media(path) as container:
            stream = container.streams.video[0]
            extradata = extradata or stream.codec_context.extradata
            if stream.codec_context.extradata != extradata:
                raise VideoError(
                    f"{path} comes from another version of the encoder than the parts before it; "
                    "make the video anew"
                )
            for packet in container.demux(stream):
                if packet.size:
                    packet.pts = piece.first + (packet.pts or 0) // ticks
                    yield packet


def _in_time(packets: Iterable[Any], pieces: Sequence[Piece], step: int) -> Iterator[Any]:
    """Add the times at which packets, which come in this order, are decoded.

    The packet in place n is decoded when frame number n - delay is shown, which comes out right
    whichever parts the frames are in.
    """
    delay, last = max(piece.delay for piece in pieces), pieces[-1]
    final = sum(piece.frames for piece in pieces) - 1
    shown: list[int] = []
    for place, packet in enumerate(packets):
        heapq.heappush(shown, packet.pts)
        early = pieces[0].first - (delay - place) * step
        packet.dts = heapq.heappop(shown) if place >= delay else early
        packet.duration = 1  # only those of two packets count: the last shown and the last stored
        if packet.pts == last.latest:
            packet.duration = last.duration or step
        elif place == final:
            packet.duration = min(time for time in shown if time > packet.pts) - packet.pts
        yield packet


def _write(
    path: Path,
    reader: VideoReader,
    head: Path,
    packets: Iterable[Any],
    audio: AudioCopier,
    zero: int,
) -> None:
    base, tags = reader.time_base, reader.stream.container.metadata
    # Delays are rounded to milliseconds by default.
    scale = str(base.denominator * math.ceil(_MIN_TIMESCALE / base.denominator))
    options = {"movflags": "+faststart", "movie_timescale": scale}
    with create_mp4(path, base, **options) as output:
        with open_media(head) as part:
            # opaque: without looking for an encoder of the decoder's name
            stream = output.add_stream_from_template(part.streams.video[0], opaque=True)
        stream.time_base = base
        output.metadata.update({key: tag for key, tag in tags.items() if key not in _FILE_TAGS})
        audio.add_tracks(output)
        for packet in packets:
            audio.copy_until(packet.dts * base)
            packet.stream, packet.time_base = stream, base
            packet.pts, packet.dts = packet.pts - zero, packet.dts - zero
            output.mux(packet)
        audio.finish()
