"""What Windows and macOS do otherwise with names of files, as far as it can be tried here."""

from __future__ import annotations

import errno
import ntpath
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rdlite import Detector, OptionError
from rdlite.batch import images
from rdlite.batch.images import Image, ImageTask
from rdlite.cli.inputs import find
from rdlite.sinks.labels import check_inside
from rdlite.storage.outputs import Input, Outputs, refused_by_windows

REFUSED = ["con", "CON.txt", "day/nul.tar.gz", "aux /a.png", "lpt¹.x", "conin$", "a?.png", "a."]
REFUSED += ["a b ", "day./a.png", "prn\\a.png", "a\x01b", 'say "hi".png']
TAKEN = ["conx.txt", "com0", "com10.png", ".hidden", "a..b", "a/../b.png", "./a.png", "ä.png"]


@pytest.mark.parametrize("name", REFUSED + TAKEN)
def test_names_that_windows_refuses_are_known(name: str) -> None:
    assert bool(refused_by_windows(name)) == (name in REFUSED)
    if sys.version_info >= (3, 13):
        parts = [part for part in name.split("/") if part not in (".", "..")]
        assert any(map(ntpath.isreserved, parts)) == (name in REFUSED)


def test_a_stream_of_another_file_is_no_name() -> None:
    assert refused_by_windows("photos/a:b.png") == "a:b.png"


@pytest.mark.skipif(sys.platform == "win32", reason="begins with what Windows refuses")
def test_outputs_that_windows_refuses_are_refused_there_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs, one = Outputs(tmp_path, []), Input("a.png", "day/con.png")
    assert outputs.path(one, one.output, overwrite=False) == tmp_path / "day" / "con.png"
    check_inside("a:b/con.png")
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(OptionError, match=r"Windows has no files that are called 'con.png'"):
        outputs.path(one, one.output, overwrite=False)
    with pytest.raises(OptionError, match=r"Windows has no files that are called 'con.png'"):
        check_inside("day/con.png")


@pytest.mark.parametrize(
    ("first", "second"),
    [("Clip.png", "clip.PNG"), ("STRASSE.jpg", "straße.jpg"), ("\u00e4.png", "a\u0308.png")],
)
def test_no_two_outputs_differ_by_case_or_unicode_form_alone(
    first: str, second: str, squares: np.ndarray, tmp_path: Path
) -> None:
    paths = [tmp_path / "a" / first, tmp_path / "b" / second]
    for path in paths:
        path.parent.mkdir()
        path.touch()
    found = find(list(map(str, paths)), images=True, video_ending=".jsonl", outside=tmp_path / "o")
    (one, other) = (one.output for one in found.files)
    assert one == first and other == f"{Path(second).stem}-2{Path(second).suffix.lower()}"


def test_an_output_folder_elsewhere_is_in_no_ones_way(tmp_path: Path) -> None:
    # Between two drives of Windows there would be no relative path.
    (tmp_path / "a.png").touch()
    found = find([str(tmp_path)], images=True, video_ending=".jsonl", outside=Path("/elsewhere"))
    assert [one.output for one in found.files] == ["a.png"]


@pytest.mark.parametrize(("gone", "stop"), [(False, False), (True, True)])
def test_a_path_that_is_too_long_for_windows_is_the_fault_of_one_image(
    gone: bool,
    stop: bool,
    photos: Path,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def too_long(*_: Any) -> int:
        raise FileNotFoundError(errno.ENOENT, "The system cannot find the path specified")

    monkeypatch.setattr(images, "_write_copy", too_long)
    folder = tmp_path / "gone" if gone else tmp_path
    task = ImageTask(folder, (Image(0, photos / "a.png", folder / "a.png"),))
    (result,) = task(Detector(tiny_model), lambda units: None)
    assert (result.entry, result.stop) == (None, stop)
    assert "cannot be written" in result.error
