"""Which files the arguments of a command line mean, and where the output may go."""

from __future__ import annotations

import json
import shutil
from glob import glob
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.command import Printed, cli, lines, names
from tests.media import clip


def test_files_of_one_name_have_their_own_copies(
    photos: Path, tiny_model: Path, tmp_path: Path
) -> None:
    sources = (photos / "a.png", photos / "more" / "a.png", photos / "a.png")
    assert cli("detect", *sources, "-o", tmp_path / "out", "--model", tiny_model) == 0
    assert names(tmp_path / "out") == ["a-2.png", "a.png", "detections.jsonl"]


@pytest.mark.parametrize(
    "sources",
    [
        ("photos", "{here}/photos"),
        ("{here}/photos/a.png", "photos"),
        ("photos/", "link"),
        ("link/*.png", "photos/../photos", "link/more"),
        ("photos/more/../a.png", "photos"),
    ],
)
def test_a_file_that_is_named_in_two_ways_is_one_input(
    sources: tuple[str, ...],
    photos: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Printed,
) -> None:
    monkeypatch.chdir(photos.parent)
    (photos / "bad.jpg").unlink()
    Path("link").symlink_to("photos")
    arguments = [source.format(here=photos.parent) for source in sources]
    assert cli("detect", *arguments, "-o", "out", "--model", tiny_model, "--json") == 0
    assert json.loads(capsys.readouterr().out)["images"] == 2
    assert len(lines(Path("out/detections.jsonl"))) == 1 + 2


@pytest.mark.parametrize("pattern", ["**/*.png", "photos/**/*.png", "photos", "ph*", "./photos/"])
def test_copies_lie_as_the_images_do(
    pattern: str,
    photos: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(photos.parent)
    (photos / "bad.jpg").unlink()
    assert cli("detect", pattern, "-o", "out", "--model", tiny_model) == 0
    inside = "photos/" if pattern in ("**/*.png", "ph*") else ""
    copies = [f"{inside}a.png", f"{inside}more/a.png"]
    assert names(Path("out")) == sorted([*copies, "detections.jsonl"])


@pytest.mark.parametrize("source", [".", "**/*.png", "*"])
def test_a_second_run_leaves_the_output_of_the_first_out(
    source: str, photos: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: Printed
) -> None:
    monkeypatch.chdir(photos)
    (photos / "bad.jpg").unlink()
    (photos / "notes.txt").unlink()
    for extra in ((), ("--overwrite",)):
        assert cli("detect", source, "-o", "out", "--model", tiny_model, "--json", *extra) == 0
        assert json.loads(capsys.readouterr().out)["images"] == 2


@pytest.mark.parametrize(
    ("source", "output"), [("photos", "link"), ("photos/*", "photos"), ("photos/more", "photos")]
)
def test_an_output_folder_in_which_the_next_run_would_find_inputs_is_refused(
    source: str,
    output: str,
    photos: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Printed,
) -> None:
    monkeypatch.chdir(photos.parent)
    Path("link").symlink_to("photos")
    (photos / "more" / "more").mkdir()
    shutil.move(photos / "more" / "a.png", photos / "more" / "more" / "a.png")
    before = names(photos)
    assert cli("detect", source, "-o", output, "--model", tiny_model) == 1
    error = capsys.readouterr().err
    assert f"outputs in {output} would lie where inputs are looked for ({source})" in error
    assert error.endswith("use another -o\n")
    assert names(photos) == before and not (photos / ".rdlite").exists()


def test_what_a_shell_makes_of_a_pattern_leaves_the_output_out(
    photos: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: Printed
) -> None:
    (photos / "notes.txt").unlink()
    clip(photos / "clip.mp4", 3)
    monkeypatch.chdir(photos)

    def detect(output: str, *options: str) -> tuple[int, dict[str, Any], str]:
        code = cli("detect", *sorted(glob("*")), "-o", output, "--model", tiny_model, *options)
        printed = capsys.readouterr()
        return code, json.loads(printed.out), printed.err

    code, first, said = detect("out", "--json")
    assert (code, first["images"], first["failed"], "left out" in said) == (3, 2, 1, False)
    Path("bad.jpg").unlink()
    code, second, said = detect("out", "--json", "--resume")
    assert (code, second["earlier"]) == (0, 3)
    assert "1 output of rdlite left out; the first is out" in said
    shutil.rmtree("out")
    monkeypatch.chdir("more")
    shutil.copy("a.png", "pets-voc.png")
    Path("pets-voc").mkdir()
    shutil.move("pets-voc.png", "pets-voc/b.png")
    shutil.copy("a.png", "more.jsonl")
    code, results, said = detect(".", "--no-images", "--json")
    assert (code, results["images"], "left out" in said) == (0, 3, False)
    Path("more.jsonl").unlink()
    code, results, said = detect(".", "--no-images", "--json", "--overwrite", "--format", "coco")
    assert (code, results["images"]) == (0, 2)
    assert "1 output of rdlite left out; the first is detections.jsonl" in said


def test_a_run_in_which_all_failed_leaves_a_folder_that_is_no_input(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Printed
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.png").write_text("this is no image")
    Path("b.png").write_text("neither is this")
    arguments = ("-o", "out", "--model", tiny_model, "--quiet")
    assert cli("detect", *glob("*"), *arguments) == 1
    for name in ("a.png", "b.png"):
        cv2.imwrite(name, np.zeros((8, 8, 3), np.uint8))
    capsys.readouterr()
    assert cli("detect", *glob("*"), *arguments) == 0
    assert "1 output of rdlite left out; the first is out\n" in capsys.readouterr().err
    shutil.rmtree("out")
    arguments = ("-o", ".", "--no-images", "--model", tiny_model, "--quiet")
    assert cli("detect", "missing.png", *arguments) == 1
    capsys.readouterr()
    Path("errors.jsonl").write_text("")
    assert cli("detect", *glob("*"), *arguments) == 0
    assert "left out; the first is errors.jsonl\n" in capsys.readouterr().err


def test_results_that_a_pattern_finds_beside_its_inputs_are_left_out(
    photos: Path, tiny_model: Path, capsys: Printed
) -> None:
    (photos / "bad.jpg").unlink()
    (photos / "notes.txt").unlink()
    arguments = ("detect", photos / "*", "-o", photos, "--no-images", "--model", tiny_model)
    assert [cli(*arguments, *more) for more in ((), ("--resume",))] == [0, 0]
    said = f"1 output of rdlite left out; the first is {photos}/detections.jsonl"
    assert said in capsys.readouterr().err


def test_results_without_copies_may_lie_beside_their_inputs(
    photos: Path, tiny_model: Path, capsys: Printed
) -> None:
    (photos / "bad.jpg").unlink()
    clip(photos / "clip.mp4", 3)
    arguments = ("detect", photos, "-o", photos, "--no-images", "--model", tiny_model, "--json")
    assert cli(*arguments) == 0
    assert cli(*arguments, "--resume") == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["images"], len(first["videos"]), first["earlier"]) == (2, 1, 0)
    assert (second["images"], len(second["videos"]), second["earlier"]) == (2, 1, 3)


def test_a_folder_may_be_written_above(
    photos: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)
    assert cli("detect", "photos/more", "-o", ".", "--model", tiny_model) == 0
    assert Path("a.png").exists() and Path("detections.jsonl").exists()
