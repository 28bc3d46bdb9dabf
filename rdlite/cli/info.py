"""`rdlite info`: what a model file says about itself."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Iterator, Mapping
from typing import Any

from rdlite.cli.exits import OK
from rdlite.registry import DEFAULT
from rdlite.session import Session

_COLUMN = 15  # characters; the longest of our own keys has 14


def info(*, model: str | None, json: bool) -> int:
    """Describe a model file; see `rdlite info --help`."""
    session = Session(DEFAULT if model is None else model)
    path, spec = session.path, session.spec
    content = {
        "file": str(path),
        "bytes": path.stat().st_size,
        "sha256": session.sha256,
        "arithmetic": spec.arithmetic,
        "input": f"uint8 {spec.input_size[0]}x{spec.input_size[1]} BGR",
        "decoder": spec.decoder,
        "anchors": len(spec.anchors),
        "variances": list(spec.variances),
        "weights_sha256": spec.weights_sha256,
        "names": list(spec.names),
        "category_ids": list(spec.category_ids),
        "provenance": spec.provenance,
    }
    if json:
        print(jsonlib.dumps(content))
        return OK
    shown = {key: value for key, value in content.items() if key != "category_ids"}
    print("\n".join(_lines(shown | {"bytes": f"{content['bytes']:,}"})))
    return OK


def _lines(values: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """Yield values by their names; texts of several lines and objects below theirs, indented."""
    inside = f"{indent}  "
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield f"{indent}{key}"
            yield from _lines(value, inside)
        elif isinstance(value, str) and "\n" in value:
            yield f"{indent}{key}"
            yield from (f"{inside}{line}".rstrip() for line in value.splitlines())
        else:
            yield f"{indent}{key:{_COLUMN}} {_text(value)}".rstrip()


def _text(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(item, (str, int, float)) for item in value):
        return ", ".join(map(str, value))
    return value if isinstance(value, str) else jsonlib.dumps(value, ensure_ascii=False)
