"""`rdlite --help-json`: the command line for programs, such as those that wrap it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

import rdlite
from rdlite.cli.exits import MEANINGS


def describe(parser: argparse.ArgumentParser, groups: Mapping[str, Any]) -> dict[str, Any]:
    """Return all commands and options as JSON values.

    Args:
        parser: What `make_parser` returned.
        groups: Its `GROUPS`.

    Returns:
        `{"version", "exit_codes", "options", "commands"}`. Each command is `{"name", "group",
        "about", "examples", "options"}`, each option `{"names", "value", "count", "choices",
        "default", "required", "help"}`: `names` is empty where the value stands alone, `value` is
        None for a switch, and `count` is argparse's `nargs`.
    """
    # argparse shows what a parser holds only through names with an underscore.
    (action,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return {
        "version": rdlite.__version__,
        "exit_codes": {str(code): meaning for code, meaning in MEANINGS.items()},
        "options": list(_options(parser)),
        "commands": [
            {
                "name": name,
                "group": title,
                "about": action.choices[name].description,
                "examples": _examples(action.choices[name].epilog or ""),
                "options": list(_options(action.choices[name])),
            }
            for title, names in groups.items()
            for name in names
        ],
    }


def _examples(epilog: str) -> list[str]:
    block = epilog.partition("\n\n")[0]
    return [line.strip() for line in block.splitlines()[1:]]


def _options(parser: argparse.ArgumentParser) -> Iterator[dict[str, Any]]:
    for action in parser._actions:
        if action.dest == "help" or isinstance(action, argparse._SubParsersAction):
            continue
        switch = action.nargs == 0
        yield {
            "names": list(action.option_strings),
            "value": None if switch else action.metavar or action.dest.upper(),
            "count": action.nargs,
            "choices": None if action.choices is None else list(action.choices),
            "default": None if switch or action.default == argparse.SUPPRESS else action.default,
            "required": action.required,
            "help": parser._get_formatter()._expand_help(action),
        }
