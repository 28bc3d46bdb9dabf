"""A trained model becomes one that `Detector` opens by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rdlite import Detector, registry
from rdlite.session import Session
from tests.conftest import ModelWriter, Ship, constant_model
from train.__main__ import main

Printed = pytest.CaptureFixture[str]


@pytest.fixture
def run(tmp_path: Path, tiny_model: Path) -> Path:
    """The model of a run, with its card and its curves."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(tiny_model.read_bytes())
    (folder / "model.md").write_text("# Model card: model\n\n![Loss](model-curves.png)\n")
    (folder / "model-curves.png").write_bytes(b"a picture")
    return folder / "model.onnx"


@pytest.fixture
def package(ship: Ship, write_model: ModelWriter) -> Path:
    """The data folder of a package with one model."""
    return ship(write_model(constant_model()), "large", "default", "big").parent


def test_a_shipped_model_opens_by_its_name_and_alias(
    run: Path, package: Path, capsys: Printed
) -> None:
    assert main(["ship", str(run), "--name", "small", "--alias", "s", "--alias", "tiny"]) == 0
    assert "small = s = tiny: 5 classes" in capsys.readouterr().out
    for name in ("small", "s", "tiny"):
        assert Detector(name).model_sha256 == Session(run).sha256
    assert Detector().model_sha256 != Session(run).sha256
    card = (package / "small.md").read_text()
    assert card == "# Model card: small\n\n![Loss](small-curves.png)\n"
    assert (package / "small-curves.png").read_bytes() == b"a picture"
    assert list(registry.table()) == ["large", "small"]


def test_a_model_of_the_same_name_is_replaced_and_keeps_its_aliases(
    run: Path, package: Path
) -> None:
    assert main(["ship", str(run), "--name", "small", "--alias", "s", "--about", "best"]) == 0
    before = registry.table()["small"]
    run.write_bytes((package / "large.onnx").read_bytes())
    (run.parent / "model-curves.png").unlink()
    assert main(["ship", str(run), "--name", "small"]) == 0
    after = registry.table()["small"]
    assert (after.aliases, after.about) == (("s",), "best") and after.sha256 != before.sha256
    assert Detector("s").model_sha256 == after.sha256
    assert not (package / "small-curves.png").exists()


def test_an_alias_moves_and_that_is_said(run: Path, package: Path, capsys: Printed) -> None:
    assert main(["ship", str(run), "--name", "small", "--alias", "default"]) == 0
    assert "large is no longer called default" in capsys.readouterr().out
    assert Detector().model_sha256 == Session(run).sha256
    assert registry.table()["large"].aliases == ("big",)


def test_a_file_that_is_there_already_only_gets_its_row(run: Path, package: Path) -> None:
    for path in run.parent.iterdir():
        (package / path.name.replace("model", "small-int8")).write_bytes(path.read_bytes())
    files = {path: path.read_bytes() for path in package.iterdir() if path.suffix != ".json"}
    place = package / "small-int8.onnx"
    assert main(["ship", str(place), "--name", "small-int8", "--alias", "int8"]) == 0
    assert {path: path.read_bytes() for path in files} == files
    assert Detector("int8").model_sha256 == Session(place).sha256


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--name", "Small"], "small letters"),
        (["--name", "../small"], "small letters"),
        (["--name", "small.onnx"], "small letters"),
        (["--name", "small", "--alias", "a b"], "small letters"),
        (["--name", "small", "--alias", "large"], "'large' is the full name of a model"),
        (["--name", "big"], "'big' is an alias of large"),
    ],
)
def test_a_name_that_cannot_be_used_changes_nothing(
    options: list[str], reason: str, run: Path, package: Path, capsys: Printed
) -> None:
    table = (package / registry.TABLE).read_text()
    assert main(["ship", str(run), *options]) == 1
    assert reason in capsys.readouterr().err
    assert (package / registry.TABLE).read_text() == table
    assert len(list(package.iterdir())) == 2


def test_what_is_no_model_or_has_no_card_is_refused(
    run: Path, package: Path, capsys: Printed
) -> None:
    run.with_suffix(".md").unlink()
    assert main(["ship", str(run), "--name", "small"]) == 1
    assert "has no card beside it; write model.md" in capsys.readouterr().err
    run.write_text("this is no model")
    assert main(["ship", str(run), "--name", "small"]) == 1
    assert "not an ONNX file" in capsys.readouterr().err
    assert json.loads((package / registry.TABLE).read_text()).keys() == {"large"}
