from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from rdlite.cli import main
from tests.conftest import street_clip
from tests.media import clip

SLOW_BARS = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}


@pytest.fixture
def photos(squares: np.ndarray, tmp_path: Path) -> Path:
    """A folder with a good image, one of the same name below it, and one that is text."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    cv2.imwrite(str(folder / "a.png"), squares)
    cv2.imwrite(str(folder / "more" / "a.png"), squares)
    (folder / "bad.jpg").write_text("this is no image")
    (folder / "notes.txt").write_text("not looked at")
    return folder


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def cli(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def command(*arguments: object) -> list[str]:
    # -P keeps the source tree out of the path, so that this is the installed rdlite
    return [sys.executable, "-P", "-m", "rdlite", *(str(a) for a in arguments)]


# detect


def test_detect_writes_copies_and_jsonl_and_goes_on_after_a_bad_file(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert cli("detect", photos, "-o", out, "--model", tiny_model) == 3
    header, *found = lines(out / "detections.jsonl")
    assert header["options"]["conf"] == 0.25
    assert [line["image"] for line in found] == [
        str(photos / "a.png"),
        str(photos / "more" / "a.png"),
    ]
    assert [d["class_name"] for d in found[0]["detections"]] == ["person", "car"]
    assert (out / "a.png").exists() and (out / "more" / "a.png").exists()
    (failure,) = lines(out / "errors.jsonl")
    assert failure["input"].endswith("bad.jpg") and "bad.jpg" in failure["error"]
    printed = capsys.readouterr()
    assert "bad.jpg" in printed.err and "Traceback" not in printed.err
    assert "2 images, 4 objects (2 person, 2 car), 1 failed" in printed.out


def test_detect_says_0_when_all_is_well_and_1_when_nothing_was_done(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ("--model", tiny_model)
    assert cli("detect", photos / "a.png", "-o", tmp_path / "x", *model) == 0
    assert not (tmp_path / "x" / "errors.jsonl").exists()
    assert cli("detect", photos / "bad.jpg", "-o", tmp_path / "y", *model) == 1
    assert cli("detect", photos / "*.gif", "-o", tmp_path / "z", *model) == 1
    assert "no file matches this pattern" in capsys.readouterr().err
    assert cli("detect", photos / "gone.png", photos / "a.png", "-o", tmp_path / "w", *model) == 3


def test_detect_never_overwrites_unasked(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("detect", photos / "a.png", "-o", tmp_path / "out", "--model", tiny_model)
    assert cli(*arguments) == 0
    before = (tmp_path / "out" / "detections.jsonl").read_bytes()
    assert cli(*arguments, "--conf", 0.9) == 1
    assert "exists already" in capsys.readouterr().err
    assert (tmp_path / "out" / "detections.jsonl").read_bytes() == before
    assert cli(*arguments, "--overwrite") == 0


def test_detect_gives_files_of_one_name_their_own_outputs(
    photos: Path, tiny_model: Path, tmp_path: Path
) -> None:
    sources = (photos / "a.png", photos / "more" / "a.png")
    assert cli("detect", *sources, "-o", tmp_path / "out", "--model", tiny_model) == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["a-2.png", "a.png", "detections.jsonl"]


def test_detect_leaves_its_own_output_folder_out(
    photos: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("detect", photos, "-o", photos / "out", "--model", tiny_model, "--json")
    for extra in ((), ("--overwrite",)):
        assert cli(*arguments, *extra) == 3
        assert json.loads(capsys.readouterr().out)["images"] == 2


@pytest.mark.parametrize(("kind", "name"), [("coco", "detections.json"), ("csv", "detections.csv")])
def test_detect_writes_coco_and_csv(
    photos: Path, tiny_model: Path, tmp_path: Path, kind: str, name: str
) -> None:
    out, a = tmp_path / "out", photos / "a.png"
    options = ("--format", kind, "--no-images", "--classes", "car")
    assert cli("detect", a, "-o", out, "--model", tiny_model, *options) == 0
    assert [path.name for path in out.iterdir()] == [name]
    content = (out / name).read_text()
    if kind == "coco":
        (annotation,) = json.loads(content)["annotations"]
        assert annotation["category_id"] == 3
    else:
        assert content.splitlines()[1].split(",")[5] == "car"


def test_detect_streams_to_standard_output(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.chdir(tmp_path)
    assert cli("detect", photos / "a.png", "-o", "-", "--model", tiny_model) == 0
    printed = capsys.readouterr()
    assert len([json.loads(line) for line in printed.out.splitlines()]) == 2
    assert "1 images" in printed.err
    assert not Path("rdlite-out").exists()


def test_a_reader_that_has_seen_enough_is_no_error(photos: Path, tiny_model: Path) -> None:
    arguments = command("detect", *[photos / "a.png"], "-o", "-", "--model", tiny_model)
    process = subprocess.Popen(arguments, **SLOW_BARS)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.wait(60) == 0
    assert "Traceback" not in process.stderr.read()


def test_an_interruption_keeps_what_is_done(
    squares: np.ndarray, tiny_model: Path, tmp_path: Path
) -> None:
    for i in range(3000):
        (tmp_path / f"{i:04}.png").write_bytes(cv2.imencode(".png", squares)[1].tobytes())
    out = tmp_path / "out"
    process = subprocess.Popen(
        command("detect", tmp_path, "-o", out, "--model", tiny_model), **SLOW_BARS
    )
    deadline = time.monotonic() + 60
    while len(list(out.glob("0*.png"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    kept = lines(out / "detections.jsonl")
    assert 5 <= len(kept) - 1 < 3000
    assert not list(out.glob(".*partial*"))


# wrong usage


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("detect", "a.png", "--conf", "25"), "did you mean 0.25"),
        (("detect", "a.png", "--classes", "persn"), "person"),
        (("detect", "a.png", "--model", "no.onnx"), "no.onnx"),
        (("annotate", "a.mp4", "--stride", "0"), "stride"),
    ],
)
def test_wrong_options_are_one_sentence_and_exit_code_1(
    arguments: tuple[str, ...],
    reason: str,
    photos: Path,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    os.chdir(photos)
    clip(photos / "a.mp4", 3)
    model = () if "--model" in arguments else ("--model", str(tiny_model))
    assert main([*arguments, *model, "-o", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert reason in error and "Traceback" not in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("arguments", [(), ("fly",), ("detect",), ("detect", "a", "--no-such")])
def test_unknown_usage_exits_with_1(arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    assert stop.value.code == 1


def test_help_and_version_load_none_of_the_heavy_libraries() -> None:
    code = (
        "import sys\nfrom rdlite.cli import main\n"
        "for word in ('--help', '--version'):\n"
        "    try: main([word])\n    except SystemExit as stop: assert stop.code == 0\n"
        "heavy = {'numpy', 'cv2', 'av', 'onnxruntime', 'torch'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "examples:" in done.stdout


# annotate


def test_annotate_writes_one_file_as_named(
    squares: np.ndarray, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip(tmp_path / "clip.mp4", [squares] * 6)
    target = tmp_path / "new" / "boxes.mp4"
    assert cli("annotate", tmp_path / "clip.mp4", "-o", target, "--model", tiny_model) == 0
    assert sorted(p.name for p in target.parent.iterdir()) == ["boxes.jsonl", "boxes.mp4"]
    printed = capsys.readouterr().out
    assert "6 frames" in printed and "6 person" in printed and str(target) in printed


def test_annotate_goes_on_after_a_bad_video(
    squares: np.ndarray, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    videos, out = tmp_path / "videos", tmp_path / "out"
    videos.mkdir()
    clip(videos / "b.mp4", [squares] * 4)
    (videos / "a.mp4").write_text("this is no video")
    assert cli("annotate", videos, "-o", out, "--model", tiny_model, "--stride", 2) == 3
    with av.open(str(out / "b.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 4
    assert len(lines(out / "b.jsonl")) == 1 + 2
    assert lines(out / "errors.jsonl")[0]["input"].endswith("a.mp4")
    assert "a.mp4" in capsys.readouterr().err


def test_annotate_keeps_a_truncated_video_up_to_its_end_and_says_3(
    squares: np.ndarray, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip(tmp_path / "clip.mkv", 60)
    content = (tmp_path / "clip.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(content[: len(content) // 2])
    target = tmp_path / "out.mp4"
    assert cli("annotate", tmp_path / "cut.mkv", "-o", target, "--model", tiny_model) == 3
    with av.open(str(target)) as container:
        assert 0 < sum(1 for _ in container.decode(video=0)) < 60
    assert "note:" in capsys.readouterr().out


def test_annotate_refuses_one_file_for_two_videos(
    squares: np.ndarray, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.mp4", "b.mp4"):
        clip(tmp_path / name, [squares] * 2)
    arguments = (tmp_path / "a.mp4", tmp_path / "b.mp4", "-o", tmp_path / "c.mp4")
    assert cli("annotate", *arguments, "--model", tiny_model) == 1
    assert "give a folder" in capsys.readouterr().err


# the rest


@pytest.mark.usefixtures("default_model")
def test_demo_annotates_the_street_clip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    street_clip()  # skips where it is not installed
    assert cli("demo", "-o", tmp_path / "demo") == 0
    printed = capsys.readouterr().out
    assert "250 frames" in printed and "car in" in printed and "ms/pic" in printed
    assert sorted(p.name for p in (tmp_path / "demo").iterdir()) == ["bikes.jsonl", "bikes.mp4"]


def test_eval_prints_the_table_or_json(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = {
        "images": [{"id": 1, "file_name": "a.png", "width": 96, "height": 64}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [16, 16, 16, 16], "area": 256}
        ],
        "categories": [{"id": 1, "name": "person"}],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    arguments = ("eval", tmp_path / "truth.json", photos, "--model", tiny_model)
    assert cli(*arguments) == 0
    assert "person" in capsys.readouterr().out
    assert cli(*arguments, "--json") == 0
    assert json.loads(capsys.readouterr().out)["ap50"] == pytest.approx(1.0)


def test_bench_prints_every_stage(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli("bench", "--model", tiny_model, "--runs", 3, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["runs"] == 3
    assert set(result["median_ms"]) == {"preprocess", "inference", "postprocess", "whole"}


def test_info_tells_names_and_provenance(
    tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli("info", tiny_model) == 0
    printed = capsys.readouterr().out
    assert "traffic light" in printed and "made in a test" in printed
    assert cli("info", tiny_model, "--json") == 0
    assert json.loads(capsys.readouterr().out)["anchors"] == 24


@pytest.mark.usefixtures("default_model")
def test_check_finds_this_installation_sound(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli("check", "--json") == 0
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert {f["what"] for f in findings} == {"versions", "OpenCV", "kernels", "model", "video"}
