"""Move the sound of a video into another file, packet for packet where the format allows it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rdlite.video.media import open_media, read_packets
from rdlite.video.reader import VideoReader

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer, OutputContainer
    from av.packet import Packet

_AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)
_LAYOUTS = {1: "mono", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 8: "7.1"}
_AAC_BIT_RATE = 192_000
_AUDIO_GAP = 0.1  # seconds
_INTERLEAVING = 10  # seconds by which one track may be stored after another


def _open(path: Path) -> InputContainer:
    container = open_media(path)
    sounds: Any = container.streams.audio
    if all(stream.codec_context and stream.rate for stream in sounds):
        return container
    container.close()  # a transport stream does not say what begins late
    return open_media(path, probe=True)


def _usual_layout(source: AudioStream) -> str:
    return _LAYOUTS.get(source.layout.nb_channels, "stereo")


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
        first: Tick that becomes time 0; sound before it is left out. None keeps all.
        last: Tick at which the sound ends, None for all of it.
        copy: False leaves all sound out.

    Attributes:
        copied: Tracks copied packet for packet.
        encoded: Tracks encoded again as AAC.
        dropped: Tracks that could neither be copied nor decoded.
        bad_packets: Packets left out: damaged, without a time, or out of order.
        notes: One sentence for each track that was not copied.
    """

    def __init__(
        self, reader: VideoReader, *, first: int | None, last: int | None, copy: bool
    ) -> None:
        self.copied = self.encoded = self.dropped = self.bad_packets = 0
        self.notes: list[str] = []
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
        self._container = _open(self._path) if self._path else None
        streams: Any = self._container.streams if self._container else ()
        for stream in streams:
            if stream.type != "audio":
                stream.discard = Discard.all  # skipped unread, where the container can
            elif stream.codec_context and stream.rate:
                self._add_track(stream)
            else:  # its codec is unknown, or it is too damaged
                self.dropped += 1
                self.notes.append("A sound track was left out: FFmpeg cannot tell what it is.")

    def _add_track(self, source: Any) -> None:
        try:
            output, copied = self._output.add_stream_from_template(source), True
            self.copied += 1
            if "channels" in source.layout.name:  # AVI and MKV do not say which; MP4 must
                output.codec_context.layout = _usual_layout(source)
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
        return self._output.add_stream(
            "aac", rate=rate, layout=_usual_layout(source), bit_rate=_AAC_BIT_RATE
        )

    def copy_until(self, seconds: Fraction | None) -> None:
        """Write the sound that begins before an instant, None for all of it.

        Args:
            seconds: Time since the source's start.
        """
        while True:
            self._waiting = self._waiting or next(self._packets, None)
            if self._waiting is None:
                return
            begin, packet = self._waiting
            if seconds is not None and begin >= seconds:
                return
            self._put(packet)
            self._waiting = None

    def finish(self) -> None:
        """Write the rest of the sound."""
        self.copy_until(None)
        for track in self._tracks.values():
            if not track.copied:
                self._encode_packet(track, None)
        self.close()

    def close(self) -> None:
        """Close the source."""
        if self._container:
            self._container.close()

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
        import av

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
        try:
            self._output.mux(packet)
        except (av.error.InvalidDataError, av.error.PatchWelcomeError):
            self.bad_packets += 1  # its own header, which MP4 does without, is damaged

    def _encode_packet(self, track: _Track, packet: Packet[AudioStream] | None) -> None:
        import av

        try:
            frames = track.source.decode(packet)
        except av.error.FFmpegError:
            self.bad_packets += 1
            return
        for frame in frames:
            begin = track.latest or 0
            stated = round(((frame.pts or 0) - track.shift) * track.base * frame.sample_rate)
            # Stored times are rounded; sound without a real gap is kept seamless.
            if track.latest is None or stated - begin > frame.sample_rate * _AUDIO_GAP:
                begin = max(begin, stated)
            frame.pts, frame.time_base = begin, Fraction(1, frame.sample_rate)
            track.latest = begin + frame.samples
            self._output.mux(track.output.encode(frame))
        if packet is None:
            self._output.mux(track.output.encode(None))
