"""A model put into the package: its file, its card, its curves, and a row of the table of names."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from rdlite import registry
from rdlite.errors import OptionError
from rdlite.registry import Shipped
from rdlite.session import Session

_CURVES = "-curves.png"


def ship_model(
    model: str | Path, *, name: str, aliases: Sequence[str] | None = None, about: str | None = None
) -> str:
    """Copy a model into rdlite's data folder and enter it in the table.

    Args:
        model: The .onnx file; its card `<stem>.md` must lie beside it, its curves
            `<stem>-curves.png` may. A file that is in the folder already stays where it is.
        name: What it is to be called; a model of this name is replaced.
        aliases: Its other names, which another model loses; None keeps those that the name has.
        about: One line about it; None keeps the one that the name has, or counts the classes.

    Returns:
        What to print: the row, and the aliases that other models lost.

    Raises:
        OptionError: A name cannot be used, or there is no card.
        ModelError: The file is no rdlite model.
    """
    source, table = Path(model), registry.table()
    old = table.get(name, Shipped((), "", ""))
    aliases = old.aliases if aliases is None else tuple(aliases)
    _check_names(name, aliases, table)
    session = Session(source)
    if not source.with_suffix(".md").is_file():
        raise OptionError(
            f"{source} has no card beside it; write {source.with_suffix('.md').name}, as "
            "`python -m train export` does"
        )
    about = about or old.about or f"{len(session.spec.names)} classes"
    _copy(source, registry.DATA / f"{name}.onnx")
    lost = _take_away(aliases, name, table)
    table[name] = Shipped(aliases, session.sha256, about)
    _write(table)
    return "\n".join([f"{' = '.join((name, *aliases))}: {about}", *lost])


def _take_away(aliases: Sequence[str], name: str, table: dict[str, Shipped]) -> list[str]:
    """Leave aliases to the model `name`; returns what to say of the others."""
    said = []
    for other, row in table.items():
        kept = tuple(alias for alias in row.aliases if alias not in aliases)
        if kept != row.aliases and other != name:
            table[other] = dataclasses.replace(row, aliases=kept)
            said.append(f"{other} is no longer called {', '.join(set(row.aliases) - set(kept))}")
    return said


def _check_names(name: str, aliases: Sequence[str], table: Mapping[str, Shipped]) -> None:
    for one in (name, *aliases):
        if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", one) or one.endswith(".onnx"):
            raise OptionError(
                f"a name has small letters, digits, . _ and -, and no .onnx at its end; got {one!r}"
            )
    for alias in aliases:
        if alias in table or alias == name:
            raise OptionError(f"alias {alias!r} is the full name of a model")
    for other, row in table.items():
        if name in row.aliases:
            raise OptionError(f"{name!r} is an alias of {other}; give a full name")


def _copy(source: Path, target: Path) -> None:
    """Copy the model, its card under its new name, and its curves."""
    if source.resolve() == target.resolve():
        return
    shutil.copyfile(source, target)
    card = source.with_suffix(".md").read_text(encoding="utf-8")
    card = card.replace(f"# Model card: {source.stem}\n", f"# Model card: {target.stem}\n")
    card = card.replace(source.stem + _CURVES, target.stem + _CURVES)
    target.with_suffix(".md").write_text(card, encoding="utf-8")
    curves = source.with_name(source.stem + _CURVES)
    if curves.exists():
        shutil.copyfile(curves, target.with_name(target.stem + _CURVES))
    else:  # of the model that was replaced
        target.with_name(target.stem + _CURVES).unlink(missing_ok=True)


def _write(table: Mapping[str, Shipped]) -> None:
    rows = {name: dataclasses.asdict(row) for name, row in table.items()}
    content = json.dumps(rows, indent=2, ensure_ascii=False) + "\n"
    (registry.DATA / registry.TABLE).write_text(content, encoding="utf-8")
