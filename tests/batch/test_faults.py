"""What one bad name, file or folder may not do to a batch."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from rdlite.batch.failures import add_failure, forget_failures
from rdlite.cli.inputs import find
from tests.command import cli, lines
from tests.media import clip

Printed = pytest.CaptureFixture[str]


@pytest.fixture
def folder(squares: np.ndarray, tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), squares)
    return folder


def found(source: object, outside: Path = Path(os.devnull)) -> dict[str, str]:
    """What is made of each input, and all notes under an empty name."""
    files = find([str(source)], images=True, video_ending=".jsonl", outside=outside)
    return {one.path: one.output for one in files.files} | {"": files.skipped_note()}


def test_one_video_that_cannot_be_joined_does_not_stop_the_others(
    tiny_model: Path, tmp_path: Path, capsys: Printed
) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a", "b", "c"):
        clip(tmp_path / "in" / f"{name}.mp4", 10)
    out = tmp_path / "out"
    (out / "b-yolo").mkdir(parents=True)
    (out / "b-yolo" / "notes.md").write_text("of the user")
    arguments = ("detect", tmp_path / "in", "-o", out, "--format", "yolo", "--model", tiny_model)
    assert cli(*arguments, "--overwrite") == 3
    assert "b-yolo" in capsys.readouterr().err
    assert sorted(p.name for p in out.glob("*-yolo") if (p / "data.yaml").exists()) == [
        "a-yolo", "c-yolo",
    ]  # fmt: skip
    assert (out / "b-yolo" / "notes.md").read_text() == "of the user"
    (entry,) = lines(out / "errors.jsonl")
    assert entry["input"].endswith("b.mp4")


def test_failures_stay_listed_until_what_they_are_about_is_tried_again(
    folder: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad/more").mkdir(parents=True)
    for name in ("bad/x.jpg", "bad/more/y.jpg", "lone.jpg"):
        Path(name).write_text("this is no image")

    def failures(*arguments: str) -> list[str]:
        cli("detect", *arguments, "-o", "out", "--no-images", "--model", tiny_model)
        if not Path("out/errors.jsonl").exists():
            return []
        return [line["input"] for line in lines(Path("out/errors.jsonl"))]

    every = ["gone.png", "*.gif", "bad/x.jpg", "bad/more/y.jpg", "lone.jpg"]
    assert failures("bad", "gone.png", "*.gif", "lone.jpg", "in") == every
    before = Path("out/errors.jsonl").read_bytes()
    assert failures("in", "--resume") == every
    assert Path("out/errors.jsonl").read_bytes() == before
    Path("bad/x.jpg").unlink()
    assert failures(str(tmp_path / "bad"), "in", "--resume") == [
        "gone.png", "*.gif", "lone.jpg", str(tmp_path / "bad/more/y.jpg"),
    ]  # fmt: skip
    shutil.copy("in/a.png", "gone.png")
    shutil.copy("in/a.png", "bad/b.png")
    Path("link").symlink_to("bad/more")
    remaining = ["gone.png", "*.gif", "lone.jpg", str(tmp_path / "bad/more/y.jpg")]
    assert failures("bad/*.png", "--resume") == remaining  # a pattern stays in its folder
    assert failures("link/y.jpg", "--resume") == [*remaining[:3], "link/y.jpg"]
    assert failures("gone.png", "bad/*/*", "--resume") == ["*.gif", "lone.jpg", "bad/more/y.jpg"]
    assert failures("in", "lone.jpg", "--overwrite") == ["*.gif", "bad/more/y.jpg", "lone.jpg"]
    shutil.copy("in/a.png", "b.gif")
    for name in ("bad/more/y.jpg", "lone.jpg"):
        shutil.copy("in/a.png", name)
    assert failures("*.gif", "bad", "lone.jpg", "--resume") == []


@pytest.mark.parametrize(
    ("pattern", "left"),
    [
        ("bad/*.jpg", ["bad/more/y.jpg", "bad/more/z.jpg", "x.jpg"]),
        ("link/*.jpg", ["bad/more/y.jpg", "bad/more/z.jpg", "x.jpg"]),
        ("bad/*/y.*", ["bad/x.jpg", "bad/more/z.jpg", "x.jpg"]),
        ("bad/m*", ["bad/x.jpg", "x.jpg"]),
        ("**/x.jpg", ["bad/more/y.jpg", "bad/more/z.jpg"]),
        ("bad/**", ["x.jpg"]),
        ("*.png", ["bad/x.jpg", "bad/more/y.jpg", "bad/more/z.jpg", "x.jpg"]),
    ],
)
def test_failures_of_files_that_are_no_more_are_forgotten_where_a_pattern_would_find_them(
    pattern: str, left: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad").mkdir()
    (tmp_path / "link").symlink_to("bad")
    errors = tmp_path / "errors.jsonl"
    for name in ("bad/x.jpg", "bad/more/y.jpg", "bad/more/z.jpg", "x.jpg"):
        add_failure(errors, name, "this is no image")
    forget_failures(errors, [], [pattern])
    assert [line["input"] for line in lines(errors)] == left
    for name in left:  # what is still there was not tried
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    forget_failures(errors, [], ["**/*", "bad/**"])
    assert [line["input"] for line in lines(errors)] == left


@pytest.mark.parametrize("stem", ["漢" * 82, "a" * 247])
def test_the_longest_names_that_a_file_can_have_are_taken(
    stem: str, squares: np.ndarray, tiny_model: Path, tmp_path: Path
) -> None:
    folder, out, copies = tmp_path / "long", tmp_path / "out", tmp_path / "copies"
    folder.mkdir()
    # Alike but for their ends, so that what is kept beside one may not be taken for another's.
    stems = [stem, f"{stem[:-1]}b"]
    for name in stems:
        cv2.imwrite(str(folder / f"{name}.png"), squares)
        clip(folder / f"{name}.mov", 3)
    assert cli("detect", folder, "-o", copies, "--model", tiny_model) == 0
    assert {f"{name}.png" for name in stems} < {path.name for path in copies.iterdir()}
    assert cli("annotate", folder, "-o", out, "--model", tiny_model, "--workers", 2) == 0
    whole = {f"{name}{ending}" for name in stems for ending in (".mp4", ".jsonl")}
    assert {path.name for path in out.iterdir()} == whole | {".rdlite"}


def test_a_part_that_is_torn_is_made_again(
    tiny_model: Path, tmp_path: Path, capsys: Printed
) -> None:
    source = clip(tmp_path / "a.mp4", 600, options={"g": "50"})
    arguments = ("annotate", source, "-o", tmp_path / "out.mp4", "--model", tiny_model)
    assert cli(*arguments) == 0
    whole = (tmp_path / "out.jsonl").read_bytes()
    (tmp_path / "out.mp4").unlink()
    (tmp_path / "out.jsonl").unlink()

    def torn(path: Path) -> None:
        path.write_bytes(path.read_bytes()[:-20])

    begun = tmp_path / ".out.mp4.rdlite"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rdlite.video.summary.join", lambda *_, **__: os.kill(os.getpid(), 2))
        assert cli(*arguments) == 130
    frames = len(lines(begun / "part-00001.jsonl"))
    torn(begun / "part-00001.jsonl")
    assert cli(*arguments, "--resume") == 1  # it is found out, named and given up
    capsys.readouterr()
    assert cli(*arguments, "--resume", "--json") == 0
    assert (tmp_path / "out.jsonl").read_bytes() == whole
    summary = json.loads(capsys.readouterr().out)
    made = 1e3 * summary["seconds"] / summary["ms_each"]
    assert made == pytest.approx(frames, rel=0.01)  # what another run made is no merit of this one


def test_a_run_in_which_all_failed_is_gone_on_with_where_it_left_something(
    tiny_model: Path, tmp_path: Path, capsys: Printed
) -> None:
    source, out = tmp_path / "a.mp4", tmp_path / "out"
    clip(source, 90)
    arguments = ("annotate", source, "-o", out, "--model", tiny_model)
    assert cli(*arguments) == 0
    whole, before = source.read_bytes(), (out / "a.jsonl").read_bytes()
    first, last = whole.index(b"mdat") + 2000, whole.rindex(b"moov") - 4
    source.write_bytes(whole[:first] + b"\xff" * (last - first) + whole[last:])
    assert cli(*arguments, "--overwrite") == 1
    assert "packets in a row cannot be decoded" in capsys.readouterr().err
    source.write_bytes(whole)
    assert cli(*arguments, "--resume") == 0  # what is there is its own, to be replaced
    assert len(lines(out / "a.jsonl")) == len(before.splitlines())


def test_a_name_that_no_label_can_have_fails_alone(
    folder: Path, tiny_model: Path, tmp_path: Path, capsys: Printed
) -> None:
    shutil.copy(folder / "a.png", folder / "C:\\photo.png")
    out = tmp_path / "out"
    arguments = ("detect", folder, "-o", out, "--format", "yolo", "--model", tiny_model)
    assert cli(*arguments) == 3
    assert "cannot be the place of a file" in capsys.readouterr().err
    assert (out / "detections-yolo" / "a.txt").exists()


def test_a_folder_called_like_the_results_does_not_take_their_place(
    folder: Path, tiny_model: Path, tmp_path: Path
) -> None:
    (folder / "detections.jsonl").mkdir()
    shutil.move(folder / "a.png", folder / "detections.jsonl" / "a.png")
    out = tmp_path / "out"
    assert cli("detect", folder, "-o", out, "--model", tiny_model) == 0
    assert len(lines(out / "detections.jsonl")) == 2
    assert (out / "detections.jsonl-2" / "a.png").exists()


def test_files_of_the_user_stay(folder: Path, tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "errors.jsonl").write_text("mine\n")
    arguments = ("detect", folder, "-o", out, "--model", tiny_model)
    assert cli(*arguments) == 0
    assert (out / "errors.jsonl").read_text() == "mine\n"
    (out / "detections.csv").write_text("mine")
    assert cli(*arguments, "--resume", "--format", "csv") == 1
    assert (out / "detections.csv").read_text() == "mine"
    (out / "detections.csv").unlink()
    assert cli(*arguments, "--resume", "--format", "csv") == 0
    assert cli(*arguments, "--resume", "--format", "csv") == 0  # now it is its own


def test_a_refused_run_leaves_nothing(folder: Path, tiny_model: Path, tmp_path: Path) -> None:
    clip(folder / "b.mp4", 5)
    out = tmp_path / "out"
    out.mkdir()
    (out / "detections.jsonl").write_text("mine")
    arguments = ("detect", folder, "-o", out, "--model", tiny_model)
    assert cli(*arguments) == 1
    (out / "detections.jsonl").unlink()
    assert cli(*arguments) == 0


def test_a_copy_that_was_cut_short_is_made_again(
    folder: Path, tiny_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = ("detect", folder, "-o", out, "--model", tiny_model)
    assert cli(*arguments) == 0
    whole = (out / "a.png").read_bytes()
    (out / "a.png").write_bytes(b"")
    assert cli(*arguments, "--resume") == 0
    assert (out / "a.png").read_bytes() == whole


def test_the_output_must_be_a_folder(
    folder: Path, tiny_model: Path, tmp_path: Path, capsys: Printed
) -> None:
    (tmp_path / "out").write_text("a file")
    assert cli("detect", folder, "-o", tmp_path / "out", "--model", tiny_model) == 1
    assert "is a file; name a folder" in capsys.readouterr().err


@pytest.mark.parametrize("workers", ["0", "many", "-1"])
def test_workers_are_at_least_one(workers: str, folder: Path, capsys: Printed) -> None:
    with pytest.raises(SystemExit):
        cli("detect", folder, "--workers", workers)
    assert "must be 1 or more, or auto" in capsys.readouterr().err or workers == "-1"


def test_links_do_not_lead_in_circles_and_are_told_of(folder: Path, tmp_path: Path) -> None:
    (folder / "self").symlink_to(folder)
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    shutil.copy(folder / "a.png", outside / "b.png")
    (folder / "linked").symlink_to(outside)
    for source, inputs in ((folder, ["a.png"]), (folder / "**" / "*.png", ["a.png", "b.png"])):
        files = found(source)
        note = files.pop("")
        assert sorted(Path(path).name for path in files) == inputs
        assert f"{folder}/self" in note


def test_equal_names_are_numbered_and_one_that_keeps_its_name_has_it(tmp_path: Path) -> None:
    for name in ("1/a.mov", "2/a.mp4", "3/a.mp4"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    sources = [str(path) for path in sorted(tmp_path.glob("*/*"))]
    files = find(sources, images=False, video_ending=".mp4", outside=Path(os.devnull)).files
    assert [one.output for one in files] == ["a-3.mp4", "a.mp4", "a-2.mp4"]
