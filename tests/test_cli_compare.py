"""`rdlite compare`: what is a model and what a picture, files written, exit codes."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from rdlite.compare.run import Comparer
from rdlite.image import load
from tests.command import Printed, cli
from tests.conftest import ModelWriter, Ship, tiny_spec
from tests.media import clip

SWAPPED = ("person", "bicycle", "dog", "traffic light", "car")


@pytest.fixture
def models(ship: Ship, tiny_model: Path, write_model: ModelWriter, tmp_path: Path) -> list[str]:
    """A model that goes by the names small and default, and a file of another."""
    ship(tiny_model, "small", "default")
    other = tmp_path / "other.onnx"
    shutil.copy(write_model(spec=tiny_spec(names=SWAPPED)), other)
    return ["default", str(other)]


def test_a_folder_gets_the_page_and_the_picture(
    models: list[str], photos: Path, tmp_path: Path, capsys: Printed
) -> None:
    out = tmp_path / "out"
    assert cli("compare", *models, photos, "-o", out) == 3
    assert sorted(path.name for path in out.iterdir()) == ["compare.html", "compare.png"]
    assert load(out / "compare.png").shape[1] > 1000
    printed = capsys.readouterr()
    assert "bad.jpg" in printed.err and "1 .txt" in printed.err and printed.err.count("\n") == 2
    assert "2 boxes by both, 2 by default alone" in printed.out
    assert f"2 pictures, 1 failed; written: {out / 'compare.html'}" in printed.out


@pytest.mark.parametrize("name", ["a.html", "a.png"])
def test_an_ending_chooses_one_of_them(
    name: str, models: list[str], photos: Path, tmp_path: Path, capsys: Printed
) -> None:
    path = tmp_path / name
    arguments = ("compare", photos / "a.png", *models, "-o", path, "--quiet")
    assert cli(*arguments) == 0
    assert path.exists() and capsys.readouterr() == ("", "")
    content = path.read_bytes()
    assert cli(*arguments, "--conf", 0.9) == 1
    assert "exists already" in capsys.readouterr().err and path.read_bytes() == content
    assert cli(*arguments, "--overwrite") == 0


def test_quiet_says_what_was_passed_over(
    models: list[str], photos: Path, tmp_path: Path, capsys: Printed
) -> None:
    arguments = ("compare", photos, *models, "-o", tmp_path / "a.html", "--quiet")
    assert cli(*arguments) == 3
    printed = capsys.readouterr()
    assert printed.out == "" and "1 file passed over for its ending: 1 .txt" in printed.err


def test_json_has_the_numbers_and_all_failures(
    models: list[str], photos: Path, tmp_path: Path, capsys: Printed
) -> None:
    arguments = (photos / "a.png", photos / "bad.jpg", photos / "gone.png")
    page = tmp_path / "a.html"
    assert cli("compare", *models, *arguments, "-o", page, "--json", "--limit", 1) == 3
    content = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in content["models"]] == models
    assert content["images"] == 1 and content["written"] == [str(page)]
    assert [Path(one["input"]).name for one in content["failed"]] == ["gone.png", "bad.jpg"]


def test_frames_of_videos_are_compared(
    models: list[str], squares: np.ndarray, tmp_path: Path, capsys: Printed
) -> None:
    video = clip(tmp_path / "clip.mp4", [squares] * 20, size=(96, 64))
    page = tmp_path / "a.html"
    assert cli("compare", *models, video, "-o", page, "--frames", 3, "--json") == 0
    names = [one["name"] for one in json.loads(capsys.readouterr().out)["pictures"]]
    assert len(names) == 3 and all(name.startswith(f"{video} at ") for name in names)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["default", "photos"], "needs two models or more"),
        (["photos"], "got none"),
        (["default", "smal", "photos"], "'smal' is neither a model .*did you mean small"),
        (["default", "other.onnx"], "there is nothing to look at"),
        (["default", "small", "photos"], "is there twice, as 'default' and 'small'"),
        (["default", "gone.onnx", "photos"], "gone.onnx"),
        (["default", "other.onnx", "photos", "-o", "a.jpg"], "must end in .html or .png, or name"),
        (["default", "other.onnx", "photos", "-o", "no/out"], "no does not exist"),
        (["default", "other.onnx", "photos", "-o", "no/a.png"], "no does not exist"),
        (["default", "other.onnx", "photos", "--limit", "0"], "limit must be"),
    ],
)
def test_mistakes_are_one_sentence_and_leave_nothing(
    arguments: list[str],
    reason: str,
    models: list[str],
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Printed,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert cli("compare", *arguments) == 1
    printed = capsys.readouterr()
    assert not printed.out and printed.err.count("\n") == 1
    assert re.search(reason, printed.err)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_called_like_a_model_is_named_by_its_path(
    models: list[str], photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: Printed
) -> None:
    monkeypatch.chdir(photos.parent)
    photos.rename("small")
    assert cli("compare", models[1], "small", "-o", "a.html") == 1
    assert "such as ./small, which is not the model of this name" in capsys.readouterr().err
    assert cli("compare", *models, "./small", "-o", "a.html") == 3


def test_names_may_be_any_bytes(
    models: list[str], photos: Path, tmp_path: Path, capsys: Printed
) -> None:
    bytes_ = "\udcff \N{SNOWMAN}"
    model, image = tmp_path / f"{bytes_}.onnx", photos / f"{bytes_}.png"
    Path(models[1]).rename(model)
    (photos / "a.png").rename(image)
    assert cli("compare", models[0], model, image, "-o", tmp_path / "out", "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert content["pictures"][0]["name"].endswith("\\xff \N{SNOWMAN}.png")
    assert "\\xff" in (tmp_path / "out" / "compare.html").read_text(encoding="utf-8")


def test_only_unreadable_images_leave_no_page(
    models: list[str], photos: Path, tmp_path: Path, capsys: Printed
) -> None:
    out = tmp_path / "out"
    assert cli("compare", *models, photos / "bad.jpg", "-o", out, "--json") == 1
    assert json.loads(capsys.readouterr().out)["written"] == [] and not out.exists()


def test_an_input_is_never_replaced_and_an_output_is_no_input(
    models: list[str], photos: Path, capsys: Printed
) -> None:
    image = photos / "a.png"
    content = image.read_bytes()
    assert cli("compare", *models, image, "-o", image, "--overwrite") == 1
    assert "is an input" in capsys.readouterr().err and image.read_bytes() == content
    for more in ([], ["--overwrite"]):
        assert cli("compare", *models, photos, "-o", photos / "grid.png", "--json", *more) == 3
        assert json.loads(capsys.readouterr().out)["images"] == 2


def test_an_interrupted_comparison_keeps_what_is_done(
    models: list[str],
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Printed,
) -> None:
    add, page = Comparer.add, tmp_path / "a.html"

    def one_only(self: Comparer, name: str, image: np.ndarray) -> None:
        if "more" in name:
            raise KeyboardInterrupt
        add(self, name, image)

    monkeypatch.setattr(Comparer, "add", one_only)
    assert cli("compare", *models, photos, "-o", page, "--json") == 130
    assert json.loads(capsys.readouterr().out)["images"] == 1 and page.exists()
