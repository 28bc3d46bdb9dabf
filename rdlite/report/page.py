"""One self-contained HTML page: nothing is fetched, and nothing but its own scripts may run."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

ASSETS: Final = Path(__file__).with_name("assets")
"""Folder of the style sheets, scripts and bodies of pages."""

_PAGE: Final = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="rdlite">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
{body}
{blocks}
{scripts}
</body>
</html>
"""


def make_page(
    title: str,
    body: str,
    *,
    styles: Sequence[str],
    scripts: Sequence[str] = (),
    blocks: Iterable[str] = (),
) -> str:
    """Return a page with everything in it.

    Its Content-Security-Policy lets only these styles and scripts act, by their hashes, and only
    pictures that are in the page be shown: text that got into it unescaped could do nothing.

    Args:
        title: Of the page, as plain text.
        body: HTML.
        styles: CSS, in order; the texts of files in `ASSETS`.
        scripts: JavaScript, in order, likewise; each is a classic script of its own.
        blocks: What the scripts read; see `json_block` and `data_block`.
    """
    style = "\n".join(styles)
    hashes = " ".join(map(_hash, scripts)) or "'none'"
    policy = f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {hashes}"
    return _PAGE.format(
        policy=policy,
        title=html.escape(title),
        style=style,
        body=body,
        blocks="\n".join(blocks),
        scripts="\n".join(f"<script>{script}</script>" for script in scripts),
    )


def asset(name: str) -> str:
    """Return the text of a file in `ASSETS`."""
    return (ASSETS / name).read_text(encoding="utf-8")


def json_block(name: str, value: Any) -> str:
    """Return a script element with the id `name` that is never run and holds a value as JSON.

    Whatever text is in it stays text: it has no "<" that could end the element.
    """
    text = json.dumps(value, allow_nan=False).replace("<", "\\u003c")
    return f'<script type="application/json" id="{name}">{text}</script>'


def data_block(name: str, content: bytes) -> str:
    """Return a script element with the id `name` that is never run and holds bytes as base64."""
    text = base64.b64encode(content).decode("ascii")
    return f'<script type="text/plain" id="{name}">{text}</script>'


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
    return f"'sha256-{digest}'"
