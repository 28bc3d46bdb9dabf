"""`rdlite detect`: videos, every format, and standard output."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rdlite.sinks import FORMATS
from tests.command import Printed, cli, lines, names
from tests.media import clip


@pytest.fixture
def mixed(photos: Path, squares: np.ndarray) -> Path:
    """The photos, and among them two clips of which one has the name of a file of ours."""
    clip(photos / "more" / "clip.mp4", [squares] * 5)
    clip(photos / "detections.avi", [squares] * 3, codec="mpeg4")
    (photos / "bad.jpg").unlink()
    return photos


def test_videos_have_their_own_files(
    mixed: Path, tiny_model: Path, tmp_path: Path, capsys: Printed
) -> None:
    out = tmp_path / "out"
    assert cli("detect", mixed, "-o", out, "--model", tiny_model, "--stride", 2) == 0
    videos = ["detections-2.jsonl", "more/clip.jsonl"]
    assert names(out) == sorted(["a.png", "detections.jsonl", "more/a.png", *videos])
    header, *frames = lines(out / "more" / "clip.jsonl")
    assert header["source"] == str(mixed / "more" / "clip.mp4")
    assert [frame["frame"] for frame in frames] == [0, 2, 4]
    assert [len(frame["detections"]) for frame in frames] == [2, 2, 2]
    assert len(lines(out / "detections.jsonl")) == 1 + 2
    assert "2 images, 2 videos (8 frames), 14 objects (7 person, 7 car), 0 damaged, 0 failed" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("coco", ["detections.json", "detections-2.json", "more/clip.json"]),
        ("csv", ["detections.csv", "detections-2.csv", "more/clip.csv"]),
        (
            "yolo",
            [
                "detections-yolo/a.txt",
                "detections-yolo/more/a.txt",
                *(f"detections-2-yolo/detections.avi/00000{n}.txt" for n in range(3)),
                *(f"more/clip-yolo/clip.mp4/00000{n}.txt" for n in range(5)),
            ],
        ),
    ],
)
def test_every_format_for_images_and_videos(
    kind: str, expected: list[str], mixed: Path, tiny_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    options = ("--model", tiny_model, "--format", kind, "--no-images")
    assert cli("detect", mixed, "-o", out, *options) == 0
    found = [name for name in names(out) if Path(name).name not in ("classes.txt", "data.yaml")]
    assert found == sorted(expected)


def test_the_formats_offered_are_those_there_are(capsys: Printed) -> None:
    with pytest.raises(SystemExit):
        cli("detect", "--help")
    assert "{" + ",".join(FORMATS) + "}" in capsys.readouterr().out


@pytest.mark.parametrize("workers", [1, 2])
def test_standard_output_has_images_and_videos_in_their_order(
    workers: int, mixed: Path, tiny_model: Path, capsys: Printed
) -> None:
    arguments = ("--model", tiny_model, "--workers", workers, "--stride", 2, "--quiet")
    sources = (mixed / "more" / "clip.mp4", mixed / "a.png", mixed / "no.png", mixed)
    assert cli("detect", *sources, "-o", "-", *arguments) == 3
    printed = capsys.readouterr()
    header, *found = [json.loads(line) for line in printed.out.splitlines()]
    assert header["options"]["stride"] == 2
    clip_name, detections = str(mixed / "more" / "clip.mp4"), str(mixed / "detections.avi")
    assert [(line["image"], line.get("frame")) for line in found] == [
        *((clip_name, frame) for frame in (0, 2, 4)),
        (str(mixed / "a.png"), None),
        *((detections, frame) for frame in (0, 2)),
        (str(mixed / "more" / "a.png"), None),
    ]
    assert all(len(line["detections"]) == 2 for line in found)
    assert "no.png" in printed.err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--format", "yolo"), "cannot go to standard output; name a folder with -o"),
        (("--resume",), "needs a folder that remembers what is done"),
    ],
)
def test_what_standard_output_cannot_do_is_refused(
    arguments: tuple[str, ...], reason: str, photos: Path, tiny_model: Path, capsys: Printed
) -> None:
    assert cli("detect", photos, "-o", "-", "--model", tiny_model, *arguments) == 1
    assert reason in capsys.readouterr().err
