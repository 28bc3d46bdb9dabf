"""The fields of a configuration as options of the command line."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from rdlite.errors import OptionError
from train.config import RunConfig
from train.recipes import field_types


def add_fields(
    command: argparse.ArgumentParser,
    config: type[RunConfig],
    *,
    leave_out: Sequence[str] = (),
    required: str = "required",
) -> None:
    """Add one option for every field, with its type; what is parsed holds only those given.

    Args:
        command: Where to add them.
        config: The configuration.
        leave_out: Fields that get none.
        required: What to say of a field without a default; a saved run may hold it.
    """
    types, explained = field_types(config), _field_docs(config)
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    for name in sorted(explained, key=lambda name: defaults[name] is not dataclasses.MISSING):
        if name in leave_out:
            continue
        known = defaults[name] is not dataclasses.MISSING
        note = f"default: {defaults[name]}" if known else required
        command.add_argument(
            f"--{name.replace('_', '-')}",
            default=argparse.SUPPRESS,
            **_SWITCH if types[name] is bool else {"type": types[name]},
            help=f"{explained[name]} ({note})".replace("%", "%%"),
        )


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise OptionError(f"wanted true or false, got {text!r}")
    return text.lower() == "true"


_SWITCH: dict[str, Any] = {"type": _boolean, "nargs": "?", "const": True}
"""`--giou`, `--giou true` and `--giou false` are all understood."""


def _field_docs(config: type) -> dict[str, str]:
    """The strings under the fields of a configuration, by field; inherited ones come last."""
    if config is object:
        return {}
    (definition,) = ast.parse(inspect.getsource(config)).body
    assert isinstance(definition, ast.ClassDef) and config.__base__ is not None
    own = {
        field.target.id: " ".join(text.value.value.split())
        for field, text in pairwise(definition.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
    }
    return own | _field_docs(config.__base__) | own
