"""Which files the arguments of a command line mean, and where the output may go."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

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


@pytest.mark.parametrize("options", [(), ("--no-images", "--format", "yolo")])
def test_what_a_shell_makes_of_a_pattern_leaves_the_output_out(
    options: tuple[str, ...],
    photos: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Printed,
) -> None:
    (photos / "bad.jpg").unlink()
    (photos / "notes.txt").unlink()
    clip(photos / "clip.mp4", 3)
    out = photos if options else photos / "out"
    for number in range(2):
        arguments = ("-o", out, "--model", tiny_model, "--json", *options)
        again = ("--resume",) if number else ()
        assert cli("detect", *sorted(photos.glob("[!.]*")), *arguments, *again) == 0
        printed = capsys.readouterr()
        summary = json.loads(printed.out)
        assert (summary["images"], len(summary["videos"]), summary["earlier"]) == (2, 1, 3 * number)
        assert ("of rdlite left out; the first is" in printed.err) == (number == 1)
    assert not (out / "errors.jsonl").exists()
    monkeypatch.chdir(out)
    arguments = ("-o", ".", "--model", tiny_model, "--resume", *options)
    assert cli("detect", "", photos / "clip.mp4", *arguments) == 3
    assert "an empty argument: no such file or folder" in capsys.readouterr().err
    (photos / "more" / "errors.jsonl").write_text("")
    arguments = (photos / "more" / "errors.jsonl",) * 2
    assert cli("detect", *arguments, "-o", photos / "more", "--model", tiny_model, "--quiet") == 1
    assert "errors.jsonl: is an output of rdlite itself" in capsys.readouterr().err


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
