"""`rdlite eval`: its table, its JSON, its pictures, and what it refuses before it begins."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.cocosets import SCENES, annotation, random_results, random_set, write_set
from tests.command import Printed, cli

pytest.importorskip("faster_coco_eval")

PICTURES = ["confusion.png", "f1.png", "pr.png"]


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    return write_set(tmp_path, SCENES)


@pytest.fixture
def run(tmp_path: Path, truth: Path, tiny_model: Path, capsys: Printed) -> Any:
    """Evaluates the tiny model; returns exit code, standard output and standard error."""

    def evaluate(*options: Any) -> tuple[int, str, str]:
        code = cli("eval", truth, tmp_path, "--model", tiny_model, *options)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return evaluate


def test_a_table_says_what_it_is_and_each_class(run: Any) -> None:
    code, out, err = run()
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert lines[0] == "COCO protocol: score ≥ 0.01, at most 100 boxes an image, nms gaussian"
    car = next(line.split() for line in lines if line.startswith("car"))
    assert car[1:7] == ["100.0", "100.0", "100.0", "1", "1", "100.0"]


def test_json_is_one_object(run: Any) -> None:
    code, out, err = run("--json", "--quiet")
    (one,) = json.loads(out)["evaluations"]
    assert (code, err, one["ap50"], one["images"]) == (0, "", pytest.approx(1), 4)
    assert len(one["model_sha256"]) == 64


@pytest.mark.parametrize("options", [("--conf", 0.3), ("--max-det", 5)])
def test_numbers_that_cannot_be_compared_are_said_to_be_so_aloud(run: Any, options: Any) -> None:
    code, out, err = run(*options, "--quiet")
    assert code == 0
    assert out.startswith("NOT the COCO protocol")
    assert "warning" in err and "cannot be compared" in err and options[0] in err


def test_a_lower_confidence_is_the_coco_protocol(run: Any) -> None:
    _, out, err = run("--conf", 0.001)
    assert out.startswith("COCO protocol: score ≥ 0.001") and err == ""


def test_missing_and_unreadable_images_are_named_and_counted(run: Any, tmp_path: Path) -> None:
    (tmp_path / "1.png").unlink()
    (tmp_path / "3.png").write_bytes(b"no image")
    code, out, _ = run()
    assert code == 3
    assert "not counted: 2 of 4 images, first 1.png" in out
    code, out, _ = run("--json")
    (one,) = json.loads(out)["evaluations"]
    assert (code, [failed["file_name"] for failed in one["failed"]]) == (3, ["1.png", "3.png"])


def test_a_folder_of_pictures_and_json(run: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "deep" / "measured"
    code, printed, _ = run("-o", out, "--json")
    assert code == 0
    assert sorted(path.name for path in out.iterdir()) == sorted([*PICTURES, "eval.json"])
    assert json.loads((out / "eval.json").read_text()) == json.loads(printed)
    for name in PICTURES:
        assert np.ptp(cv2.imdecode(np.fromfile(out / name, np.uint8), 1)) > 200
    code, _, err = run("-o", out)
    assert code == 1 and "exists" in err and "--overwrite" in err
    assert run("-o", out, "--overwrite")[0] == 0
    code, _, err = run("-o", out / "eval.json")
    assert code == 1 and "is a file" in err
    (tmp_path / "pr.png").write_bytes(b"an image of the user's")
    code, _, err = run("-o", tmp_path, "--overwrite")
    assert code == 1 and "may be one of the images" in err
    assert (tmp_path / "pr.png").read_bytes() == b"an image of the user's"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are POSIX's")
def test_annotations_that_are_no_file_are_refused_at_once(tmp_path: Path, capsys: Any) -> None:
    os.mkfifo(tmp_path / "a.json")
    assert cli("eval", tmp_path / "a.json", tmp_path) == 1
    assert "is not a regular file" in capsys.readouterr().err


def test_a_file_that_cannot_be_read_is_not_called_no_json(
    truth: Path, tmp_path: Path, capsys: Printed
) -> None:
    gone = tmp_path / "gone.json"
    said = f"rdlite: error: {gone}: cannot be read (No such file or directory)\n"
    assert cli("eval", gone, tmp_path) == 1
    assert capsys.readouterr().err == said
    assert cli("eval", truth, "--results", gone) == 1
    assert capsys.readouterr().err == said


def test_pictures_show_any_class_and_model(
    truth: Path, tmp_path: Path, tiny_model: Path, capsys: Printed
) -> None:
    """Names that are formulas to matplotlib, and a class of which nothing was found."""
    pytest.importorskip("matplotlib")
    content = json.loads(truth.read_text())
    content["categories"] = [
        {"id": k, "name": name} for k, name in ((1, "$x_{1}$ person"), (2, "_"), (3, "$ 猫犬"))
    ]
    content["annotations"] = [annotation(3, (3, 0, 0)), annotation(0, (1, 1, 1), iscrowd=1)]
    truth.write_text(json.dumps(content))
    found = tmp_path / "$x_{$.json"
    found.write_text("[]")
    out = tmp_path / "out"
    assert cli("eval", truth, "--results", found, "-o", out) == 0
    assert sorted(path.name for path in out.glob("*.png")) == PICTURES
    err = capsys.readouterr().err  # says what the font does not have, if anything, in one line
    assert err == "" or re.fullmatch(r"rdlite: warning: pictures: Glyph [^\n]*\n", err)


def test_pictures_without_matplotlib_are_refused_before_the_work_begins(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    code, out, err = run("-o", tmp_path / "out")
    assert (code, out) == (1, "") and not (tmp_path / "out").exists()
    assert err.count("\n") == 1 and "pip install matplotlib" in err
    assert run()[0] == 0


def test_models_and_files_are_compared_with_the_first(tmp_path: Path, capsys: Printed) -> None:
    content = random_set(0, images=60)
    (tmp_path / "set.json").write_text(json.dumps(content))
    names = [str(tmp_path / f"{name}.json") for name in ("bad", "good", "bad-again")]
    for name, noise in zip(names, (0.4, 0.02, 0.4), strict=True):
        Path(name).write_text(json.dumps(random_results(content, 1, noise)))
    files = ("--results", names[0], "--compare", names[1], "--compare", names[2])
    assert cli("eval", tmp_path / "set.json", *files) == 0
    out = capsys.readouterr().out
    assert f"{names[1]} against {names[0]}: AP is higher by more than chance" in out
    assert f"{names[2]} against {names[0]}: the difference of AP may be chance" in out
    row = next(line for line in out.splitlines() if line.startswith("class 1"))
    assert re.fullmatch(r"class 1( +\d+\.\d){3} +\+\d+\.\d \[\+.*\] +\+0\.0 \[.*\]", row)
    assert cli("eval", tmp_path / "set.json", *files, "--json", "-o", tmp_path / "out") == 0
    value = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in value["evaluations"]] == names
    first, second = value["comparisons"]
    assert (first["first"], first["second"]) == (names[0], names[1])
    difference = value["evaluations"][1]["ap"] - value["evaluations"][0]["ap"]
    assert first["ap"]["value"] == pytest.approx(difference, abs=1e-9)
    assert second["ap"] == {"value": 0, "low": 0, "high": 0}
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == PICTURES


def test_a_file_made_with_a_high_confidence_warns(
    run: Any, tmp_path: Path, truth: Path, tiny_model: Path, capsys: Printed
) -> None:
    images = [tmp_path / f"{k}.png" for k in range(4)]
    out = tmp_path / "out"
    assert cli("detect", *images, "-o", out, "--no-images", "--model", tiny_model, "--quiet") == 0
    capsys.readouterr()
    assert cli("eval", truth, "--results", out / "detections.jsonl") == 0
    printed = capsys.readouterr()
    assert "below 0.4 are missing" in printed.err
    assert printed.out.startswith("NOT the COCO protocol: score ≥ 0.4")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "a model needs IMAGES"),
        (("--results", "a.jsonl", "--model", "int8"), "two things to measure"),
        (("--results", "a.txt"), r"must end in one of \.json, \.jsonl, \.jsonl\.gz"),
        (("--results", "a.jsonl", "--compare", "a.jsonl"), "a.jsonl would be compared with itself"),
        (("--results", "a.jsonl", "--compare", "int8"), "a model needs IMAGES"),
        (("--results", "gone.jsonl"), "gone.jsonl"),
        (("--results", "a.jsonl", "--conf", 0.3), r"--conf 0\.3 is for models.*a\.jsonl are made"),
        (("--results", "a.json", "--nms", "hard"), "--nms hard is for models"),
    ],
)
def test_wrong_usage_is_one_clear_sentence(
    truth: Path, capsys: Printed, options: tuple[str, ...], said: str
) -> None:
    assert cli("eval", truth, *options) == 1
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1
    assert re.search(said, printed.err)
