"""A video that is gone on with is the same to the byte as one that was never stopped."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from rdlite.errors import OptionError, RdliteError, VideoError
from rdlite.video.job import clean, open_job
from rdlite.video.parts import make_parts
from rdlite.video.pipeline import annotate_video
from rdlite.video.summary import finish
from tests.command import script
from tests.videojobs import FRAMES, Follower, content, fail_at, job, run


def interrupted(source: Path, folder: Path, **options: Any) -> None:
    with pytest.raises(RuntimeError):
        annotate_video(fail_at(600, RuntimeError("stop")), source, folder / "out.mp4", **options)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"stride": 2}, "stride was 1, now 2"),
        ({"conf": 0.7}, "conf was not recorded, now 0.7"),
        ({"preset": "faster"}, "preset was 'veryfast', now 'faster'"),
    ],
)
def test_other_settings_are_not_mixed(
    source: Path, tmp_path: Path, changes: dict[str, Any], text: str
) -> None:
    interrupted(source, tmp_path)
    output = tmp_path / "out.mp4"
    with pytest.raises(VideoError, match=text):
        annotate_video(Follower(), source, output, resume=True, **changes)
    assert len(os.listdir(tmp_path / ".out.mp4.rdlite")) > 4
    again = Follower()
    annotate_video(again, source, output, resume=True, overwrite=True, **changes)
    assert sorted(os.listdir(tmp_path)) == ["out.jsonl", "out.mp4"]
    assert len(again.sizes) >= FRAMES / changes.get("stride", 1)


def test_sound_may_be_left_out_of_a_video_that_was_begun_with_it(
    source: Path, tmp_path: Path
) -> None:
    interrupted(source, tmp_path)
    again = Follower()
    annotate_video(again, source, tmp_path / "out.mp4", resume=True, audio=False)
    assert len(again.sizes) < FRAMES


def test_a_source_that_has_changed_is_not_gone_on_with(source: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.mkv"
    own.write_bytes(source.read_bytes())
    interrupted(own, tmp_path)
    os.utime(own, ns=(0, 0))
    with pytest.raises(VideoError, match="mtime_ns was"):
        annotate_video(Follower(), own, tmp_path / "out.mp4", resume=True)


def test_a_source_that_changes_meanwhile_is_not_mixed(source: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.mkv"
    own.write_bytes(source.read_bytes())
    detector = Follower(lambda calls: os.utime(own, ns=(0, 0)) if calls == 200 else None)
    with pytest.raises(VideoError, match="has changed"):
        annotate_video(detector, own, tmp_path / "out.mp4")
    assert not (tmp_path / "out.mp4").exists()


def test_finished_parts_are_not_thrown_away_unasked(
    source: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    interrupted(source, tmp_path)
    with pytest.raises(VideoError, match=r"2 finished parts .*--resume"):
        annotate_video(Follower(), source, tmp_path / "out.mp4")
    again = Follower()
    annotate_video(again, source, tmp_path / "out.mp4", overwrite=True)
    assert len(again.sizes) == FRAMES
    assert content(tmp_path) == whole


def test_resume_begins_where_nothing_was_begun(
    source: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    annotate_video(Follower(), source, tmp_path / "out.mp4", resume=True)
    assert content(tmp_path) == whole
    with pytest.raises(VideoError, match=r"exists already; .* overwrite=True \(--overwrite\)"):
        annotate_video(Follower(), source, tmp_path / "out.mp4", resume=True)


def test_finishing_may_be_done_again(source: Path, tmp_path: Path, whole: dict[str, bytes]) -> None:
    wanted = job(source, tmp_path, resume=True)
    with pytest.raises(RuntimeError), open_job(wanted, Follower()) as opened:
        make_parts(
            wanted, opened.plan, opened.header, Follower(), opened.pending, lambda frames: None
        )
        finish(wanted, opened.plan, opened.header)
        assert finish(wanted, opened.plan, opened.header).frames == FRAMES
        (tmp_path / "out.jsonl").unlink()
        raise RuntimeError("killed between the two outputs")
    again = Follower()
    run(wanted, again)
    assert again.sizes == []
    assert content(tmp_path) == whole


def test_a_part_that_is_missing_is_not_joined_over(source: Path, tmp_path: Path) -> None:
    wanted = job(source, tmp_path)
    with pytest.raises(VideoError, match=r"part 0 of .* is not made"):
        with open_job(wanted, Follower()) as opened:
            finish(wanted, opened.plan, opened.header)
    assert os.listdir(tmp_path) == []


def test_a_worker_of_an_earlier_job_cannot_write_into_a_later_one(
    source: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    old = job(source, tmp_path, stride=3)
    with pytest.raises(RuntimeError), open_job(old, Follower()) as opened:
        raise RuntimeError("the driver is killed, its worker lives on")
    wanted = job(source, tmp_path)
    with open_job(wanted, Follower()) as now:
        with pytest.raises(VideoError, match="taken over"):
            make_parts(old, opened.plan, opened.header, Follower(), opened.pending, print)
        make_parts(wanted, now.plan, now.header, Follower(), now.pending, lambda frames: None)
        finish(wanted, now.plan, now.header)
        clean(wanted)
    assert content(tmp_path) == whole


def test_an_output_has_one_writer(source: Path, tmp_path: Path) -> None:
    with open_job(job(source, tmp_path), Follower()):
        with pytest.raises(RdliteError, match=r"out\.mp4\.lock is held by process"):
            annotate_video(Follower(), source, tmp_path / "out.mp4", overwrite=True)
        with pytest.raises(RdliteError, match=r"out\.jsonl\.lock is held by process"):
            annotate_video(Follower(), source, tmp_path / "b.mp4", jsonl=tmp_path / "out.jsonl")
    assert os.listdir(tmp_path) == [".out.mp4.rdlite"]


def test_leftovers_of_killed_processes_are_removed(
    source: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    (tmp_path / ".out.mp4.partial-1-0.mp4").write_bytes(b"torn")
    (tmp_path / ".out.jsonl.partial-1-0.jsonl").write_bytes(b"torn")
    run(job(source, tmp_path))
    assert content(tmp_path) == whole


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"encoder_threads": 0}, OptionError),
        ({"preset": "quick"}, OptionError),
        ({"format": "xls"}, OptionError),
        ({"video": None, "results": None}, OptionError),
        ({"results": Path("out.mp4")}, OptionError),
    ],
)
def test_jobs_that_cannot_be_done_are_refused(
    source: Path, tmp_path: Path, changes: dict[str, Any], error: type[Exception]
) -> None:
    if changes.get("results"):
        changes = {"results": tmp_path / "out.mp4"}
    with pytest.raises(error):
        run(job(source, tmp_path, **changes))
    assert os.listdir(tmp_path) == []


# Killed.

KILLED = """
import sys
from rdlite.video.pipeline import annotate_video
from tests.videojobs import Follower
tell = lambda done, total: done % 10 or print(done, flush=True)
annotate_video(Follower(), sys.argv[1], sys.argv[2], resume=True, progress=tell)
"""


def resume_and_kill(source: Path, output: Path, frame: int, seconds: float) -> int:
    """Go on with a job and kill it some seconds after a frame; returns how it ended."""
    process = subprocess.Popen(script(KILLED, source, output), stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= frame:
                time.sleep(seconds)
                process.kill()
    return process.returncode


@pytest.mark.parametrize("rounds", [2, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.timeout(600)
def test_kill_and_resume_give_the_same_bytes(
    source: Path, tmp_path: Path, whole: dict[str, bytes], rounds: int
) -> None:
    chance, killed = random.Random(rounds), -signal.SIGKILL
    for n in range(rounds):
        output = tmp_path / str(n) / "out.mp4"
        output.parent.mkdir()
        early, later = chance.randrange(FRAMES // 2), chance.randrange(FRAMES)
        assert resume_and_kill(source, output, early, 0) == killed
        resume_and_kill(source, output, later, 0)
        resume_and_kill(source, output, FRAMES, chance.uniform(0, 0.1))  # while it is joined
        if job(source, output.parent).folder.exists() or not output.exists():
            assert resume_and_kill(source, output, FRAMES + 1, 0) == 0
        assert {name: content(output.parent)[name] for name in whole} == whole
        assert set(os.listdir(output.parent)) - set(whole) <= {".out.mp4.lock", ".out.jsonl.lock"}
