"""`rdlite completion`: scripts with which the TAB key completes commands, options and models."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any, Final

from rdlite.cli.exits import OK
from rdlite.cli.parser import make_parser

_NAMES: Final = "rdlite models --names 2>/dev/null"


def _model_or(kind: str, ending: str) -> dict[str, Any]:
    """Return how each shell completes a model: by its name, which `rdlite models` knows, or a file.

    Args:
        kind: Begins the names of the shells' functions.
        ending: What the files end in; "" for all.
    """
    return {
        "bash": f"_{kind}_file",  # "_file" tells shtab to have bash quote what it prints
        "zsh": f"_{kind}",
        "fish": f"({_NAMES}; __fish_complete_suffix '{ending}')",
        "tcsh": f"f:*{ending}",
        "powershell": f"_{kind}",
        "preamble": {
            "bash": f"""
_{kind}_file() {{
  compgen -W "$({_NAMES})" -- "$1"
  compgen -f -X '!*{ending}' -- "$1"
  compgen -d -- "$1"
}}
""",
            "zsh": f"""
_{kind}() {{
  local -a names=(${{(f)"$({_NAMES})"}})
  _alternative 'names:model:compadd -a names' "files:file:_files -g '*{ending}'"
}}
""",
            "powershell": f"""
function _{kind} {{
  param([string]$WordToComplete)
  rdlite models --names | Where-Object {{ $_ -like "$WordToComplete*" }}
  _shtab_powershell_compgen_files $WordToComplete
}}
""",
        },
    }


_MODEL: Final = _model_or("rdlite_model", ".onnx")
_MODEL_OR_FILE: Final = _model_or("rdlite_model_or", "")


def completion(*, shell: str) -> int:
    """Print the script of a shell; see `rdlite completion --help`."""
    import shtab

    parser = make_parser()
    for action in _actions(parser):
        if isinstance(action, argparse._SubParsersAction):
            action.help = None  # it is suppressed, and shtab would leave the commands out
        elif kind := _kind(action):
            action.complete = kind
    script = shtab.complete(parser, shell)
    if shell == "zsh":  # shtab has it complete the first of several arguments, not the others
        script = script.replace('"(*):', '"*:')
    print(script)
    return OK


def _actions(parser: argparse.ArgumentParser) -> Iterator[Any]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)


def _kind(action: argparse.Action) -> Any:
    """Return what completes the value of an argument, as shtab calls it; nothing if that is ""."""
    if action.dest in ("model", "models"):
        return _MODEL
    if str(action.metavar).startswith("MODEL|"):
        return _MODEL_OR_FILE
    is_path = action.type is None and action.choices is None and action.nargs != 0
    return "file" if is_path and action.dest not in ("codec", "preset", "ray_address") else ""
