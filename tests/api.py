"""What users may rely on, as text: public names with their signatures, and the command line.

`python -m tests.api > tests/api.txt` acknowledges a change; docs/stability.md says what one means.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from rdlite.cli.describe import describe as describe_command_line
from rdlite.cli.parser import GROUPS, make_parser

MODULES = (
    "rdlite",
    "rdlite.annotate",
    "rdlite.bench",
    "rdlite.compare",
    "rdlite.convert",
    "rdlite.evaluate",
    "rdlite.image",
    "rdlite.modelfile",
    "rdlite.notebook",
    "rdlite.registry",
    "rdlite.report",
    "rdlite.resultfile",
    "rdlite.results",
    "rdlite.sinks",
    "rdlite.video",
    "rdlite.video.summary",
)
"""The public modules; of each the names in its `__all__` are public, and no others."""

_OPERATORS = ("__call__", "__enter__", "__getitem__", "__iter__", "__len__")


def public() -> Iterator[tuple[str, Any]]:
    """Yield every public name with what it names; one that two modules have, once."""
    seen: set[int] = set()
    for module in map(importlib.import_module, MODULES):
        for name in sorted(module.__all__):
            value = getattr(module, name)
            if not (inspect.isclass(value) or inspect.isfunction(value)) or id(value) not in seen:
                seen.add(id(value))
                yield f"{module.__name__}.{name}", value


def members(cls: type) -> Iterator[tuple[str, Any]]:
    """Yield the public methods and properties of a class, without those of public base classes."""
    names = {name for base in cls.__mro__ if _is_ours(base) for name in vars(base)}
    classes = {value for _, value in public() if inspect.isclass(value)}
    names -= {name for base in cls.__mro__[1:] if base in classes for name in dir(base)}
    for name in sorted(names):
        value = inspect.getattr_static(cls, name)
        method = isinstance(value, (classmethod, staticmethod, property, cached_property))
        if method or inspect.isfunction(value):
            if not name.startswith("_") or name in _OPERATORS:
                yield name, value


def attributes(cls: type) -> Iterator[str]:
    """Yield the attributes that only the text of a class names; fields are in its signature."""
    section = (inspect.getdoc(cls) or "").partition("\nAttributes:\n")[2].partition("\n\n")[0]
    known = {*(name for name, _ in members(cls)), *getattr(cls, "__match_args__", ())}
    named = re.findall(r"^    (\w+): ", section, re.MULTILINE)
    yield from (name for name in named if name not in known)


def describe() -> Iterator[str]:
    """Yield the lines of the text."""
    for name, value in public():
        if inspect.isclass(value):
            yield _class(name, value)
            yield from (_member(f"{name}.{one}", member) for one, member in members(value))
            yield from (f"{name}.{one}" for one in attributes(value))
        elif inspect.isfunction(value):
            yield f"{name}{_signature(value)}"
        else:
            yield name
    yield from _options()


def _is_ours(cls: type) -> bool:
    return cls.__module__.partition(".")[0] == "rdlite"


def _class(name: str, cls: type) -> str:
    if issubclass(cls, Exception):
        return f"class {name}({', '.join(base.__name__ for base in cls.__bases__)})"
    return f"class {name}{_signature(cls).partition(' -> ')[0]}"


def _member(name: str, member: Any) -> str:
    if isinstance(member, property):
        return f"{name} -> {inspect.signature(member.fget).return_annotation}"
    if isinstance(member, cached_property):
        return f"{name} -> {inspect.signature(member.func).return_annotation}"
    return f"{name}{_signature(getattr(member, '__func__', member))}"


def _signature(call: Any) -> str:
    """Return a signature without `self`, the same whichever Python prints it."""
    signature = inspect.signature(call)
    parts, star = [], False
    for one in signature.parameters.values():
        if one.name in ("self", "cls", "_cls"):
            continue
        if one.kind is one.KEYWORD_ONLY and not star:
            parts.append("*")
        star |= one.kind in (one.KEYWORD_ONLY, one.VAR_POSITIONAL)
        parts.append(_parameter(one))
    result = "" if signature.return_annotation is signature.empty else signature.return_annotation
    return f"({', '.join(parts)})" + (f" -> {result}" if result else "")


def _parameter(one: inspect.Parameter) -> str:
    stars = {one.VAR_POSITIONAL: "*", one.VAR_KEYWORD: "**"}.get(one.kind, "")
    kind = "" if one.annotation is one.empty else f": {_name(one.annotation)}"
    default = "" if one.default is one.empty else f" = {_default(one.default)}"
    return f"{stars}{one.name}{kind}{default}"


def _name(kind: Any) -> str:
    # those of a named tuple are no texts
    return str(getattr(kind, "__forward_arg__", kind))


def _default(value: Any) -> str:
    return "<factory>" if "factory" in repr(value) else repr(value)


def _options() -> Iterator[str]:
    content = describe_command_line(make_parser(), GROUPS)
    for option in content["options"]:
        yield f"rdlite {_option(option)}"
    for command in content["commands"]:
        yield from (f"rdlite {command['name']} {_option(one)}" for one in command["options"])
    yield from (f"exit code {code}: {meaning}" for code, meaning in content["exit_codes"].items())


def _option(one: Mapping[str, Any]) -> str:
    value = f"{{{','.join(one['choices'])}}}" if one["choices"] else one["value"]
    default = None if one["default"] is None else f"= {one['default']!r}"
    must = "required" if one["required"] and one["names"] else None
    parts = ("|".join(one["names"]), value, one["count"] or None, default, must)
    return " ".join(str(part) for part in parts if part)


if __name__ == "__main__":
    print("\n".join(describe()))
