"""Names and paths: what each means, where names are looked for, and what is refused."""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rdlite import Detector, ModelError, registry
from rdlite.registry import Shipped
from rdlite.session import Session
from tests.command import PLAIN_USER
from tests.conftest import ModelWriter, Ship, constant_model


@pytest.fixture
def own(own_models: Path, tiny_model: Path) -> Path:
    """A model of the user's own, which is called "mine"."""
    path = own_models / "mine.onnx"
    path.write_bytes(tiny_model.read_bytes())
    return path


def test_the_table_tells_of_the_files_that_the_package_has() -> None:
    rows = registry.table()
    assert rows["refinedetlite72"].aliases == ("default",)
    for name, row in rows.items():
        path = registry.DATA / f"{name}.onnx"
        again = f"{path.name} is not that of the table: python -m train ship {path} --name {name}"
        assert hashlib.sha256(path.read_bytes()).hexdigest() == row.sha256, again
        assert path.with_suffix(".md").is_file() and row.about
    names = [*rows, *(alias for row in rows.values() for alias in row.aliases)]
    assert len(set(names)) == len(names)
    assert {path.stem for path in registry.DATA.glob("*.onnx")} <= set(rows)


def test_a_name_opens_its_file_and_so_does_an_alias(ship: Ship, tiny_model: Path) -> None:
    path = ship(tiny_model, "small", "default", "int8")
    for name in ("small", "default", "int8"):
        assert registry.find(name) == path == Session(name).path
    assert Detector().model_sha256 == Detector("int8").model_sha256


@pytest.mark.parametrize("text", ["a/int8", "./int8", "int8/", "/int8", "int8.onnx", "a/b.ONNX"])
def test_what_has_a_separator_or_ends_in_onnx_is_a_path(text: str) -> None:
    assert registry.find(text) == Path(text)
    assert registry.shipped(text) is None


def test_a_path_object_is_a_path_whatever_it_is_called(
    ship: Ship, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ship(tiny_model, "small", "int8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"int8: cannot be read \(No such file"):
        Detector(Path("int8"))
    Path("int8").write_bytes(tiny_model.read_bytes())
    assert Detector(Path("int8")).names


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_name_stays_a_name_beside_a_file_or_folder_of_that_name(
    kind: str, ship: Ship, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = ship(tiny_model, "small", "int8")
    monkeypatch.chdir(tmp_path)
    Path("int8").mkdir() if kind == "folder" else Path("int8").write_text("something else")
    assert registry.find("int8") == path
    with pytest.raises(ModelError, match=r"int8: is (a directory|not)|int8: .*not an ONNX file"):
        Detector("./int8")


def test_a_model_of_ones_own_has_the_name_of_its_file(own: Path) -> None:
    detector = Detector("mine")
    assert repr(str(own)) in repr(detector)
    assert registry.Model("mine", own, None) in registry.present()


def test_folders_are_searched_in_order_and_each_once(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    user = tmp_path / "data" / "rdlite" / "models"
    for folder in (user, tmp_path / "second"):
        folder.mkdir(parents=True)
        (folder / "mine.onnx").touch()
        (folder / f"{folder.name}.onnx").touch()
    path = os.pathsep.join([str(own.parent), "", "second", "gone", str(own.parent)])
    monkeypatch.setenv("RDLITE_MODELS", path)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    second, gone = tmp_path / "second", tmp_path / "gone"
    assert registry.folders() == [registry.DATA, own.parent, second, gone, user]
    assert registry.find("mine") == own
    assert registry.find("second") == second / "second.onnx"
    assert registry.find("models") == user / "models.onnx"
    assert registry.hidden() == [second / "mine.onnx", user / "mine.onnx"]


def test_the_package_goes_before_the_users_folders(
    ship: Ship, own_models: Path, tiny_model: Path, write_model: ModelWriter
) -> None:
    path = ship(tiny_model, "small", "int8")
    other = write_model(constant_model()).read_bytes()
    for name in ("small", "int8"):
        (own_models / f"{name}.onnx").write_bytes(other)
        assert registry.find(name) == path
    assert [model.path for model in registry.present()] == [path]
    assert registry.hidden() == [own_models / "int8.onnx", own_models / "small.onnx"]
    assert Detector(own_models / "small.onnx").model_sha256 != Detector("small").model_sha256


def test_a_model_of_the_table_may_lie_in_the_users_folder_and_is_checked_there(
    ship: Ship, own_models: Path, tiny_model: Path, write_model: ModelWriter
) -> None:
    ship(tiny_model, "small").unlink()
    with pytest.raises(ModelError, match="the file of model 'small' is missing"):
        Detector("small")
    (own_models / "small.onnx").write_bytes(tiny_model.read_bytes())
    assert Detector("small").names
    (own_models / "small.onnx").write_bytes(write_model(constant_model()).read_bytes())
    with pytest.raises(ModelError, match="is not the model 'small' of this release"):
        Detector("small")
    assert Detector(own_models / "small.onnx").names


@pytest.mark.parametrize(
    ("platform", "variables", "folder"),
    [
        ("linux", {}, "home/.local/share"),
        ("linux", {"XDG_DATA_HOME": "relative"}, "home/.local/share"),
        ("linux", {"XDG_DATA_HOME": "/xdg"}, "/xdg"),
        ("darwin", {"XDG_DATA_HOME": "/xdg"}, "home/Library/Application Support"),
        ("win32", {}, "home/AppData/Local"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local"),
    ],
)
def test_the_users_folder_is_where_the_system_wants_it(
    platform: str,
    variables: dict[str, str],
    folder: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("RDLITE_MODELS", "XDG_DATA_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": str(tmp_path / "home"), **variables}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert registry.folders() == [registry.DATA, tmp_path / folder / "rdlite" / "models"]


def test_an_unknown_name_is_told_what_there_is_and_where_to_put_it(
    ship: Ship,
    own: Path,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ship(tiny_model, "small", "int8")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "smal").mkdir()
    with pytest.raises(ModelError) as caught:
        Detector("smal")
    text = str(caught.value)
    assert text.startswith(
        "no model is called 'smal' (did you mean 'small'?); there are 'small' = 'int8', 'mine'; "
    )
    assert f"looked for 'smal.onnx' in {registry.DATA}, {own.parent}, " in text
    assert f"{tmp_path / 'no data' / 'rdlite' / 'models'} (No such file or directory)" in text
    assert text.endswith("here './smal'") and "\n" not in text


@pytest.mark.usefixtures("default_model")
@pytest.mark.skipif(os.name != "posix", reason="permissions")
def test_a_folder_that_may_not_be_read_stands_in_nobodys_way(tmp_path: Path) -> None:
    closed = tmp_path / "data"
    closed.mkdir(mode=0)
    code = "from rdlite import Detector; Detector(); Detector('smal')"
    done = subprocess.run(
        [*PLAIN_USER, sys.executable, "-P", "-c", code],
        env={**os.environ, "XDG_DATA_HOME": str(closed), "RDLITE_MODELS": str(closed)},
        capture_output=True,
        text=True,
    )
    assert done.stderr.count(f"{closed} (Permission denied)") == 1
    assert "no model is called 'smal'" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("text", ["", " ", "\0", "mine\n", "Mine", "mine.pt", ".", "~"])
def test_odd_names_are_unknown_names(text: str, own: Path) -> None:
    with pytest.raises(ModelError, match="no model is called") as caught:
        Detector(text)
    assert repr(text) in str(caught.value)
    assert "\n" not in str(caught.value) and "\0" not in str(caught.value)


def test_a_sentence_stays_one_line_beside_files_of_odd_names(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(own.parent)
    (own.parent / "a\nb.onnx").touch()
    (own.parent / "smal\n").touch()
    with pytest.raises(ModelError, match="no model is called") as caught:
        Detector("smal\n")
    assert "'a\\nb'" in str(caught.value) and str(caught.value).endswith(r"here './smal\n'")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("model", [b"int8", 5, True, 0.5, ["int8"], b"onnx" * 10**5])
def test_what_is_neither_text_nor_a_path_is_one_sentence(model: object) -> None:
    with pytest.raises(ModelError, match=r"must be a name or a path, .*, got ") as caught:
        Detector(model)  # type: ignore[arg-type]
    assert repr(model)[:10] in str(caught.value) and len(str(caught.value)) < 120


def test_what_is_listed_opens_by_its_name_and_what_does_not_is_hidden(own: Path) -> None:
    folder = own.parent
    for name in ("mine.onnx", ".dot", "b\\c", "x.ONNX", "~", "int8"):
        (folder / f"{name}.onnx").touch()
    (folder / "dir.onnx").mkdir()
    (folder / "other.txt").touch()
    listed = [model for model in registry.present() if model.path.parent == folder]
    names = [".dot", "b\\c", "dir", "mine", "~"]
    if os.name == "posix":  # elsewhere a backslash separates folders
        assert [model.name for model in listed] == names
    assert [registry.find(model.name) for model in listed] == [model.path for model in listed]
    out_of_reach = [folder / f"{name}.onnx" for name in ("int8", "mine.onnx", "x.ONNX")]
    assert registry.hidden() == out_of_reach


def test_a_folder_spelled_in_two_ways_is_searched_once(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = own.parent
    link = folder.with_name("link")
    link.symlink_to(folder)
    for first, *more in ((folder, folder / ".." / folder.name, link), (link, folder)):
        monkeypatch.setenv("RDLITE_MODELS", os.pathsep.join(map(str, (first, *more))))
        assert registry.folders()[:2] == [registry.DATA, first]
        assert registry.find("mine") == first / "mine.onnx"
        assert registry.hidden() == []
    monkeypatch.setenv("RDLITE_MODELS", str(registry.DATA / ".." / registry.DATA.name))
    assert registry.DATA in registry.folders() and registry.hidden() == []


@pytest.mark.parametrize("content", ["", "[]", '{"small": {}}', '{"small": "x"}'])
def test_a_damaged_table_is_one_sentence(content: str, ship: Ship) -> None:
    (registry.DATA / registry.TABLE).write_text(content)
    with pytest.raises(ModelError, match=r"models\.json: is not the table of models"):
        Detector()


def test_a_shipped_model_is_pickled_by_name_and_found_where_the_package_is(
    ship: Ship,
    tiny_model: Path,
    squares: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ship(tiny_model, "small", "default", "int8")
    contents = [pickle.dumps(Detector(name, conf=0.3)) for name in (None, "small", "int8")]
    wanted = Detector("small", conf=0.3)(squares).to_dict()["detections"]
    elsewhere = tmp_path / "elsewhere"
    registry.DATA.rename(elsewhere)
    monkeypatch.setattr(registry, "DATA", elsewhere)
    for content in contents:
        again = pickle.loads(content)
        assert str(elsewhere) in repr(again)
        assert again(squares).to_dict()["detections"] == wanted


def test_a_model_of_ones_own_is_pickled_by_path(
    own: Path, squares: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = Detector("mine")
    content = pickle.dumps(detector)
    monkeypatch.delenv("RDLITE_MODELS")
    assert len(pickle.loads(content)(squares)) == len(detector(squares)) == 2


def test_another_release_of_a_shipped_model_is_refused_when_unpickled(
    ship: Ship, tiny_model: Path, write_model: ModelWriter
) -> None:
    ship(tiny_model, "small")
    content = pickle.dumps(Detector("small"))
    ship(write_model(constant_model()), "small")
    with pytest.raises(ModelError, match="is not the model of the detector that was pickled"):
        pickle.loads(content)


def test_the_row_of_a_model_is_found_by_each_of_its_names(ship: Ship, tiny_model: Path) -> None:
    path = ship(tiny_model, "small", "int8")
    row = registry.shipped("int8")
    assert row == registry.shipped("small")
    assert isinstance(row, Shipped) and row.about == "about small"
    assert registry.shipped(path) is registry.shipped(str(path)) is registry.shipped("x") is None
