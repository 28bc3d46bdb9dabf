"""The command line, killed, interrupted, without room, without its folder, beside another one."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from rdlite import Detector, OptionError
from rdlite.sinks import open_sink
from rdlite.storage.journal import read_journal
from tests.command import PLAIN_USER, cli, command, lines
from tests.media import Sound, clip, frame_times

PARTS = 4
"""Of `long_clip`."""


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video with sound, of several parts, with objects that move."""
    squares = np.full((64, 96, 3), 90, np.uint8)
    squares[16:32, 16:32] = (250, 20, 20)
    images = [np.roll(squares, n // 10 * 16, axis=1) for n in range(PARTS * 250)]
    path = tmp_path_factory.mktemp("source") / "a.mp4"
    return clip(path, images, gop_size=50, sounds=[Sound(seconds=40)], options={"crf": "10"})


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with many images, each another one, and two that are none."""
    folder = tmp_path_factory.mktemp("photos")
    for n in range(300):
        image = np.full((64, 96, 3), 90, np.uint8)
        image[16:32, n % 5 * 16 : n % 5 * 16 + 16] = (250, 20, 20)
        cv2.imwrite(str(folder / f"{n:04}.png"), image)
    (folder / "0100.png").write_text("this is no image")
    (folder / "0200.png").write_text("nor is this")
    return folder


def start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def run(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=100, **options
    )


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Wait until something holds, while the process runs."""
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def visible(folder: Path) -> list[str]:
    """Names in a folder, without those that begin with a dot."""
    return sorted(path.name for path in folder.glob("[!.]*"))


def outputs(folder: Path) -> dict[str, bytes]:
    """The files that are there for the user."""
    return {name: data for name, data in tree(folder).items() if not name.startswith(".")}


JOBS: dict[str, Callable[[Path, Path, Path], list[object]]] = {
    "one video": lambda clip, photos, out: ["annotate", clip, "-o", out / "out.mp4"],
    "two workers": lambda clip, photos, out: ["annotate", clip.parent, "-o", out, "--workers", 2],
    "images": lambda clip, photos, out: ["detect", photos, "-o", out],
}


@pytest.mark.slow
@pytest.mark.fault(32)
@pytest.mark.timeout(400)
@pytest.mark.parametrize("kind", JOBS)
def test_a_run_that_is_killed_and_resumed_gives_the_same_files(
    kind: str, long_clip: Path, photos: Path, tiny_model: Path, tmp_path: Path
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    began = time.monotonic()
    code = run(*JOBS[kind](long_clip, photos, whole), "--model", tiny_model).returncode
    seconds = time.monotonic() - began
    assert code == (3 if kind == "images" else 0)
    expected, rng, kills = outputs(whole), random.Random(kind), 0
    while True:
        process = start(*JOBS[kind](long_clip, photos, broken), "--model", tiny_model, "--resume")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=rng.uniform(0.1, 1.0) * seconds if kills < 5 else 100)
        if process.poll() is None:
            process.kill()
            process.communicate()
            kills += 1
            found = outputs(broken)
            found.pop("errors.jsonl", None)  # grows line by line
            assert found.items() <= expected.items()
            continue
        assert process.returncode == code
        assert outputs(broken) == expected
        if kills >= 5:
            return
        shutil.rmtree(broken)
        broken.mkdir()


@pytest.mark.fault(33)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_video_can_be_gone_on_with(
    number: int, long_clip: Path, tiny_model: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.mp4"
    arguments = ("annotate", long_clip, "-o", output, "--model", tiny_model)
    process = start(*arguments)
    work = tmp_path / ".out.mp4.rdlite"
    wait_for(lambda: list(work.glob("part-00000.json")), process)
    process.send_signal(number)
    printed, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors and "--resume" in printed + errors
    assert visible(tmp_path) == []
    for path in work.glob("part-*.jsonl"):
        assert lines(path)
    made = {path.name: path.stat().st_mtime_ns for path in work.glob("part-*.mp4")}
    assert 0 < len(made) < PARTS
    assert cli(*arguments, "--resume") == 0
    assert len(frame_times(output)) == len(lines(output.with_suffix(".jsonl"))) - 1 == PARTS * 250
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.fault(33)
def test_an_interrupted_folder_keeps_its_journal(
    photos: Path, tiny_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = ("detect", photos, "-o", out, "--model", tiny_model)
    process, journal = start(*arguments), out / ".rdlite" / "images.jsonl"
    wait_for(lambda: journal.exists() and b'"input"' in journal.read_bytes(), process)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert not (out / "detections.jsonl").exists()
    _, entries = read_journal(journal)
    assert 0 < sum("input" in entry for entry in entries) < 300
    assert run(*arguments, "--resume").returncode == 3
    _, *found = lines(out / "detections.jsonl")
    assert len(found) == 298 and len(lines(out / "errors.jsonl")) == 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[tuple[Path, Callable[[], None] | None]]:
    """A file system with room for 256 KiB; without the right to mount one, a limit per file."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0:
        try:
            yield folder, None
        finally:
            subprocess.run(["umount", str(folder)], check=True)
        return
    yield folder, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, 65_536))


@pytest.mark.fault(34)
@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_ends_a_video_with_one_error(
    workers: int, small_disk: Any, tiny_model: Path, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (30, 240, 320, 3), np.uint8)
    source = clip(tmp_path / "a.mp4", list(noise), size=(320, 240))
    folder, limit = small_disk
    arguments = ["annotate", source, "-o", folder / "out.mp4", "--model", tiny_model]
    done = run(*arguments, "--crf", 10, "--workers", workers, preexec_fn=limit)
    assert done.returncode == 1
    assert "out.mp4" in done.stderr and "Traceback" not in done.stderr
    assert "no space left" in done.stderr.lower() or "file too large" in done.stderr.lower()
    assert list(folder.iterdir()) == []


@pytest.mark.fault(34)
def test_a_full_disk_ends_a_folder_of_images_and_keeps_what_is_done(
    small_disk: Any, tiny_model: Path, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for n in range(40):
        noise = np.random.default_rng(n).integers(0, 256, (64, 96, 3), np.uint8)
        cv2.imwrite(str(photos / f"{n:02}.png"), noise)
    folder, limit = small_disk
    if limit is not None:
        pytest.skip("a limit per file does not fill up")
    arguments = ("detect", photos, "-o", folder, "--model", tiny_model)
    done = run(*arguments)
    assert done.returncode in (1, 3)
    assert "no space left" in done.stderr.lower() and "Traceback" not in done.stderr
    assert "detections.jsonl" not in visible(folder)
    copies = list(folder.glob("*.png"))
    assert 0 < len(copies) < 40
    subprocess.run(["mount", "-o", "remount,size=2m", str(folder)], check=True)
    assert run(*arguments, "--resume").returncode == 0
    assert len(lines(folder / "detections.jsonl")) == 41
    assert len(list(folder.glob("*.png"))) == 40


@pytest.mark.fault(35)
@pytest.mark.parametrize("kind", ["file", "folder", "images"])
def test_a_read_only_folder_is_one_error(
    kind: str, photos: Path, tiny_model: Path, tmp_path: Path
) -> None:
    source = clip(tmp_path / "a.mp4", 3)
    folder = tmp_path / "read only"
    folder.mkdir(mode=0o555)
    arguments = {
        "file": ("annotate", source, "-o", folder / "out.mp4"),
        "folder": ("annotate", source, "-o", folder),
        "images": ("detect", photos, "-o", folder),
    }[kind]
    done = subprocess.run(
        [*PLAIN_USER, *command(*arguments, "--model", tiny_model)], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert str(folder) in done.stderr and "ermission denied" in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(folder.iterdir()) == []


@pytest.mark.fault(35)
@pytest.mark.parametrize("kind", ["file", "folder", "images"])
def test_a_folder_that_vanishes_is_one_error(
    kind: str, long_clip: Path, photos: Path, tiny_model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    arguments, begun = {
        "file": (
            ("annotate", long_clip, "-o", folder / "out.mp4"),
            ".out.mp4.rdlite/part-00000.json",
        ),
        "folder": (("annotate", long_clip, "-o", folder), ".a.mp4.rdlite/part-00000.json"),
        "images": (("detect", photos, "-o", folder), "0005.png"),
    }[kind]
    process = start(*arguments, "--model", tiny_model)
    wait_for(lambda: (folder / begun).exists(), process)
    folder.rename(tmp_path / "gone")
    _, errors = process.communicate(timeout=60)
    assert process.returncode in (1, 3)
    assert str(folder) in errors and "Traceback" not in errors
    assert errors.count("\n") <= 2, errors  # of a batch, the video and the list of failures
    assert visible(tmp_path) == ["gone"]


@pytest.mark.fault(36)
@pytest.mark.parametrize("name", ["out.mp4", "out"])
def test_a_second_process_is_refused_and_a_dead_one_does_not_matter(
    name: str, long_clip: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("annotate", long_clip, "-o", tmp_path / name, "--model", tiny_model)
    first = start(*arguments)
    wait_for(lambda: list(tmp_path.rglob("part-00000.json")), first)
    assert cli(*arguments, "--overwrite") == 1
    refusal = capsys.readouterr().err
    assert f"process {first.pid} on " in refusal and refusal.count("\n") == 1
    first.kill()
    first.communicate()
    assert list(tmp_path.rglob("*lock"))
    assert cli(*arguments, "--resume") == 0
    assert not list(tmp_path.rglob("*lock"))
    (video,) = tmp_path.rglob("*.mp4")
    assert len(frame_times(video)) == PARTS * 250


@pytest.mark.fault(37)
@pytest.mark.parametrize("workers", [1, 2])
def test_a_reader_that_has_seen_enough_is_no_error(
    workers: int, photos: Path, tiny_model: Path, tmp_path: Path
) -> None:
    sources = sorted(photos.glob("000*.png"))
    arguments = ("detect", *sources, "-o", "-", "--workers", workers, "--model", tiny_model)
    line = f"{shlex.join(command(*arguments))} | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith('{"schema"') and done.stdout.count("\n") == 1
    assert "Traceback" not in done.stderr and "Broken pipe" not in done.stderr
    assert done.returncode == 0


@pytest.mark.fault(37)
def test_a_closed_standard_output_does_not_stop_the_work(tiny_model: Path, tmp_path: Path) -> None:
    sources = [clip(tmp_path / f"{n}.mp4", 20) for n in range(3)]
    process = start("annotate", *sources, "-o", tmp_path / "out", "--model", tiny_model)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.wait(60) == 0
    assert process.stderr.read() == ""
    process.stderr.close()
    assert [len(frame_times(tmp_path / "out" / path.name)) for path in sources] == [20] * 3


@pytest.mark.fault(38)
def test_outputs_stay_in_their_folder_wherever_inputs_come_from(
    photos: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    for place in ("1.png", "a/2.png", "a/b/3.png"):
        shutil.copy(photos / "0000.png", tmp_path / place)
    monkeypatch.chdir(tmp_path / "a" / "b")
    sources = ("../../1.png", "..//*.png", "../../a/b/../b")
    assert cli("detect", *sources, "-o", "out", "--model", tiny_model) == 0
    assert sorted(outputs(Path("out"))) == ["1.png", "2.png", "3.png", "detections.jsonl"]
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.png")) == [
        "1.png", "a/2.png", "a/b/3.png",
        "a/b/out/1.png", "a/b/out/2.png", "a/b/out/3.png",
    ]  # fmt: skip


@pytest.mark.fault(38)
def test_a_link_in_the_output_folder_leads_nowhere(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in" / "more").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(photos / "0000.png", tmp_path / "in" / "more" / "a.png")
    (tmp_path / "out" / "more").symlink_to(tmp_path / "elsewhere")
    arguments = ("detect", tmp_path / "in", "-o", tmp_path / "out", "--model", tiny_model)
    assert cli(*arguments, "--overwrite") == 1
    assert "by a link or" in capsys.readouterr().err
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.fault(38)
@pytest.mark.parametrize("format", ["yolo", "voc"])
@pytest.mark.parametrize("name", ["../evil.png", "a/../../evil.png", "..", "a\0b.png"])
def test_label_files_stay_in_their_folder(
    format: str, name: str, tiny_model: Path, tmp_path: Path
) -> None:
    detector = Detector(tiny_model)
    found = detector(np.zeros((8, 8, 3), np.uint8))
    header = {"names": list(detector.names), "category_ids": list(detector.category_ids)}
    with pytest.raises(OptionError):
        with open_sink(format, tmp_path / "labels", header=header) as sink:
            sink.write(found, image=name)
    assert not list(tmp_path.rglob("*evil*"))
    assert not (tmp_path / "labels").exists()
