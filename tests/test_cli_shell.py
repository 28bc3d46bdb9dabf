"""`rdlite` in a shell: help, completion, misspellings, pipes that close, and full disks."""

from __future__ import annotations

import argparse
import json
import os
import re
import select
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from rdlite.cli import main
from rdlite.cli.options import SHELLS
from rdlite.cli.parser import GROUPS, make_parser
from rdlite.resultfile import ResultFile
from tests.command import Printed, cli, command
from tests.media import clip


def commands() -> dict[str, argparse.ArgumentParser]:
    (action,) = (a for a in make_parser()._actions if isinstance(a, argparse._SubParsersAction))
    return dict(action.choices)


COMMANDS = commands()


def examples(text: str) -> list[str]:
    """The command lines below "examples:", without what a shell does with their output."""
    block = text.partition("examples:\n")[2].partition("\n\n")[0]
    return [re.search(r"rdlite[^|>)]*", line)[0] for line in block.splitlines()]  # type: ignore[index]


def test_help_lists_every_command_in_one_group(capsys: Printed) -> None:
    grouped = [name for names in GROUPS.values() for name in names]
    assert sorted(grouped) == sorted(COMMANDS)
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    printed = capsys.readouterr().out
    assert stop.value.code == 0
    for name, command_parser in COMMANDS.items():
        assert f"  {name:12}{command_parser.description}\n" in printed


@pytest.mark.parametrize("name", COMMANDS)
def test_help_teaches_by_examples_that_are_right(name: str) -> None:
    text = COMMANDS[name].format_help()
    shown = examples(text)
    assert 2 <= len(shown) <= 4
    for line in shown:
        program, *arguments = shlex.split(line, comments=True)
        assert (program, arguments[0]) == ("rdlite", name)
        make_parser().parse_args(arguments)  # exits where it is wrong
    assert "0 all good" in text and "130 interrupted" in text
    assert text.startswith(f"usage: rdlite {name} [options]")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_says_every_default(name: str) -> None:
    for action in COMMANDS[name]._actions:
        if action.default not in (None, [], argparse.SUPPRESS) and action.nargs != 0:
            assert action.help and "default: " in action.help, action.option_strings


def test_help_for_programs_has_what_help_has(capsys: Printed) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help-json"])
    content = json.loads(capsys.readouterr().out)
    assert stop.value.code == 0 and content["exit_codes"]["3"] == "some of it failed"
    assert {one["name"] for one in content["commands"]} == set(COMMANDS)
    (detect,) = (one for one in content["commands"] if one["name"] == "detect")
    assert detect["group"] == "make results"
    assert len(detect["examples"]) == len(examples(COMMANDS["detect"].format_help()))
    options = {(one["names"] or [one["value"]])[-1]: one for one in detect["options"]}
    assert (options["SRC"]["required"], options["SRC"]["count"]) == (True, "+")
    assert (options["--conf"]["default"], options["--conf"]["value"]) == (0.4, "SCORE")
    assert (options["--resume"]["value"], options["--nms"]["choices"][0]) == (None, "hard")
    assert options["--max-det"]["help"] == "most objects in one picture (default: 100)"


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("detct a.jpg", "there is no command 'detct' (did you mean detect?); see rdlite --help"),
        ("street.jpg", "did you mean rdlite detect street.jpg?"),
        ("clip.jsonl", "did you mean rdlite report clip.jsonl?"),
        ("detect a.jpg --modle x", "did you mean --model?); see rdlite detect --help"),
        ("detect a.jpg --nms gausian", "one of hard, linear, gaussian, got 'gausian' (did you"),
        ("detect", "arguments are required: SRC; see rdlite detect --help"),
        ("xyzzy", "there is no command 'xyzzy'; see rdlite --help"),
        ("''", "there is no command ''; see rdlite --help"),
        ("--verson", "unrecognized arguments: --verson (did you mean --version?); see rdlite -"),
        ("--model int8 detect a.jpg", "unrecognized arguments: --model; see rdlite --help"),
        ("detect --quite", "unrecognized arguments: --quite (did you mean --quiet?)"),
        ("detect a.jpg -o ''", "argument -o/--output: is empty; is a variable of the shell"),
        ("info ''", "argument model: is empty; is a variable of the shell not set?; see rdlite i"),
        ("detect a.jpg --classes ,", "argument --classes: must name a class or several, got ','"),
    ],
)
def test_what_is_misspelt_is_guessed_in_one_line(line: str, meant: str, capsys: Printed) -> None:
    with pytest.raises(SystemExit) as stop:
        main(shlex.split(line))
    error = capsys.readouterr().err
    assert stop.value.code == 1
    assert meant in error and error.startswith("rdlite: error: ") and error.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("detect {}", "-dash.jpg"),
        ("detect a.jpg {}", "-dash.jpg"),
        ("detect {}", "--dash.jpg"),
        ("detect {}", "-out.jpg"),  # -o with a value, but for the file
        ("annotate {} -o x", "-dash.mp4"),
        ("{}", "-dash.jpg"),
    ],
)
def test_a_file_that_begins_like_an_option_gets_a_hint(
    line: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Printed
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text("")
    with pytest.raises(SystemExit) as stop:
        main(line.format(name).split())
    error = capsys.readouterr().err
    assert stop.value.code == 1
    assert f" (for the file, write ./{name}); see " in error and error.count("\n") == 1


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A folder with an image, a clip, a model, results of both, and an annotation file."""
    folder = tmp_path_factory.mktemp("work")
    image = np.full((64, 96, 3), 90, np.uint8)
    image[16:32, 16:32] = (250, 20, 20)
    (folder / "photos").mkdir()
    cv2.imwrite(str(folder / "photos" / "a.png"), image)
    clip(folder / "clip.mp4", [image] * 3)
    for name in ("one.onnx", "two.onnx"):
        shutil.copy(tiny_model, folder / name)
    model = ("--model", folder / "one.onnx", "--quiet")
    assert cli("annotate", folder / "clip.mp4", "-o", folder / "out.mp4", *model) == 0
    (folder / "out.jsonl").rename(folder / "clip.jsonl")
    (folder / "dev.json").write_text(
        '{"images": [{"id": 1, "file_name": "a.png", "width": 96, "height": 64}], "annotations": '
        '[{"id": 1, "image_id": 1, "category_id": 1, "bbox": [16, 16, 16, 16], "area": 256}], '
        '"categories": [{"id": 1, "name": "person"}]}'
    )
    return folder


PRINTING = {
    "detect": "detect photos --model one.onnx -o OUT",
    "detect to stdout": "detect photos clip.mp4 --model one.onnx -o - --quiet",
    "annotate": "annotate clip.mp4 --model one.onnx -o OUT --json",
    "report": "report clip.jsonl -o OUT.html",
    "compare": "compare one.onnx two.onnx photos -o OUT.html",
    "convert": "convert clip.jsonl --format csv -o OUT.csv",
    "convert to stdout": "convert clip.jsonl --format coco -o -",
    "models": "models --json",
    "info": "info one.onnx",
    "eval": "eval dev.json photos --model one.onnx --json",
    "bench": "bench --model one.onnx --runs 1 --image photos/a.png",
    "check": "check",
    "completion": "completion bash",
    "--help": "--help",
    "detect --help": "detect --help",
    "--version": "--version",
    "--help-json": "--help-json",
}
"""Something that every command prints; demo prints as annotate does."""


def run(line: str, folder: Path, stdout: Any, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a line in a folder with another standard output."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "stdout", stdout)
    try:
        return main(shlex.split(line.replace("OUT", str(len(os.listdir(folder))))))
    except SystemExit as stop:
        return int(str(stop.code))


def test_all_commands_are_in_the_two_tests_below() -> None:
    assert {line.split()[0] for line in PRINTING.values()} >= set(COMMANDS) - {"demo"}


@pytest.mark.parametrize("line", PRINTING.values(), ids=PRINTING)
def test_a_reader_that_has_seen_enough_is_no_error(
    line: str, work: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as stdout:
        assert run(line, work, stdout, monkeypatch) == 0
    assert capfd.readouterr().err == ""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has a file that is full")
@pytest.mark.parametrize("line", PRINTING.values(), ids=PRINTING)
def test_output_that_cannot_be_written_is_an_error_of_one_line(
    line: str, work: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with open("/dev/full", "w") as stdout:
        assert run(line, work, stdout, monkeypatch) == 1
    error = capfd.readouterr().err
    assert error.startswith("rdlite: error: ") and error.count("\n") == 1
    assert "No space left on device" in error


@pytest.mark.skipif(sys.platform == "win32", reason="the shell is bash")
@pytest.mark.parametrize(
    ("line", "code", "printed", "error"),
    [
        ("rdlite --help | head -n 1", 0, "usage: rdlite COMMAND ...", ""),
        ("rdlite info one.onnx | head -n 1", 0, "file", ""),
        ("rdlite detect photos clip.mp4 --model one.onnx -o - --quiet | head -n 1", 0, "{", ""),
        ("rdlite --help > /dev/full", 1, "", "rdlite: error: output: No space left on device"),
        ("rdlite models >&-", 1, "", "rdlite: error: standard output is closed; send it to"),
        ("rdlite models --names 2>&-", 0, "refinedetlite48", ""),
        ("FORCE_COLOR=1 rdlite models --names", 0, "refinedetlite48", ""),
    ],
)
def test_in_a_real_shell(line: str, code: int, printed: str, error: str, work: Path) -> None:
    script = "set -o pipefail\nrdlite() { exec " + f'{shlex.join(command())} "$@"; }}\n({line})'
    environment = {key: v for key, v in os.environ.items() if key != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        ["bash", "-c", script], cwd=work, env=environment, capture_output=True, text=True
    )
    assert done.returncode == code
    assert done.stdout.startswith(printed) and "\x1b" not in done.stdout
    assert done.stderr.startswith(error) and done.stderr.count("\n") == bool(error)


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ("report clip.jsonl -o page.html", "rdlite.resultfile.ResultFile.__iter__"),
        ("convert clip.jsonl --format coco -o out.json", "rdlite.resultfile.ResultFile.__iter__"),
        ("convert clip.jsonl --format yolo -o labels", "rdlite.resultfile.ResultFile.__iter__"),
        ("eval dev.json photos --model one.onnx", "rdlite.detector.Detector.__call__"),
        ("bench --model one.onnx", "rdlite.detector.Detector.__call__"),
    ],
)
def test_an_interrupted_command_leaves_nothing_half_done(
    line: str, place: str, work: Path, monkeypatch: pytest.MonkeyPatch, capsys: Printed
) -> None:
    records = ResultFile.__iter__

    def interrupted(self: Any, *_: Any, **__: Any) -> Iterator[Any]:
        if isinstance(self, ResultFile):
            yield next(records(self))
        raise KeyboardInterrupt

    def at_once(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(place, interrupted if place.endswith("__iter__") else at_once)
    monkeypatch.chdir(work)
    before = sorted(work.rglob("*"))
    assert cli(*shlex.split(line)) == 130
    assert capsys.readouterr().err == "rdlite: interrupted\n"
    assert sorted(work.rglob("*")) == before


COMPLETED = {
    "rdlite ann": {"annotate"},
    "rdlite detect --form": {"--format"},
    "rdlite annotate --nms ": {"hard", "linear", "gaussian"},
    "rdlite detect phot": {"photos"},
    "rdlite detect photos clip.m": {"clip.mp4"},
    "rdlite detect photos --model on": {"one.onnx"},
    "rdlite detect --model refinedetlite72-": {"refinedetlite72-int8"},
    "rdlite info defau": {"default"},
    "rdlite compare default refinedetlite72-": {"refinedetlite72-int8"},
    "rdlite compare default one.onnx cl": {"clip.jsonl", "clip.mp4"},
    "rdlite eval dev.json photos --compare defau": {"default"},
    "rdlite eval dev.json photos --compare clip.j": {"clip.jsonl"},
    "rdlite annotate --crf ": set(),
    "rdlite completion z": {"zsh"},
}


@pytest.fixture(scope="module")
def on_path(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment whose PATH begins with an `rdlite`."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "rdlite").write_text(f'#!/bin/sh\nexec {shlex.join(command())} "$@"\n')
    (folder / "rdlite").chmod(0o755)
    return {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "TERM": "dumb"}


_BASH = """
eval "$(rdlite completion bash)"
read -ra COMP_WORDS <<< "$1"
[[ "$1" == *" " ]] && COMP_WORDS+=("")
COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))
_shtab_rdlite
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")
@pytest.mark.usefixtures("default_model")
@pytest.mark.parametrize(("line", "wanted"), COMPLETED.items())
def test_bash_completes(line: str, wanted: set[str], work: Path, on_path: dict[str, str]) -> None:
    done = subprocess.run(
        ["bash", "-c", _BASH, "bash", line], cwd=work, env=on_path, capture_output=True, text=True
    )
    assert (set(done.stdout.split()), done.returncode) == (wanted, 0)


@pytest.mark.skipif(not shutil.which("zsh"), reason="zsh is not installed")
@pytest.mark.usefixtures("default_model")
def test_zsh_completes(work: Path, on_path: dict[str, str], tmp_path: Path) -> None:
    import pty  # not on Windows

    child, terminal = pty.fork()
    if child == 0:
        os.chdir(work)
        os.execvpe("zsh", ["zsh", "-f", "-i"], on_path)
    setup = f"autoload -Uz compinit; compinit -u -d {tmp_path}/dump"
    os.write(terminal, f'{setup}; eval "$(rdlite completion zsh)"; print rea""dy\n'.encode())
    shown = _until(terminal, "\nready")
    for line, wanted in COMPLETED.items():
        if len(wanted) == 1:
            (word,) = wanted
            start = line.rpartition(" ")[0]
            os.write(terminal, f"{line}\t".encode())
            shown = _until(terminal, f"{start} {word}")
            assert f"{start} {word}" in shown
            os.write(terminal, b"\x15")  # empties the line
    os.write(terminal, b"exit\n")
    os.close(terminal)
    os.waitpid(child, 0)


def _until(terminal: int, wanted: str, seconds: float = 20) -> str:
    """What a terminal shows until it has shown something, or time is up."""
    shown, end = "", time.monotonic() + seconds
    while wanted not in shown.replace("\r", "") and time.monotonic() < end:
        if select.select([terminal], [], [], 0.1)[0]:
            shown += os.read(terminal, 65536).decode(errors="replace")
    return shown


@pytest.mark.parametrize("shell", SHELLS)
def test_there_is_a_script_for_every_shell(shell: str, capsys: Printed) -> None:
    import shtab

    assert shell in shtab.SUPPORTED_SHELLS
    assert cli("completion", shell) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in COMMANDS)


def test_no_command_at_all_shows_the_help_as_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "make results:" in printed.err
