"""`rdlite convert`: what goes where, what is said, and exit codes."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rdlite.sinks import FORMATS
from tests.command import Printed, cli, command, names
from tests.media import clip
from tests.test_convert import content, video_results


@pytest.mark.parametrize("format", FORMATS)
def test_it_writes_what_detect_would_have_written(
    format: str, tiny_model: Path, squares: np.ndarray, tmp_path: Path, capsys: Printed
) -> None:
    if format == "parquet":
        pytest.importorskip("pyarrow")
    clip(tmp_path / "clip.mp4", [squares] * 4)
    for kind in ("jsonl", format):
        options = ("--model", tiny_model, "--format", kind, "--quiet", "--overwrite")
        assert cli("detect", tmp_path / "clip.mp4", "-o", tmp_path / kind, *options) == 0
    output = tmp_path / f"clip{FORMATS[format].ending}"
    source = tmp_path / "jsonl" / "clip.jsonl"
    assert cli("convert", source, "--format", format, "-o", output) == 0
    assert content(output) == content(tmp_path / format / output.name)
    assert capsys.readouterr().out == f"4 images and frames, 8 objects; written: {output}\n"


def test_outputs_are_beside_their_sources_or_in_a_folder_like_theirs(
    tmp_path: Path, capsys: Printed
) -> None:
    for name in ("a", "b/c"):
        video_results(tmp_path / "in" / name)
    (tmp_path / "in" / "errors.jsonl").write_text("{}\n")
    assert cli("convert", tmp_path / "in" / "a" / "clip.jsonl", "--format", "csv") == 0
    assert (tmp_path / "in" / "a" / "clip.csv").exists()
    assert cli("convert", tmp_path / "in", "--format", "csv", "-o", tmp_path / "out") == 0
    assert names(tmp_path / "out") == ["a/clip.csv", "b/c/clip.csv"]
    pattern = tmp_path / "in" / "**" / "*.jsonl"
    assert cli("convert", pattern, "--format", "voc", "-o", tmp_path / "voc") == 3
    assert len(names(tmp_path / "voc")) == 4
    assert "errors.jsonl does not begin with a header line" in capsys.readouterr().err


def test_a_folder_can_become_one_output(tmp_path: Path, capsys: Printed) -> None:
    for name in "ab":
        video_results(tmp_path / "in" / name)
    output = tmp_path / "new" / "all.csv"
    assert cli("convert", tmp_path / "in", "--format", "csv", "--join", "-o", output) == 0
    rows = list(csv.DictReader(output.read_text().splitlines()))
    assert [row["frame"] for row in rows] == ["0", "0", "1", "1"] * 2
    assert cli("convert", tmp_path / "in", "--format", "csv", "--join") == 1
    assert cli("convert", tmp_path / "in", "--format", "csv", "-o", "-") == 1
    assert capsys.readouterr().err.count("--join and -o go together") == 2


def test_what_is_in_two_files_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: Printed
) -> None:
    file = video_results(tmp_path / "in")
    again = Path(shutil.copy(file, file.with_name("again.jsonl")))
    join = ("--format", "yolo", "--join", "-o", tmp_path / "labels")
    assert cli("convert", file, again, *join) == 1
    said = capsys.readouterr().err
    assert f"{tmp_path}/in/clip.mp4 is in {file} and in {again}; " in said
    assert said.count("\n") == 1
    assert names(tmp_path) == ["in/again.jsonl", "in/clip.jsonl", "in/clip.mp4"]


def test_standard_output_is_the_format_alone(tmp_path: Path) -> None:
    file = video_results(tmp_path / "in")
    done = subprocess.run(
        command("convert", file, "--format", "csv", "-o", "-"), capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(list(csv.reader(io.StringIO(done.stdout)))) == 1 + 4
    assert cli("convert", file, "--format", "yolo", "-o", "-") == 1


def test_what_is_damaged_is_said_and_the_exit_code_is_3(tmp_path: Path, capsys: Printed) -> None:
    file = video_results(tmp_path / "in")
    file.write_bytes(file.read_bytes()[:-30])
    assert cli("convert", file, "--format", "coco") == 3
    said = capsys.readouterr()
    assert "clip.jsonl: 1 damaged line was left out; the first is line 3: it is cut off" in said.err
    assert "1 image or frame, 2 objects" in said.out
    assert cli("convert", file, "--format", "coco") == 1
    assert "clip.json exists already" in capsys.readouterr().err
    assert cli("convert", file, "--format", "coco", "--overwrite", "--json", "--quiet") == 3
    summary = json.loads(capsys.readouterr().out)
    assert (summary["records"], summary["objects"]) == (1, 2)
    assert summary["written"] == [str(file.with_suffix(".json"))]
    assert len(summary["faults"]) == 1


def test_one_bad_file_stops_no_other(tmp_path: Path, capsys: Printed) -> None:
    for name in "abc":
        video_results(tmp_path / "in" / name)
    (tmp_path / "in" / "b" / "clip.jsonl").write_text('{"schema": 2}\n')
    assert cli("convert", tmp_path / "in", "--format", "csv") == 3
    assert "has schema 2" in capsys.readouterr().err
    assert {path.parent.name for path in tmp_path.rglob("*.csv")} == {"a", "c"}


def test_two_sources_never_share_an_output(tmp_path: Path, capsys: Printed) -> None:
    file = video_results(tmp_path / "in")
    shutil.copy(file, file.with_suffix(".jsonl.gz"))
    assert cli("convert", tmp_path / "in", "--format", "csv") == 1
    assert "would both become" in capsys.readouterr().err
    assert names(tmp_path / "in") == ["clip.jsonl", "clip.jsonl.gz", "clip.mp4"]


def test_a_file_that_is_named_twice_is_taken_once(tmp_path: Path, capsys: Printed) -> None:
    file = video_results(tmp_path / "in")
    sources = (tmp_path / "in", file, file.parent / ".." / "in" / file.name)
    assert cli("convert", *sources, "--format", "csv", "--join", "-o", tmp_path / "a.csv") == 0
    assert "2 images and frames, 4 objects" in capsys.readouterr().out


def test_an_output_that_cannot_be_made_stops_no_other(tmp_path: Path, capsys: Printed) -> None:
    for name in "ab":
        video_results(tmp_path / "in" / name)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").write_text("mine")
    assert cli("convert", tmp_path / "in", "--format", "csv", "-o", tmp_path / "out") == 3
    assert f"{tmp_path}/out/a cannot be made" in capsys.readouterr().err
    assert names(tmp_path / "out") == ["a", "b/clip.csv"]


def test_a_folder_that_cannot_be_read_is_not_passed_over(
    tmp_path: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        video_results(tmp_path / "in" / name)
    scandir = os.scandir

    def refusing(path: str) -> Any:
        if str(path).endswith("b"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert cli("convert", tmp_path / "in", "--format", "csv") == 1
    assert f"{tmp_path}/in/b: Permission denied" in capsys.readouterr().err


@pytest.mark.parametrize("source", ["gone.jsonl", "empty", "*.jsonl"])
def test_nothing_to_convert_is_an_error(source: str, tmp_path: Path, capsys: Printed) -> None:
    (tmp_path / "empty").mkdir()
    assert cli("convert", tmp_path / source, "--format", "csv") == 1
    assert source in capsys.readouterr().err
