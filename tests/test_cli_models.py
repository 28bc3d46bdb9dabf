"""`rdlite models`, and names wherever the command line takes a model."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from rdlite import registry
from rdlite.cli import models as cli_models
from rdlite.cli import working
from tests.command import cli, lines
from tests.conftest import ModelWriter, Ship

Printed = pytest.CaptureFixture[str]


@pytest.fixture
def family(ship: Ship, own_models: Path, tiny_model: Path, write_model: ModelWriter) -> Path:
    """A package with an fp32 and an int8 model, and a folder with one good and one bad file."""
    ship(tiny_model, "small", "default")
    ship(write_model(provenance={"quantization": {}}), "small-int8", "int8")
    (own_models / "mine.onnx").write_bytes(tiny_model.read_bytes())
    (own_models / "small.onnx").write_bytes(tiny_model.read_bytes())
    return own_models


def set_cpu(monkeypatch: pytest.MonkeyPatch, *features: str) -> None:
    monkeypatch.setattr(cli_models, "int8_instructions", lambda: features)


def test_each_folder_is_printed_with_its_models(
    family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Printed
) -> None:
    set_cpu(monkeypatch, "avx512_vnni")
    assert cli("models") == 0
    printed = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert printed == [
        str(registry.DATA),
        "small = default fp32 32x48 0.0 MB about small",
        "small-int8 = int8 int8 32x48 0.0 MB suits this CPU about small-int8",
        str(family),
        "mine fp32 32x48 0.0 MB",
        "small.onnx: its name means another file; give its path",
        f"{tmp_path / 'no data' / 'rdlite' / 'models'} (No such file or directory)",
        "",
        "this CPU has int8 dot products (avx512_vnni): int8 models suit it, such as --model int8; "
        "where no model is named it is default, an fp32 one, on every machine alike",
    ]


def test_a_shipped_model_without_its_file_is_missed(family: Path, capsys: Printed) -> None:
    (registry.DATA / "small-int8.onnx").unlink()
    assert cli("models") == 3
    assert "small-int8: comes with rdlite and its file is missing" in capsys.readouterr().out
    assert cli("models", "--json") == 3
    assert json.loads(capsys.readouterr().out)["missing"] == ["small-int8"]


@pytest.mark.parametrize(("features", "wanted"), [(("avx_vnni",), {"small-int8"}), ((), {"small"})])
def test_json_has_every_model_and_says_which_suits_the_cpu(
    features: tuple[str, ...],
    wanted: set[str],
    family: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Printed,
) -> None:
    set_cpu(monkeypatch, *features)
    assert cli("models", "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert {row["name"] for row in content["models"] if row["suits_cpu"]} == wanted
    assert content["hidden"] == [str(family / "small.onnx")]
    assert content["folders"][:2] == [str(registry.DATA), str(family)]
    assert content["int8_instructions"] == list(features)
    small = next(row for row in content["models"] if row["name"] == "small")
    assert small["file"] == str(registry.DATA / "small.onnx")
    assert small["bytes"] == (registry.DATA / "small.onnx").stat().st_size
    assert (small["aliases"], small["input"], small["error"]) == (["default"], [32, 48], None)


def test_a_file_that_cannot_be_used_is_named_and_the_others_listed(
    family: Path, monkeypatch: pytest.MonkeyPatch, capsys: Printed
) -> None:
    (family / "bad.onnx").write_text("this is no model")
    (registry.DATA / "small-int8.onnx").write_bytes((family / "mine.onnx").read_bytes())
    assert cli("models") == 3
    printed = capsys.readouterr().out
    assert "bad.onnx: is not an ONNX file" in printed
    assert "small-int8.onnx: is not the model 'small-int8' of this release" in printed
    assert "mine " in printed and "small = default " in printed
    assert cli("models", "--json") == 3
    rows = {row["name"]: row["error"] for row in json.loads(capsys.readouterr().out)["models"]}
    assert [name for name, error in rows.items() if error] == ["small-int8", "bad"]


def test_the_recommendation_follows_the_cpu_and_the_models(
    ship: Ship, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ship(tiny_model, "small", "default")
    set_cpu(monkeypatch)
    assert "fp32 models suit it" in cli_models.recommendation()
    set_cpu(monkeypatch, "avx_vnni")
    assert "int8 models suit it;" in cli_models.recommendation()
    ship(tiny_model, "small-int8", "int8")
    assert "int8 models suit it, such as --model int8;" in cli_models.recommendation()
    assert cli_models.recommendation() in [finding.detail for finding in working.detection()]


def test_every_command_takes_a_name(
    family: Path, squares: np.ndarray, tmp_path: Path, capsys: Printed
) -> None:
    photo, out = tmp_path / "a.png", tmp_path / "out"
    cv2.imwrite(str(photo), squares)
    assert cli("info", "mine", "--json") == 0
    assert json.loads(capsys.readouterr().out)["file"] == str(family / "mine.onnx")
    assert cli("info", "int8", "--json") == 0
    assert json.loads(capsys.readouterr().out)["arithmetic"] == "int8"
    assert cli("bench", "--model", "int8", "--runs", 1, "--image", photo) == 0
    assert cli("detect", photo, "-o", out, "--model", "small") == 0
    assert len(lines(out / "detections.jsonl")[1]["detections"]) == 2


def test_a_run_goes_on_by_path_or_name_of_the_same_file_and_with_no_other(
    family: Path, squares: np.ndarray, tmp_path: Path, capsys: Printed
) -> None:
    photo, out = tmp_path / "a.png", tmp_path / "out"
    cv2.imwrite(str(photo), squares)
    run = ("detect", photo, "-o", out, "--json")
    assert cli(*run, "--model", "mine") == 0
    for same in (family / "mine.onnx", "small", "default"):
        capsys.readouterr()
        assert cli(*run, "--model", same, "--resume") == 0
        assert json.loads(capsys.readouterr().out)["earlier"] == 1
    assert cli(*run, "--model", "int8", "--resume") == 1
    assert "model" in capsys.readouterr().err


def test_an_unknown_name_is_one_sentence(tmp_path: Path, capsys: Printed) -> None:
    (tmp_path / "a.png").touch()
    assert cli("detect", tmp_path / "a.png", "--model", "in8", "-o", tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert error.startswith("rdlite: error: no model is called 'in8'") and error.count("\n") == 1


def test_two_workers_open_a_model_by_name(
    family: Path, squares: np.ndarray, tmp_path: Path
) -> None:
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), squares)
    pattern = tmp_path / "*.png"
    for workers, out in ((1, "one"), (2, "two")):
        folder = tmp_path / out
        assert cli("detect", pattern, "-o", folder, "--model", "mine", "--workers", workers) == 0
    one, two = (tmp_path / out / "detections.jsonl" for out in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
