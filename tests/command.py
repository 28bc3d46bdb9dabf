"""Running the command line in a test: in this process, or as a process of its own."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from rdlite.cli import main

_IS_ROOT = sys.platform != "win32" and os.geteuid() == 0
PLAIN_USER = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if _IS_ROOT else []
"""Goes before a command that is to respect the permissions of files, which root need not."""

Printed = pytest.CaptureFixture[str]


def cli(*arguments: object) -> int:
    """Run `rdlite` here; returns its exit code."""
    return main([str(argument) for argument in arguments])


def command(*arguments: object) -> list[str]:
    """The command that runs `rdlite` as a process."""
    # -P keeps the source tree out of the path, so that this is the installed rdlite
    return [sys.executable, "-P", "-m", "rdlite", *(str(a) for a in arguments)]


def lines(path: Path) -> list[dict[str, Any]]:
    """The objects in a JSON Lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def script(code: str, *arguments: object) -> list[str]:
    """The command that runs Python code with the installed rdlite and with `tests` to import."""
    root = str(Path(__file__).parents[1])
    code = f"import sys; sys.path.append({root!r})\n{code}"
    return [sys.executable, "-P", "-c", code, *(str(a) for a in arguments)]


def names(folder: Path) -> list[str]:
    """All files, without the record."""
    files = (p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    return sorted(str(path) for path in files if path.parts[0] != ".rdlite")
