"""Promises of SECURITY.md that no other file of tests holds."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.command import Printed, cli, script

ROOT = Path(__file__).parents[1]


def test_the_tests_that_hold_the_promises_exist() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)`", (ROOT / "SECURITY.md").read_text(encoding="utf-8"))
    assert len(named) > 10
    assert all((ROOT / path).is_file() for path in named)


@pytest.mark.parametrize(("wish", "kept"), [(None, "1"), ("0", "0")])
def test_onnxruntime_is_told_to_report_to_nobody(wish: str | None, kept: str) -> None:
    code = "import os, rdlite; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    assert printed(code, **({} if wish is None else {"ORT_DISABLE_TELEMETRY": wish})) == kept


def test_onnxruntime_leaves_nothing_in_the_home_of_its_user(
    tiny_model: Path, tmp_path: Path
) -> None:
    """Where it reports, it keeps a number for this machine and a database in the cache."""
    code = f"import rdlite; rdlite.Detector({str(tiny_model)!r})"
    assert printed(code, HOME=str(tmp_path), XDG_CACHE_HOME=str(tmp_path)) == ""
    assert not list(tmp_path.rglob("*"))


def printed(code: str, **variables: str) -> str:
    """What a process prints that has these environment variables."""
    environment = {key: v for key, v in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run(
        script(code), env=environment | variables, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.mark.parametrize("arguments", ["eval deep.json .", "eval empty.json deep.json"])
def test_nesting_without_end_is_an_error_of_one_line(
    arguments: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Printed
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("deep.json").write_text("[" * 100_000)
    Path("empty.json").write_text('{"images": [], "annotations": [], "categories": []}')
    assert cli(*arguments.split(), "--quiet") == 1
    error = capsys.readouterr().err
    assert error.startswith("rdlite: error: ") and error.count("\n") == 1


def test_results_nested_without_end_are_a_damaged_line(tmp_path: Path, capsys: Printed) -> None:
    results = tmp_path / "deep.jsonl"
    header = '{"schema": 1, "options": {}, "names": ["car"], "category_ids": [3]}'
    good = '{"image": "a.jpg", "width": 8, "height": 8, "detections": []}'
    results.write_text(f"{header}\n{good}\n{'[' * 100_000}\n{good}\n")
    assert cli("convert", results, "--format", "coco", "-o", tmp_path / "out.json") == 3
    assert "1 damaged line was left out" in capsys.readouterr().err
