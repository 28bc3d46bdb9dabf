"""Detections on standard output: the bytes of a file, and errors that name it."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rdlite.errors import OptionError
from rdlite.sinks import FORMATS
from tests.samples import found
from tests.test_sinks import make

STREAMS = pytest.mark.parametrize("format", [name for name in FORMATS if FORMATS[name].stdout])


@STREAMS
def test_some_formats_go_to_standard_output(
    format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with make(format, "-") as sink:
        sink.write(found(), image="a.jpg")
    assert "traffic light" in capsys.readouterr().out


@pytest.mark.parametrize("format", [name for name in FORMATS if not FORMATS[name].stdout])
def test_the_others_name_what_they_need(
    format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OptionError, match="cannot go to standard output; name a f"):
        make(format, "-")
    assert list(tmp_path.iterdir()) == []


STREAM_NAMES = ("ünï\u202e.jpg", "\udcff")
STREAM = f"""
import sys
from rdlite.sinks import open_sink
from tests.samples import found, header
for word in sys.argv[3:]:
    print(word)
with open_sink(sys.argv[1], "-", header=header()) as sink:
    for _ in range(int(sys.argv[2])):
        for name in {STREAM_NAMES!a}:
            sink.write(found(), image=name)
"""


def stream(format: str, count: int, *printed: str, **options: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", STREAM, format, str(count), *printed]
    root = Path(__file__).parents[1]
    return subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE, **options)


@STREAMS
def test_standard_output_is_the_bytes_of_a_file_whatever_its_encoding(
    format: str, tmp_path: Path
) -> None:
    with make(format, tmp_path / "a") as sink:
        for name in STREAM_NAMES:
            sink.write(found(), image=name)
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUNBUFFERED": ""}
    process = stream(format, 1, "before", stdout=subprocess.PIPE, env=environment)
    output, errors = process.communicate()
    assert (process.returncode, errors) == (0, b"")
    assert output == b"before\n" + (tmp_path / "a").read_bytes()


@STREAMS
def test_standard_output_may_take_text_alone(format: str, tmp_path: Path) -> None:
    """As that of a notebook."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), make(format, "-") as sink:
        sink.write(found(), image="ünï.jpg")
    with make(format, tmp_path / "a") as sink:
        sink.write(found(), image="ünï.jpg")
    assert printed.getvalue() == (tmp_path / "a").read_text("utf-8")


@STREAMS
def test_what_takes_text_alone_gets_each_line_at_once(format: str) -> None:
    class Buffered(io.StringIO):
        shown = ""

        def flush(self) -> None:
            self.shown = self.getvalue()

    printed = Buffered()
    with contextlib.redirect_stdout(printed), make(format, "-") as sink:
        sink.write(found(), image="a.jpg")
        assert printed.shown == printed.getvalue() != ""
    assert printed.shown == printed.getvalue()


@STREAMS
def test_a_closed_standard_output_is_a_broken_pipe(format: str) -> None:
    process = stream(format, 10_000, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read().count(b"\nBrokenPipeError") >= 1
    process.stderr.close()
    assert process.wait() != 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, which Linux has")
@STREAMS
def test_a_full_disk_behind_standard_output_is_named(format: str) -> None:
    with open("/dev/full", "w") as full:
        process = stream(format, 1, stdout=full)
        _, errors = process.communicate()
    assert b"standard output cannot be written: No space left on device" in errors
