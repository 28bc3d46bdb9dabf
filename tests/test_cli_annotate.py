from __future__ import annotations

import json
import re
import resource
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from rdlite.wording import counted_from
from tests.command import cli, command, lines
from tests.media import Sound, clip, frame_times, sound_packets

Printed = pytest.CaptureFixture[str]


@pytest.fixture
def videos(squares: np.ndarray, tmp_path: Path) -> Path:
    """A folder with a good clip and one that is text."""
    folder = tmp_path / "videos"
    folder.mkdir()
    clip(folder / "b.mp4", [squares] * 4)
    (folder / "a.mp4").write_text("this is no video")
    return folder


def test_one_video_is_written_as_named(
    squares: np.ndarray, tiny_model: Path, tmp_path: Path, capsys: Printed
) -> None:
    source, target = tmp_path / "clip.mp4", tmp_path / "new" / "boxes.mp4"
    clip(source, [squares] * 6, sounds=[Sound(seconds=0.2)])
    assert cli("annotate", source, "-o", target, "--model", tiny_model) == 0
    assert sorted(p.name for p in target.parent.iterdir()) == ["boxes.jsonl", "boxes.mp4"]
    assert sound_packets(target) == sound_packets(source)
    assert [len(line["detections"]) for line in lines(target.with_suffix(".jsonl"))[1:]] == [2] * 6
    printed = capsys.readouterr().out
    assert "6 frames" in printed and "12 objects (6 person, 6 car)" in printed
    assert str(target) in printed


def test_a_bad_video_does_not_stop_the_others(
    videos: Path, tiny_model: Path, tmp_path: Path, capsys: Printed
) -> None:
    out = tmp_path / "out"
    assert cli("annotate", videos, "-o", out, "--model", tiny_model, "--stride", 2) == 3
    assert len(frame_times(out / "b.mp4")) == 4
    assert len(lines(out / "b.jsonl")) == 1 + 2
    assert lines(out / "errors.jsonl")[0]["input"] == str(videos / "a.mp4")
    printed = capsys.readouterr()
    assert "a.mp4" in printed.err and printed.err.count("\n") == 1
    assert "1 video (4 frames), 4 objects (2 person, 2 car), 0 damaged, 1 failed" in printed.out


def test_all_options_reach_the_pipeline(
    squares: np.ndarray, tiny_model: Path, tmp_path: Path, capsys: Printed
) -> None:
    source, target = tmp_path / "clip.mp4", tmp_path / "out.mp4"
    clip(source, [squares] * 20, sounds=[Sound(seconds=0.8)])
    span = ("--start", "0.2", "--end", "0.6", "--no-audio", "--codec", "mpeg4", "--crf", "20")
    choice = ("--classes", "car", "--conf", "0.3", "--model", tiny_model, "--json")
    assert cli("annotate", source, "-o", target, *span, *choice) == 0
    (summary,) = json.loads(capsys.readouterr().out)["videos"]
    assert summary["frames"] == 10 and summary["detections"] == {"car": 10}
    assert summary["source"] == str(source) and summary["output"] == str(target)
    assert (summary["bad_packets"], summary["audio_copied"]) == (0, 0)
    assert lines(target.with_suffix(".jsonl"))[0]["options"]["conf"] == 0.3


def test_a_truncated_video_is_kept_up_to_its_end_and_counted(
    tiny_model: Path, tmp_path: Path, capsys: Printed
) -> None:
    clip(tmp_path / "clip.mkv", 60)
    content = (tmp_path / "clip.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(content[: len(content) // 2])
    target = tmp_path / "out.mp4"
    arguments = ("annotate", tmp_path / "cut.mkv", "-o", target, "--model", tiny_model)
    assert cli(*arguments) == 3
    assert 0 < len(frame_times(target)) < 60
    assert "note:" in capsys.readouterr().out
    assert cli(*arguments, "--overwrite", "--json") == 3
    summary = json.loads(capsys.readouterr().out)
    assert summary["damaged"] == 1 and summary["videos"][0]["truncated"]


@pytest.mark.parametrize("again", [("--resume", "--quiet"), ("--resume",), ("--resume", "--json")])
def test_damage_is_named_in_every_run_though_it_is_quiet(
    again: tuple[str, ...], tiny_model: Path, tmp_path: Path, capsys: Printed
) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    content = clip(folder / "good.mkv", 60).read_bytes()
    (folder / "cut.mkv").write_bytes(content[: len(content) // 2])
    arguments = ("annotate", folder, "-o", tmp_path / "out", "--model", tiny_model)
    assert cli(*arguments, "--quiet") == 3
    first = capsys.readouterr()
    assert first.out == "" and first.err.count("\n") == 1
    assert first.err.startswith(f"rdlite: {folder / 'cut.mkv'}: The file ends early: ")
    assert cli(*arguments, *again) == 3
    assert capsys.readouterr().err == first.err


@pytest.mark.parametrize("start", [None, 12])
def test_damage_is_named_likewise_where_detections_go_to_standard_output(
    start: int | None, tiny_model: Path, tmp_path: Path, capsys: Printed
) -> None:
    options = {"movflags": "+faststart"}
    cut = clip(tmp_path / "cut.mp4", 1200, gop_size=50, container_options=options)
    content = cut.read_bytes()
    cut.write_bytes(content[: len(content) * 2 // 3])
    arguments = ("--model", tiny_model, "--quiet", *(("--start", start) if start else ()))
    said = []
    for output in ("-", tmp_path / "out"):
        assert cli("detect", cut, "-o", output, *arguments) == 3
        said.append(capsys.readouterr().err)
    assert said[0] == said[1]
    last = said[0].splitlines()[-1]
    told = re.fullmatch(
        rf"rdlite: {re.escape(str(cut))}: The file ends early: (\d+)(.*) frames were read\.", last
    )
    before = 25 * (start or 0)
    assert told and 550 < int(told[1]) + before < 900
    assert told[2] == ("" if start else " of 1,200")  # nobody counts those before the start


@pytest.mark.parametrize(
    ("start", "format", "told"), [(0.2, "coco", 1), (0.0, "coco", 0), (0.2, "csv", 0)]
)
def test_pictures_named_by_a_frame_say_what_the_frame_is_counted_from(
    start: float, format: str, told: int, tiny_model: Path, tmp_path: Path, capsys: Printed
) -> None:
    arguments = ("--start", start, "--format", format, "--model", tiny_model, "--quiet")
    assert cli("annotate", clip(tmp_path / "a.mp4", 10), "-o", tmp_path / "out", *arguments) == 0
    assert capsys.readouterr().err.count(f"frames are {counted_from(start)}") == told


def test_a_run_in_which_all_failed_does_not_block_the_next(
    videos: Path, tiny_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = ("-o", out, "--model", tiny_model)
    assert cli("annotate", videos / "a.mp4", *arguments) == 1
    assert [path.name for path in out.iterdir()] == ["errors.jsonl"]
    assert cli("annotate", videos / "b.mp4", *arguments) == 0


def test_existing_files_are_only_replaced_on_demand(
    videos: Path, tiny_model: Path, tmp_path: Path, capsys: Printed
) -> None:
    out = tmp_path / "out"
    arguments = ("annotate", videos / "b.mp4", "-o", out, "--model", tiny_model)
    out.mkdir()
    for name in ("b.jsonl", "b.mp4"):
        (out / name).write_text("of the user")
        for options in ((), ("--resume",)):
            assert cli(*arguments, *options) == 1
            assert f"{name} exists already; choose another name" in capsys.readouterr().err
        assert (out / name).read_text() == "of the user"
        (out / name).unlink()
    assert cli(*arguments) == 0
    assert cli(*arguments) == 1
    assert f"{out} holds an earlier run" in capsys.readouterr().err
    assert cli(*arguments, "--overwrite") == 0


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of several parts."""
    return clip(tmp_path_factory.mktemp("long") / "clip.mp4", 1200, options={"g": "50"})


def test_one_video_is_gone_on_with_where_it_was_killed(
    long_clip: Path, tiny_model: Path, tmp_path: Path, capsys: Printed
) -> None:
    arguments = ("annotate", long_clip, "--model", tiny_model)
    assert cli(*arguments, "-o", tmp_path / "whole.mp4") == 0
    target = tmp_path / "killed" / "whole.mp4"
    process = subprocess.Popen(command(*arguments, "-o", target, "--workers", 2))
    part = target.parent / ".whole.mp4.rdlite" / "part-00001.json"
    deadline = time.monotonic() + 60
    while not part.exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    process.kill()
    process.wait()
    assert not target.exists()
    capsys.readouterr()
    assert cli(*arguments, "-o", target, "--resume", "--conf", 0.3) == 1
    assert "begun with other settings (conf was 0.4, now 0.3)" in capsys.readouterr().err
    assert cli(*arguments, "-o", target, "--resume") == 0
    assert target.read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert [p.name for p in target.parent.iterdir() if p.name != "whole.jsonl"] == ["whole.mp4"]


def test_one_video_that_is_done_is_not_done_again(
    videos: Path, tiny_model: Path, tmp_path: Path, capsys: Printed
) -> None:
    target = tmp_path / "b.mp4"
    arguments = ("annotate", videos / "b.mp4", "-o", target, "--model", tiny_model)
    assert cli(*arguments, "--resume") == 0
    before = target.stat()
    capsys.readouterr()
    assert cli(*arguments, "--resume") == 0
    assert capsys.readouterr().err == f"rdlite: {target} is done already\n"
    assert cli(*arguments, "--resume", "--quiet") == 0
    assert capsys.readouterr().err == ""
    assert cli(*arguments, "--resume", "--iou", 0.4) == 1
    assert "written with other settings (iou was 0.5, now 0.4)" in capsys.readouterr().err
    assert cli(*arguments, "--resume", "--crf", 30, "--no-audio") == 1
    assert "(crf was 23, now 30, audio was True, now False)" in capsys.readouterr().err
    assert target.stat().st_ino == before.st_ino
    assert cli(*arguments, "--resume", "--overwrite", "--iou", 0.4) == 0
    assert lines(target.with_suffix(".jsonl"))[0]["options"]["iou"] == 0.4


def test_one_video_whose_results_do_not_say_how_it_was_made_is_not_taken_for_done(
    videos: Path, tiny_model: Path, tmp_path: Path, capsys: Printed
) -> None:
    target = tmp_path / "b.mp4"
    arguments = ("annotate", videos / "b.mp4", "-o", target, "--format", "csv")
    arguments += ("--model", tiny_model, "--resume")
    assert cli(*arguments) == 0
    before = target.stat()
    assert cli(*arguments) == 1
    assert "exist already, and csv does not say with which settings" in capsys.readouterr().err
    assert target.stat().st_ino == before.st_ino
    assert cli(*arguments, "--overwrite") == 0
    assert target.stat().st_ino != before.st_ino


def test_a_full_disk_ends_the_batch_and_it_goes_on_when_there_is_room(
    videos: Path, tiny_model: Path, tmp_path: Path
) -> None:
    (videos / "a.mp4").unlink()
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    clip(videos / "c.mp4", [noise] * 20, options={"qp": "1"})
    clip(videos / "d.mp4", 4)
    out = tmp_path / "out"

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))

    arguments = command("annotate", videos, "-o", out, "--model", tiny_model, "--crf", 1)
    done = subprocess.run(arguments, preexec_fn=limit, capture_output=True, text=True)
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1 and "c.mp4" in done.stderr
    assert "stopped, 2 not done; the same command with --resume goes on" in done.stdout
    assert subprocess.run([*arguments, "--resume"], capture_output=True).returncode == 0
    visible = [p.name for p in out.iterdir() if not p.name.startswith(".")]
    assert sorted(visible) == [f"{n}.{e}" for n in "bcd" for e in ("jsonl", "mp4")]


def test_an_input_is_never_replaced(
    videos: Path, squares: np.ndarray, tiny_model: Path, capsys: Printed
) -> None:
    clip(videos / "b.mkv", [squares] * 2)
    before = (videos / "b.mp4").read_bytes()
    sources = (videos / "b.mkv", videos / "b.mp4")
    assert cli("annotate", *sources, "-o", videos, "--model", tiny_model, "--overwrite") == 3
    assert "b.mp4 is an input, which is never replaced" in capsys.readouterr().err
    assert (videos / "b.mp4").read_bytes() == before


def test_videos_are_written_beside_their_sources_only_where_no_run_takes_them_for_such(
    videos: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: Printed
) -> None:
    monkeypatch.chdir(videos)
    (videos / "a.mp4").unlink()
    (videos / "b.mp4").rename("b.mov")
    for source in (".", "*", "b*"):
        assert cli("annotate", source, "-o", ".", "--model", tiny_model) == 1
        assert f"inputs are looked for ({source})" in capsys.readouterr().err
    assert [path.name for path in videos.iterdir()] == ["b.mov"]
    assert cli("annotate", "*.mov", "-o", ".", "--model", tiny_model, "--json") == 0
    assert cli("annotate", "*.mov", "-o", ".", "--model", tiny_model, "--json", "--resume") == 0
    summaries = map(json.loads, capsys.readouterr().out.splitlines())
    assert [summary["earlier"] for summary in summaries] == [0, 1]


@pytest.mark.parametrize(
    ("output", "reason"),
    [("one.mp4", "give a folder"), ("one.mkv", "must end in .mp4"), ("-", "name a file with -o")],
)
def test_an_output_that_cannot_hold_the_videos_is_refused(
    output: str,
    reason: str,
    videos: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Printed,
) -> None:
    monkeypatch.chdir(videos)
    assert cli("annotate", "a.mp4", "b.mp4", "-o", output, "--model", tiny_model) == 1
    assert reason in capsys.readouterr().err
    assert not Path(output).exists()


def test_an_interruption_keeps_the_videos_that_are_done(
    squares: np.ndarray, tiny_model: Path, tmp_path: Path
) -> None:
    clip(tmp_path / "a.mp4", [squares] * 2)
    clip(tmp_path / "b.mp4", 200, size=(640, 360))
    for name in ("c", "d", "e", "f"):
        (tmp_path / f"{name}.mp4").write_bytes((tmp_path / "b.mp4").read_bytes())
    out = tmp_path / "out"
    process = subprocess.Popen(
        command("annotate", tmp_path, "-o", out, "--model", tiny_model),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not (out / "a.mp4").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=60)  # Python may have a word on stderr
    assert process.returncode == 130
    assert "interrupted" in printed
    assert len(frame_times(out / "a.mp4")) == 2
    assert not (out / "f.mp4").exists() and not list(out.glob(".*partial*"))
