"""Recordings as they come: begun in the middle, sound that joins late, clocks that jump."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import pytest

from rdlite.errors import VideoError
from rdlite.video.plan import plan_video
from rdlite.video.reader import VideoReader
from tests.media import Sound, annotated, clip
from tests.parts import KINDS, make

TS_PACKET = 188


def begun_in_the_middle(folder: Path, kind: str) -> Path:
    """A transport stream without its first group of pictures, the next of which is open."""
    whole = make(folder, kind, **KINDS[kind])
    with av.open(str(whole)) as source:
        keys = [p.pos for p in source.demux(video=0) if p.size and p.is_keyframe]
    cut = folder / f"cut-{kind}"
    cut.write_bytes(whole.read_bytes()[keys[1] // TS_PACKET * TS_PACKET :])
    return cut


@pytest.mark.parametrize("kind", ["mpeg2.ts", "open.ts"])
def test_every_nth_frame_is_counted_from_the_first_that_is_shown(tmp_path: Path, kind: str) -> None:
    path = begun_in_the_middle(tmp_path, kind)
    plan = plan_video(path, part_frames=20)
    assert len(plan.parts) > 2
    with VideoReader(path, stride=3) as reader:
        whole = [frame.ticks for frame in reader]
    parts = []
    for part in plan.parts:
        with VideoReader(path, stride=3, part=part) as reader:
            parts += [frame.ticks for frame in reader]
    assert parts == whole


def test_sound_that_begins_late_in_a_transport_stream_is_kept(tmp_path: Path) -> None:
    early = clip(tmp_path / "a.ts", 300, size=(320, 240), sounds=[Sound("mp2", seconds=4)])
    late = tmp_path / "late.ts"
    with av.open(str(early)) as old, av.open(str(late), "w") as new:
        streams = [new.add_stream_from_template(stream) for stream in old.streams]
        packets = [packet for packet in old.demux() if packet.size]
        delay = {old.streams.video[0].index: 0, old.streams.audio[0].index: 8 * 90_000}
        for packet in packets:
            packet.pts += delay[packet.stream_index]
            packet.dts += delay[packet.stream_index]
        for packet in sorted(packets, key=lambda one: one.dts):
            packet.stream = streams[packet.stream_index]
            new.mux(packet)
    output, summary = annotated(late)
    assert (summary.audio_copied, summary.audio_dropped) == (1, 0)
    with av.open(str(output)) as done:
        sound = done.streams.audio[0]
        assert float(sound.start_time * sound.time_base) == pytest.approx(8, abs=0.2)


def test_a_jump_that_mp4_cannot_hold_is_refused_before_the_work(tmp_path: Path) -> None:
    ticks = [3600 * n + (n > 50) * 2**31 for n in range(100)]
    path = clip(
        tmp_path / "a.nut", 100, time_base=Fraction(1, 90_000), ticks=ticks, options={"bf": "0"}
    )
    with pytest.raises(VideoError, match="gap between two frames that MP4 cannot hold"):
        annotated(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.nut"]


@pytest.mark.parametrize("frames", range(105, 121, 3))
def test_a_whole_asf_is_not_called_cut_wherever_reading_begins(tmp_path: Path, frames: int) -> None:
    path = clip(tmp_path / "a.asf", frames, codec="wmv2", gop_size=12)
    with VideoReader(path, start=1.3) as reader:
        assert len(list(reader)) > 70
    assert not reader.truncated
