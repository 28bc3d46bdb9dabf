"""Parts of pages that are made from what they describe: the parser of `rdlite` and the schemas."""

from __future__ import annotations

import argparse
import importlib
import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import rdlite
from rdlite.cli.parser import make_parser

SCHEMAS: Final = Path(__file__).parent / "schemas"
_MARKER: Final = re.compile(r"<!-- (options|fields|names)(?: of ([\w.-]+))? -->")
_EXAMPLES: Final = re.compile(r"examples?:\n((?: .*\n?)+)")
_STATED: Final = re.compile(r"\s*\(?default: (?P<value>(?:[^()]|\([^()]*\))*)\)?$")


def fill(page: str) -> str:
    """Return a page with what is made from code and schemas put in.

    That is the options of every command in place of `<!-- options -->`, the keys of a schema in
    place of `<!-- fields of NAME -->`, and the public names of a module, those of `rdlite` left
    out, in place of `<!-- names of MODULE -->`.
    """
    makers = {"options": lambda _: options(), "fields": fields, "names": names}
    return _MARKER.sub(lambda found: makers[found[1]](found[2]), page)


def options() -> str:
    """Return a section for each command, with a table for each group of its options."""
    return "\n".join(line for name, parser in commands() for line in _section(name, parser))


def commands() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield the name and the parser of every command."""
    # argparse shows what a parser holds only through names with an underscore.
    for action in make_parser()._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.items()


def _section(name: str, command: argparse.ArgumentParser) -> Iterator[str]:
    yield from (f"## rdlite {name}", "", _sentence(command.description or ""), "")
    if examples := _EXAMPLES.search(command.epilog or ""):
        yield from ("```sh", textwrap.dedent(examples[1]).rstrip(), "```", "")
    for group in command._action_groups:
        rows = [_row(command, action) for action in group._group_actions if _shown(action)]
        if rows:
            yield from (f"| {group.title or ''} | | default |", "|---|---|---|", *rows, "")


def _shown(action: argparse.Action) -> bool:
    return action.help != argparse.SUPPRESS and not isinstance(action, argparse._HelpAction)


def _row(command: argparse.ArgumentParser, action: argparse.Action) -> str:
    text = command._get_formatter()._expand_help(action)
    stated = _STATED.search(text)
    default = stated["value"] if stated else _default(action)
    return f"| {_name(action)} | {_cell(_STATED.sub('', text))} | {_cell(default)} |"


def _name(action: argparse.Action) -> str:
    """Return how an option is typed: its names, and what goes behind them."""
    if not action.option_strings:
        return f"`{action.metavar or action.dest}`"
    value = ", ".join(map(str, action.choices or [action.metavar or action.dest.upper()]))
    names = ", ".join(f"`{name}`" for name in action.option_strings)
    return names if action.nargs == 0 else f"{names} *{value}*"


def _default(action: argparse.Action) -> str:
    if action.required:
        return "must be given"
    if action.nargs == 0:
        return "off"
    return "none" if action.default is None else str(action.default)


def fields(name: str) -> str:
    """Return the table of a schema's fields, those of what it holds included."""
    schema = json.loads((SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8"))
    return "\n".join(["| key | value | meaning |", "|---|---|---|", *_fields(schema)])


def _fields(schema: Mapping[str, Any], inside: str = "") -> Iterator[str]:
    required = schema.get("required", ())
    for key, field in schema.get("properties", {}).items():
        optional = "" if key in required else ", optional"
        meaning = _cell(field.get("description", ""))
        yield f"| `{inside}{key}` | {_value(field)}{optional} | {meaning} |"
        yield from _fields(field, f"{inside}{key}.")
        yield from _fields(field.get("items", {}), f"{inside}{key}[].")


def _value(field: Mapping[str, Any]) -> str:
    if "const" in field:
        return f"{field['const']}"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    kinds = field["type"] if isinstance(field["type"], list) else [field["type"]]
    return " or ".join(kinds)


def names(module: str) -> str:
    """Return what makes mkdocstrings show the public names of a module."""
    shown = [name for name in importlib.import_module(module).__all__ if name not in rdlite.__all__]
    return "\n".join(
        f"::: {module}.{name}\n    options:\n      heading_level: 3\n" for name in shown
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?")) else ".")


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
