"""`rdlite models`: which models have a name here, and which of them suit this CPU."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Any

from rdlite import registry
from rdlite.cli.exits import OK, SOME_FAILED
from rdlite.cpu import int8_instructions
from rdlite.errors import ModelError
from rdlite.registry import Model


def models(*, json: bool, names: bool) -> int:
    """List the models that can be opened by name; see `rdlite models --help`."""
    if names:
        for model in registry.present():
            print("\n".join([model.name, *model.aliases]))
        return OK
    fast = int8_instructions()
    rows = [_describe(model, fast) for model in registry.present()]
    hidden, missing = registry.hidden(), registry.missing()
    if json:
        content = {
            "models": rows,
            "missing": missing,
            "hidden": [str(path) for path in hidden],
            "folders": [str(folder) for folder in registry.folders()],
            "int8_instructions": fast,
        }
        print(jsonlib.dumps(content))
    else:
        for folder in registry.folders():
            print("\n".join(_lines(folder, rows, hidden)))
        for name in missing:
            print(f"{name}: comes with rdlite and its file is missing; install rdlite again")
        print(f"\n{recommendation()}")
    return SOME_FAILED if missing or any(row["error"] for row in rows) else OK


def recommendation() -> str:
    """Return a sentence on which models suit this CPU."""
    fast = int8_instructions()
    if not fast:
        return "no int8 dot products are known of this CPU: fp32 models suit it"
    example = ", such as --model int8" if registry.shipped("int8") else ""
    return (
        f"this CPU has int8 dot products ({', '.join(fast)}): int8 models suit it{example}; where "
        f"no model is named it is {registry.DEFAULT}, an fp32 one, on every machine alike"
    )


def _describe(model: Model, fast: tuple[str, ...]) -> dict[str, Any]:
    from rdlite.session import Session  # NumPy: the names alone are wanted at every TAB

    row: dict[str, Any] = {
        "name": model.name,
        "aliases": list(model.aliases),
        "file": str(model.path),
        "about": model.shipped.about if model.shipped else "",
        "error": None,
    }
    try:
        spec = Session(model.name).spec
        row |= {
            "bytes": model.path.stat().st_size,
            "input": list(spec.input_size),
            "arithmetic": spec.arithmetic,
            # of a file of the user's own nobody knows how well it does
            "suits_cpu": bool(model.shipped) and (spec.arithmetic == "int8") == bool(fast),
        }
    except ModelError as error:
        row["error"] = str(error)
    return row


def _lines(folder: Path, rows: list[dict[str, Any]], hidden: list[Path]) -> list[str]:
    """Return what to print about one folder of the search path."""
    own = [row for row in rows if Path(row["file"]).parent == folder]
    width = max((len(_names(row)) for row in own), default=0)
    out_of_reach = [path.name for path in hidden if path.parent == folder]
    return [
        f"{folder}{registry.remark(folder)}",
        *(_line(row, width) for row in own),
        *(f"  {name}: its name means another file; give its path" for name in out_of_reach),
    ]


def _names(row: dict[str, Any]) -> str:
    return " = ".join([row["name"], *row["aliases"]])


def _line(row: dict[str, Any], width: int) -> str:
    start = f"  {_names(row):{width}}  "
    if row["error"]:
        return f"{start}cannot be used: {row['error']}"
    height, across = row["input"]
    text = (
        f"{start}{row['arithmetic']}  {height}x{across}  {row['bytes'] / 1e6:5.1f} MB  "
        f"{'suits this CPU' if row['suits_cpu'] else '':14}  {row['about']}"
    )
    return text.rstrip()
