"""Models by name: those that come with rdlite, the search path, and what lies on it.

A model called NAME is the file NAME.onnx in the first of `folders` that has one. Nothing is ever
downloaded: a model is added by putting its file into one of the folders.
"""

from __future__ import annotations

import difflib
import json
import os
import reprlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rdlite.errors import ModelError

__all__ = ["find"]

DEFAULT: Final = "default"
"""Name of the model that is used where none is named."""

VARIABLE: Final = "RDLITE_MODELS"
"""Environment variable with more folders, separated as those of PATH."""

DATA: Final = Path(__file__).with_name("data")
"""The package's own folder, first on the search path."""

TABLE: Final = "models.json"
"""The table of the models that come with rdlite, in `DATA`; `python -m train ship` writes it."""


@dataclass(frozen=True, slots=True)
class Shipped:
    """A row of the table.

    Attributes:
        aliases: Other names of the model.
        sha256: Hexadecimal SHA-256 of its file.
        about: What it is, in one line.
    """

    aliases: tuple[str, ...]
    sha256: str
    about: str


@dataclass(frozen=True, slots=True)
class Model:
    """A model file on the search path that its name opens.

    Attributes:
        name: Its name.
        path: Its file, absolute.
        shipped: Its row of the table; None for a model of the user's own.
    """

    name: str
    path: Path
    shipped: Shipped | None

    @property
    def aliases(self) -> tuple[str, ...]:
        """Its other names."""
        return self.shipped.aliases if self.shipped else ()


def find(model: str | os.PathLike[str]) -> Path:
    """Return the file that a name or path means.

    A path is a `Path`, or a string that has a directory separator in it or ends in ".onnx"; it is
    returned as it is, whether the file exists or not. Any other string is a name, whatever files
    or folders the current directory has: "int8" is a name, "./int8" and "int8.onnx" are paths.

    Args:
        model: The name, an alias or the path.

    Raises:
        ModelError: No model has this name; the text says which have one, where it was looked for,
            and how to add it. Or what was given is neither text nor a path.
    """
    if not isinstance(model, (str, os.PathLike)):
        raise ModelError(
            f"model must be a name or a path, as text or pathlib.Path, got {reprlib.repr(model)}"
        )
    if _is_path(model):
        return Path(model)
    name = _full_name(os.fspath(model))
    for folder in folders():
        path = folder / f"{name}.onnx"
        if os.path.lexists(path):  # a broken link is an error of its own, as any file is
            return path
    raise ModelError(_unknown(os.fspath(model), name))


def shipped(model: str | os.PathLike[str]) -> Shipped | None:
    """Return the row of the table that a name or alias means; None for a path or another name."""
    return None if _is_path(model) else table().get(_full_name(os.fspath(model)))


def check(model: str | os.PathLike[str], path: Path, sha256: str) -> None:
    """Refuse another file under the name of a model that comes with rdlite.

    Args:
        model: What was asked for; a path may hold anything.
        path: The file that `find` gave for it.
        sha256: Hexadecimal SHA-256 of what was read from the file.

    Raises:
        ModelError: The table has another sum for this name.
    """
    row = shipped(model)
    if row is not None and row.sha256 != sha256:
        raise ModelError(
            f"{path}: is not the model {os.fspath(model)!r} of this release (SHA-256 "
            f"{sha256[:12]}..., wanted {row.sha256[:12]}...): it is damaged or another file; "
            "install rdlite again, or give its path to use it as it is"
        )


def folders() -> list[Path]:
    """Return the search path: the package's folder, those of `VARIABLE`, the user's; absolute.

    A folder that is named twice, also by way of a link, is there once, as it was spelled first.
    """
    named = os.environ.get(VARIABLE, "").split(os.pathsep)
    own = (Path(folder).absolute() for folder in named if folder)
    found: dict[str, Path] = {}
    for folder in (DATA, *own, *_user_folder()):
        found.setdefault(os.path.realpath(folder), folder)
    return list(found.values())


def present() -> list[Model]:
    """Return the models that can be opened by name, in the order of the search path."""
    return [model for model, out_of_reach in _files() if not out_of_reach]


def missing() -> list[str]:
    """Return the names of models that come with rdlite and whose files are nowhere."""
    return sorted(table().keys() - {model.name for model in present()})


def hidden() -> list[Path]:
    """Return the model files on the search path whose name is taken, an alias or a path."""
    return [model.path for model, out_of_reach in _files() if out_of_reach]


def remark(folder: Path) -> str:
    """Return why a folder of the search path cannot be listed, in brackets, or an empty text."""
    try:
        os.scandir(folder).close()
    except OSError as error:
        return f" ({error.strerror})"
    return ""


def table() -> dict[str, Shipped]:
    """Return the models that come with rdlite by their full names; their files may be missing.

    Raises:
        ModelError: The table cannot be read.
    """
    path = DATA / TABLE
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return {
            name: Shipped(tuple(row["aliases"]), row["sha256"], row["about"])
            for name, row in rows.items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(
            f"{path}: is not the table of models ({error!r}); install rdlite again"
        ) from error


def _is_path(model: str | os.PathLike[str]) -> bool:
    if not isinstance(model, str):
        return True
    return os.path.basename(model) != model or model.lower().endswith(".onnx")


def _full_name(name: str) -> str:
    return next((full for full, row in table().items() if name in row.aliases), name)


def _files() -> Iterator[tuple[Model, bool]]:
    """Yield each model file on the search path, and whether its name does not lead to it."""
    rows = table()
    taken = {alias for row in rows.values() for alias in row.aliases}
    for folder in folders():
        for name in sorted(_names(folder)):
            model = Model(name, folder / f"{name}.onnx", rows.get(name))
            yield model, name in taken or _is_path(name)
            taken.add(name)


def _names(folder: Path) -> list[str]:
    """Return the names of the model files in a folder; none where `remark` has one."""
    try:
        with os.scandir(folder) as entries:
            files = [entry.name for entry in entries if entry.name.endswith(".onnx")]
    except OSError:
        return []
    return [file.removesuffix(".onnx") for file in files]


def _unknown(given: str, name: str) -> str:
    file = f"{name}.onnx"
    names = [" = ".join(map(repr, (model.name, *model.aliases))) for model in present()]
    places = [f"{place}{remark(place)}" for place in folders()]
    if name in table():
        what = f"the file of model {given!r} is missing"
    else:
        what = f"no model is called {given!r}{_near(given)}"
    here = f", here {f'./{given}'!r}" if given and os.path.lexists(given) else ""
    return (
        f"{what}; there are {', '.join(names) or 'none'}; looked for {file!r} in "
        f"{', '.join(places)}; put the file into one of these, or give a path, which has a "
        f"{os.sep} or ends in .onnx{here}"
    )


def _near(given: str) -> str:
    known = [name for model in present() for name in (model.name, *model.aliases)]
    near = difflib.get_close_matches(given.lower(), known, n=2, cutoff=0.75)
    return f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""


def _user_folder() -> Iterator[Path]:
    """Yield the folder for a user's models, by the conventions of the system.

    Linux: XDG base directory specification; elsewhere Apple's and Microsoft's folders for the data
    of applications. Without a home directory there is none.
    """
    home = os.path.expanduser("~")
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or os.path.join(home, "AppData", "Local")
    elif sys.platform == "darwin":
        base = os.path.join(home, "Library", "Application Support")
    else:
        base = os.environ.get("XDG_DATA_HOME", "")
        # the specification wants relative ones ignored
        base = base if os.path.isabs(base) else os.path.join(home, ".local", "share")
    if os.path.isabs(base):
        yield Path(base, "rdlite", "models")
