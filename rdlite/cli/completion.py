"""`rdlite completion`: scripts with which the TAB key completes commands, options and models."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any, Final

from rdlite.cli.exits import OK
from rdlite.cli.parser import make_parser

_NAMES: Final = "rdlite models --names 2>/dev/null"
_MODEL: Final = {
    "bash": "_rdlite_model_file",  # "_file" tells shtab to have bash quote what it prints
    "zsh": "_rdlite_model",
    "fish": f"({_NAMES}; __fish_complete_suffix .onnx)",
    "tcsh": "f:*.onnx",
    "powershell": "_rdlite_model",
    "preamble": {
        "bash": f"""
_rdlite_model_file() {{
  compgen -W "$({_NAMES})" -- "$1"
  compgen -f -X '!*.onnx' -- "$1"
  compgen -d -- "$1"
}}
""",
        "zsh": f"""
_rdlite_model() {{
  local -a names=(${{(f)"$({_NAMES})"}})
  _alternative 'names:model:compadd -a names' "files:model file:_files -g '*.onnx'"
}}
""",
        "powershell": """
function _rdlite_model {
  param([string]$WordToComplete)
  rdlite models --names | Where-Object { $_ -like "$WordToComplete*" }
  _shtab_powershell_compgen_files $WordToComplete
}
""",
    },
}
"""How each shell completes a model: by its name, which `rdlite models` knows, or as a file."""


def completion(*, shell: str) -> int:
    """Print the script of a shell; see `rdlite completion --help`."""
    import shtab

    parser = make_parser()
    for action in _actions(parser):
        if isinstance(action, argparse._SubParsersAction):
            action.help = None  # it is suppressed, and shtab would leave the commands out
        elif kind := _kind(action):
            action.complete = kind
    print(shtab.complete(parser, shell))
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
    is_path = action.type is None and action.choices is None and action.nargs != 0
    return "file" if is_path and action.dest not in ("codec", "preset", "ray_address") else ""
