"""What `rdlite check` says of one thing, and the command that mends it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Literal, TypeAlias
from urllib.parse import urlsplit
from urllib.request import url2pathname

Status: TypeAlias = Literal["ok", "note", "bad"]
"""`note`: it works, and there is something to know; `bad`: rdlite cannot do all of its work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: What it is called.
        status: How it stands.
        detail: What was found, in a phrase.
        mend: The command or sentence that helps; empty where there is nothing to mend.
    """

    what: str
    status: Status
    detail: str
    mend: str = ""


Look: TypeAlias = Callable[[], Iterator[Finding]]


def tried(what: str, mend: str, work: Callable[[], str]) -> Finding:
    """Return what `work` says; where it fails, why, and what mends it."""
    try:
        return Finding(what, "ok", work())
    except Exception as error:  # a broken library may raise anything
        return Finding(what, "bad", " ".join(str(error).split()) or type(error).__name__, mend)


def origin(distribution: metadata.Distribution) -> dict[str, Any]:
    """Return where a distribution came from as PEP 610 has it, empty if from a package index."""
    return dict(json.loads(distribution.read_text("direct_url.json") or "{}"))


def reinstall() -> str:
    """Return the command that installs rdlite again from where this one came."""
    again = "pip install --force-reinstall --no-deps"
    try:
        distribution = metadata.distribution("rdlite")
    except metadata.PackageNotFoundError:
        return "pip install -e . in the checkout"
    came = origin(distribution)
    if "url" not in came:
        return f"{again} rdlite=={distribution.version}"
    if "vcs_info" in came:
        return f'{again} "{came["vcs_info"]["vcs"]}+{came["url"]}"'
    url = urlsplit(came["url"])
    place = url2pathname(url.path) if url.scheme == "file" else came["url"]
    if came.get("dir_info", {}).get("editable"):
        return f'pip install -e "{place}"'
    return f'{again} "{os.path.normpath(place) if url.scheme == "file" else place}"'
