"""Recipes: settings of a run as data, by name or from a TOML file."""

from __future__ import annotations

import dataclasses
import difflib
import json
import tomllib
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rdlite.errors import OptionError
from rdlite.storage.regular import read_regular
from train.config import RunConfig, TrainConfig

BUILT_IN = Path(__file__).with_name("recipes.toml")
TABLE3 = tuple("abcdefghijklmno")
"""Rows of the paper's Table 3, which are recipes of the same names."""
_MAX_BYTES = 1 << 20
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}

Config = TypeVar("Config", bound=RunConfig)


def field_types(config: type = TrainConfig) -> dict[str, type]:
    """The type of every field of a configuration: bool, int, float or str; `| None` left out."""
    hints = typing.get_type_hints(config)
    return {
        field.name: next(
            kind
            for kind in (typing.get_args(hints[field.name]) or (hints[field.name],))
            if kind is not type(None)
        )
        for field in dataclasses.fields(config)
    }


def built_in() -> dict[str, dict[str, Any]]:
    """The named recipes as they are written, with `about` and `extends`."""
    return _parse(BUILT_IN)


def load_recipe(recipe: str) -> dict[str, Any]:
    """The settings of one recipe, those of the recipes that it extends included.

    Args:
        recipe: A name, or the path of a .toml file, relative to the current folder; so are paths
            in the file.

    Raises:
        OptionError: There is no such recipe or file, or it holds a key or value of no use.
    """
    return _load(recipe, ())


def merge(
    recipes: Iterable[str],
    given: Mapping[str, Any] | None = None,
    *,
    saved: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], dict[str, str]]:
    """What recipes and options say together; a later one goes before an earlier one.

    Args:
        recipes: Names or .toml files.
        given: Options of the command line, which go before every recipe.
        saved: Settings that a run began with, which every recipe goes before.

    Returns:
        Only the settings that were made, and for those of a recipe, which one.

    Raises:
        OptionError: As `load_recipe`.
    """
    settings = dict(saved or {})
    origin: dict[str, str] = {}
    for source in recipes:
        layer = load_recipe(source)
        _lay_over(settings, layer)
        origin |= dict.fromkeys(layer, source)
    given = given or {}
    _lay_over(settings, given)
    return settings, {key: origin[key] for key in settings.keys() & origin if key not in given}


def make_config(
    recipes: Iterable[str],
    given: Mapping[str, Any] | None = None,
    *,
    saved: Mapping[str, Any] | None = None,
    kind: type[Config] = TrainConfig,
) -> Config:
    """The settings of a run: defaults, saved ones, then recipes in their order, then options.

    Args:
        recipes: Names or .toml files.
        given: Options of the command line.
        saved: Settings that the run began with, when it goes on.
        kind: Which settings the run has.

    Raises:
        OptionError: A recipe cannot be used, a value is out of range, or `data`, `images` or `out`
            is missing; the text names the recipe that said it.
    """
    settings, origin = merge(recipes, given, saved=saved)
    for field in dataclasses.fields(kind):
        if field.default is dataclasses.MISSING and field.name not in settings:
            raise OptionError(f"{field.name} is missing; give --{field.name}")
    try:
        return kind(**settings)
    except OptionError as error:
        key = str(error).split()[0]  # texts of RunConfig begin with the field's name
        if key not in origin:
            raise
        raise OptionError(f"{origin[key]}: {error}") from error


def _lay_over(settings: dict[str, Any], layer: Mapping[str, Any]) -> None:
    """Let a layer go before the settings so far, in place."""
    if "epochs" in layer and "minutes" not in layer:
        settings.pop("minutes", None)  # it would go before the epochs, which came later
    settings.update(layer)


def _load(recipe: str, extending: tuple[str, ...]) -> dict[str, Any]:
    if recipe in extending:
        raise OptionError(
            f"recipe {recipe} extends itself: {' > '.join((*extending, recipe))}; "
            "take one `extends` out"
        )
    written = dict(_read(recipe, extending))
    extends = written.pop("extends", ())
    written.pop("about", None)
    settings: dict[str, Any] = {}
    for parent in (extends,) if isinstance(extends, str) else extends:
        _lay_over(settings, _load(parent, (*extending, recipe)))
    _lay_over(settings, {key: _checked(recipe, key, value) for key, value in written.items()})
    return settings


def _read(recipe: str, extending: Sequence[str]) -> dict[str, Any]:
    """A recipe as it is written; `extends`, if any, is a string or a list of strings."""
    if Path(recipe).suffix == ".toml":
        written = _parse(Path(recipe))
    else:
        recipes = built_in()
        if recipe not in recipes:
            where = f"{extending[-1]}: extends: " if extending else ""
            raise OptionError(
                f"{where}there is no recipe {recipe!r}, and it names no .toml file; "
                f"{_nearest(recipe, recipes)}"
            )
        written = recipes[recipe]
    extends = written.get("extends", [])
    if not isinstance(extends, str) and not (
        isinstance(extends, list) and all(isinstance(name, str) for name in extends)
    ):
        raise OptionError(f"{recipe}: extends must be a recipe or a list of them, got {extends!r}")
    return written


def _parse(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_regular(path, max_bytes=_MAX_BYTES, error=OptionError).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise OptionError(f"{path}: is no TOML ({error}); write lines such as lr = 0.01") from error


def _checked(source: str, key: str, value: object) -> object:
    types = field_types()
    if key not in types:
        raise OptionError(
            f"{source}: there is no setting {key!r}; {_nearest(key, ('extends', 'about', *types))}"
        )
    wanted = types[key]
    if wanted is float and type(value) is int:
        return float(value)
    if type(value) is not wanted:
        raise OptionError(f"{source}: {key} must be {_KINDS[wanted]}, got {value!r}")
    return value


def _nearest(word: str, known: Iterable[str]) -> str:
    """Which of the known words were meant: the nearest ones, or all where none is near."""
    known = list(known)
    near = difflib.get_close_matches(word, known, cutoff=0.75)
    return f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(known)}"


def list_recipes() -> str:
    """The named recipes as lines of text: name, what it is for, its own settings."""
    lines = []
    for name, written in built_in().items():
        own = [f"{key}={json.dumps(value)}" for key, value in written.items() if key != "about"]
        lines += [f"{name:10}{written['about']}", f"{'':10}  {' '.join(own)}"]
    return "\n".join(lines)
