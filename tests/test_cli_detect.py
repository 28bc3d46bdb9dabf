from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from rdlite import Detector
from rdlite.image import load
from tests.command import Printed, cli, command, lines, names
from tests.conftest import ModelWriter, constant_model, tiny_spec
from tests.media import clip


def test_copies_and_jsonl_are_written_and_a_bad_file_stops_nothing(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: Printed
) -> None:
    out = tmp_path / "out"
    assert cli("detect", photos, "-o", out, "--model", tiny_model) == 3
    assert names(out) == ["a.png", "detections.jsonl", "errors.jsonl", "more/a.png"]
    header, *found = lines(out / "detections.jsonl")
    assert header["options"]["conf"] == 0.4
    assert header["model_sha256"] == Detector(tiny_model).model_sha256
    inputs = [photos / "a.png", photos / "more" / "a.png"]
    assert [line["image"] for line in found] == [str(path) for path in inputs]
    expected = Detector(tiny_model)(inputs[0]).to_dict()
    assert {key: found[0][key] for key in expected} == expected
    assert [d["class_name"] for d in expected["detections"]] == ["person", "car"]
    assert not np.array_equal(load(out / "a.png"), load(photos / "a.png"))
    (failure,) = lines(out / "errors.jsonl")
    assert failure["input"] == str(photos / "bad.jpg") and "bad.jpg" in failure["error"]
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 2 and "bad.jpg" in printed.err and "1 .txt" in printed.err
    assert printed.out.startswith("2 images, 4 objects (2 person, 2 car), 1 failed, ")
    assert " ms per image with reading and writing; written: " in printed.out
    assert printed.out.count("\n") == 1 and str(out / "detections.jsonl") in printed.out


def test_exit_code_is_0_when_all_is_well_and_1_when_nothing_was_done(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: Printed
) -> None:
    model = ("--model", tiny_model)
    assert cli("detect", photos / "a.png", "-o", tmp_path / "good", *model) == 0
    assert names(tmp_path / "good") == ["a.png", "detections.jsonl"]
    assert cli("detect", photos / "bad.jpg", "-o", tmp_path / "bad", *model) == 1
    assert cli("detect", photos / "a.png", photos / "no.png", "-o", tmp_path / "some", *model) == 3
    assert lines(tmp_path / "some" / "errors.jsonl")[0]["input"].endswith("no.png")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("*.gif", "no file matches this pattern"),
        ("gone.png", "no such file or folder"),
        ("empty", "no file in this folder"),
        ("", "an empty argument"),
    ],
)
def test_arguments_that_name_nothing_leave_no_output(
    source: str,
    reason: str,
    photos: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Printed,
) -> None:
    monkeypatch.chdir(photos)
    (photos / "empty").mkdir()
    assert cli("detect", source, "-o", "out", "--model", tiny_model, "--json") == 1
    printed = capsys.readouterr()
    assert reason in printed.err and json.loads(printed.out)["failed"] == 1
    assert not (photos / "out").exists()


def test_existing_files_are_only_replaced_on_demand(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: Printed
) -> None:
    out = tmp_path / "out"
    arguments = ("detect", photos / "a.png", "-o", out, "--model", tiny_model)
    out.mkdir()
    (out / "a.png").write_text("of the user")
    assert cli(*arguments) == 1
    assert "a.png exists already; choose another name" in capsys.readouterr().err
    assert cli(*arguments, "--resume") == 1  # the record does not say that it is ours
    assert (out / "a.png").read_text() == "of the user"
    assert len(lines(out / "errors.jsonl")) == 1
    assert cli(*arguments, "--overwrite") == 0
    assert cli(*arguments) == 1
    assert f"{out} holds an earlier run" in capsys.readouterr().err
    assert cli(*arguments, "--overwrite", "--conf", 0.9) == 0
    assert names(out) == ["a.png", "detections.jsonl"]


def test_a_run_in_which_all_failed_does_not_block_the_next(
    photos: Path, tiny_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = ("-o", out, "--model", tiny_model)
    for more in ((), ("--resume",), ()):
        assert cli("detect", photos / "bad.jpg", *arguments, *more) == 1
        assert [path.name for path in out.iterdir()] == ["errors.jsonl"]
    assert cli("detect", photos / "a.png", *arguments) == 0
    assert cli("detect", photos / "bad.jpg", *arguments, "--resume") == 1
    assert cli("detect", photos / "a.png", *arguments, "--resume") == 0
    assert names(out) == ["a.png", "detections.jsonl", "errors.jsonl"]
    assert len(lines(out / "detections.jsonl")) == 2


@pytest.mark.parametrize("output", [".", "link", "more/.."])
def test_an_input_is_never_replaced(
    output: str,
    photos: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Printed,
) -> None:
    monkeypatch.chdir(photos)
    Path("link").symlink_to(photos)
    before = (Path("a.png").read_bytes(), Path("more/a.png").read_bytes())
    arguments = ("-o", output, "--model", tiny_model, "--overwrite")
    present = names(Path())
    assert cli("detect", "a.png", *arguments) == 1
    assert "a.png lies where its own output would go; use another -o" in capsys.readouterr().err
    assert names(Path()) == present
    assert cli("detect", "a.png", "more/a.png", *arguments) == 3
    assert "is an input, which is never replaced" in capsys.readouterr().err
    assert before == (Path("a.png").read_bytes(), Path("more/a.png").read_bytes())
    assert Path("a-2.png").exists()


def test_links_do_not_lead_out_of_the_output_folder(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: Printed
) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    out.mkdir()
    elsewhere.mkdir()
    (out / "more").symlink_to(elsewhere)
    assert cli("detect", photos, "-o", out, "--model", tiny_model) == 3
    assert f"leads out of {out}" in capsys.readouterr().err
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize(("kind", "name"), [("coco", "detections.json"), ("csv", "detections.csv")])
def test_coco_and_csv(
    photos: Path, tiny_model: Path, tmp_path: Path, kind: str, name: str, capsys: Printed
) -> None:
    out, a = tmp_path / "out", photos / "a.png"
    options = ("--format", kind, "--no-images", "--classes", "car, traffic light", "--json")
    assert cli("detect", a, "-o", out, "--model", tiny_model, *options) == 0
    assert names(out) == [name]
    content = (out / name).read_text()
    if kind == "coco":
        (annotation,) = json.loads(content)["annotations"]
        assert annotation["category_id"] == 3
    else:
        assert content.splitlines()[1].split(",")[5] == "car"
    summary = json.loads(capsys.readouterr().out)
    assert summary["detections"] == {"car": 1} and summary["written"] == [str(out / name)]


def test_classes_by_index(photos: Path, tiny_model: Path, capsys: Printed) -> None:
    arguments = ("detect", photos / "a.png", "-o", "-", "--model", tiny_model, "--classes", "0")
    assert cli(*arguments, "--json") == 0
    assert json.loads(capsys.readouterr().err)["detections"] == {"person": 1}


def test_a_number_that_is_a_name_is_that_name(
    photos: Path, write_model: ModelWriter, capsys: Printed
) -> None:
    model = write_model(spec=tiny_spec(names=("2", "0", "1", "12", "x")))
    arguments = ("detect", photos / "a.png", "-o", "-", "--model", model, "--json", "--classes")
    for classes, detections in {"2": {"2": 1}, "1,2": {"2": 1, "1": 1}, "12": {}, "4": {}}.items():
        assert cli(*arguments, classes) == 0
        assert json.loads(capsys.readouterr().err)["detections"] == detections
    assert cli(*arguments, "7") == 1
    assert "classes: an index must be from 0 to 4, got 7" in capsys.readouterr().err


def test_standard_output_holds_the_detections_only(
    photos: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: Printed
) -> None:
    monkeypatch.chdir(photos)
    before = names(photos)
    assert cli("detect", "a.png", "-o", "-", "--model", tiny_model) == 0
    printed = capsys.readouterr()
    assert [json.loads(line).get("image") for line in printed.out.splitlines()] == [None, "a.png"]
    assert printed.err.startswith("1 image, 2 objects (1 person, 1 car), 0 failed")
    assert names(photos) == before


def test_quiet_says_only_what_went_wrong_or_was_passed_over(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: Printed
) -> None:
    assert cli("detect", photos, "-o", tmp_path / "out", "--model", tiny_model, "--quiet") == 3
    printed = capsys.readouterr()
    first, second = printed.err.splitlines()
    assert printed.out == "" and "bad.jpg" in second
    assert first == "rdlite: 1 file passed over for its ending: 1 .txt"


@pytest.mark.parametrize(
    ("start", "format", "told"), [(1, "coco", 1), (0, "coco", 0), (1, "csv", 0)]
)
def test_pictures_named_by_a_frame_say_what_the_frame_is_counted_from(
    start: int, format: str, told: int, tiny_model: Path, tmp_path: Path, capsys: Printed
) -> None:
    source = clip(tmp_path / "a.mp4", 40)
    arguments = ("--start", start, "--format", format, "--model", tiny_model, "--quiet")
    assert cli("detect", source, "-o", tmp_path / "out", *arguments) == 0
    sentence = "counted from start=1.0 (--start 1.0); make the images of frames from there on"
    assert capsys.readouterr().err.count(f"rdlite: frames are {sentence}") == told
    results = tmp_path / "results"
    assert cli("detect", source, "-o", results, *arguments, "--format", "jsonl") == 0
    file = results / "a.jsonl"
    assert cli("convert", file, "--format", format, "-o", tmp_path / "b", "--quiet") == 0
    assert capsys.readouterr().err.count(sentence) == told


def test_folders_that_cannot_be_listed_are_failures(
    photos: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: Printed
) -> None:
    monkeypatch.chdir(photos / "more")
    for _ in range(30):  # deeper than the longest path that Linux takes
        os.mkdir("d" * 200)
        monkeypatch.chdir("d" * 200)
    monkeypatch.chdir(photos.parent)
    assert cli("detect", photos / "more", "-o", "out", "--model", tiny_model) == 3
    assert "cannot be listed" in capsys.readouterr().err
    assert names(Path("out")) == ["a.png", "detections.jsonl", "errors.jsonl"]
    shutil.rmtree(photos)


def test_boxes_that_are_not_finite_are_counted(
    photos: Path, write_model: ModelWriter, capsys: Printed
) -> None:
    confidence = {"arm_conf": np.zeros((1, 24, 2)), "odm_conf": np.zeros((1, 24, 6))}
    boxes = {name: np.zeros((1, 24, 4)) for name in ("arm_loc", "odm_loc")}
    confidence["arm_conf"][..., 1] = confidence["odm_conf"][..., 1] = 10
    boxes["odm_loc"][0, 5] = np.nan
    model = write_model(constant_model(**confidence, **boxes))
    assert cli("detect", photos / "a.png", "-o", "-", "--model", model) == 0
    assert "23 objects" in (printed := capsys.readouterr().err)
    assert "dropped 1 box not finite" in printed


def test_names_that_are_not_utf8(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    os.rename(photos / "more" / "a.png", os.fsencode(photos / "more") + b"/caf\xe9.png")
    (photos / "bad.jpg").unlink()
    with open(os.fsencode(photos) + b"/bad\xff.png", "w") as bad:
        bad.write("this is no image")
    out = tmp_path / "out"
    arguments = command("detect", photos, "-o", out, "--model", tiny_model)
    assert subprocess.run(arguments, capture_output=True).returncode == 3
    assert lines(out / "detections.jsonl")[2]["image"].endswith("caf\\xe9.png")
    assert b"caf\xe9.png" in os.listdir(os.fsencode(out / "more"))
    assert len(lines(out / "errors.jsonl")) == 1


def test_a_copy_as_webp_is_as_lossy_as_others(
    photos: Path, tiny_model: Path, tmp_path: Path
) -> None:
    picture = load(next(photos.glob("*.png")))
    source = tmp_path / "photo.webp"
    source.write_bytes(cv2.imencode(".webp", picture)[1].tobytes())
    assert cli("detect", source, "-o", tmp_path / "out", "--model", tiny_model) == 0
    copy = (tmp_path / "out" / "photo.webp").read_bytes()
    assert copy[12:16] == b"VP8 "  # without loss it would be VP8L
    assert cv2.imdecode(np.frombuffer(copy, np.uint8), cv2.IMREAD_COLOR).shape == picture.shape


def test_a_picture_too_wide_for_its_format_is_one_failure(
    tiny_model: Path, tmp_path: Path, capsys: Printed
) -> None:
    wide = np.zeros((8, 20_000, 3), np.uint8)
    (tmp_path / "wide.webp").write_bytes(cv2.imencode(".png", wide)[1].tobytes())
    arguments = ("detect", tmp_path / "wide.webp", "-o", tmp_path / "out", "--model", tiny_model)
    assert cli(*arguments) == 1
    assert "too large for that; use --no-images" in capsys.readouterr().err
    assert cli(*arguments, "--no-images", "--overwrite") == 0


@pytest.mark.parametrize("output", ["out", "-"])
@pytest.mark.parametrize("wrong", [("--stride", "0"), ("--start", "5", "--end", "2")])
def test_a_wrong_range_is_refused_before_anything_is_written(
    wrong: tuple[str, ...],
    output: str,
    photos: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Printed,
) -> None:
    """Also where there is no video: the results would say that it was heeded."""
    monkeypatch.chdir(photos)
    assert cli("detect", "a.png", "-o", output, "--model", tiny_model, *wrong) == 1
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("rdlite: error: ")
    assert not (photos / "out").exists()


@pytest.mark.parametrize("output", ["boxes.jpg", "found.jsonl"])
def test_an_output_that_looks_like_a_file_is_refused(
    output: str, photos: Path, tiny_model: Path, capsys: Printed
) -> None:
    target = photos / output
    assert cli("detect", photos / "a.png", "-o", target, "--model", tiny_model) == 1
    assert "name a folder" in capsys.readouterr().err
    assert not target.exists()


@pytest.mark.parametrize("output", ["a.png/out", "notes.txt"])
def test_an_output_folder_that_cannot_be_made_is_one_sentence(
    output: str, photos: Path, tiny_model: Path, capsys: Printed
) -> None:
    assert cli("detect", photos / "a.png", "-o", photos / output, "--model", tiny_model) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"rdlite: error: {photos}") and error.count("\n") == 1


def test_an_output_that_cannot_grow_stops_the_batch(tiny_model: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    for name in ("a", "b", "d"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.zeros((64, 96, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "c.png"), noise)
    out = tmp_path / "out"

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))

    done = subprocess.run(
        command("detect", tmp_path, "-o", out, "--model", tiny_model),
        preexec_fn=limit,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3
    assert "c.png cannot be written: File too large" in done.stderr
    assert done.stderr.count("\n") == 1
    assert "2 images" in done.stdout and "stopped, 2 not done" in done.stdout
    assert names(out) == ["a.png", "b.png"]
    assert cli("detect", tmp_path, "-o", out, "--model", tiny_model, "--resume") == 0
    assert names(out) == ["a.png", "b.png", "c.png", "d.png", "detections.jsonl"]


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_keeps_what_is_done(
    signal_number: int, squares: np.ndarray, tiny_model: Path, tmp_path: Path
) -> None:
    cv2.imwrite(str(tmp_path / "0000.png"), squares)
    for i in range(1, 3000):
        os.link(tmp_path / "0000.png", tmp_path / f"{i:04}.png")
    out = tmp_path / "out"
    arguments = command("detect", tmp_path, "-o", out, "--model", tiny_model)
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (out / "0040.png").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal_number)
    printed, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "")
    done = sum("input" in line for line in lines(out / ".rdlite" / "images.jsonl"))
    assert 16 <= done < 3000
    # The signal may come between an image's entry and its being counted.
    said = (f"interrupted, {3000 - done + late} not done; the same" for late in (0, 1))
    assert any(text in printed for text in said) and "with --resume" in printed
    assert not list(out.glob(".*partial*")) and not (out / "detections.jsonl").exists()


def test_files_passed_over_for_their_endings_are_counted(
    squares: np.ndarray, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), squares)
    for name in ("b.heic", "c.HEIC", "noending", ".hidden"):
        (folder / name).write_bytes(b"x")
    assert cli("detect", folder, "-o", tmp_path / "out", "--model", tiny_model, "--json") == 0
    printed = capsys.readouterr()
    assert "3 files passed over for their endings: 2 .heic, 1 without" in printed.err
    assert json.loads(printed.out)["passed_over"] == {".heic": 2, "": 1}


def test_the_summary_counts_what_an_earlier_run_did(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: Printed
) -> None:
    arguments = ("-o", tmp_path / "out", "--model", tiny_model, "--resume")
    assert cli("detect", photos / "a.png", *arguments) == 0
    assert cli("detect", photos / "a.png", *arguments) == 0
    assert "; 1 input was done by an earlier run; " in capsys.readouterr().out
