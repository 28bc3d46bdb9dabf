"""What `rdlite check` sees of the distributions that are installed."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final

import rdlite
from rdlite.cli.finding import Finding, origin, reinstall
from rdlite.cpu import cpu_name

if TYPE_CHECKING:
    from packaging.requirements import Requirement

_MODULES: Final = {"opencv-python": "cv2"}
"""Modules that are not called as their distribution."""

_EXTRAS: Final = {
    "demo": "`rdlite demo`",
    "eval": "`rdlite eval`",
    "parquet": "`--format parquet`",
    "ray": "`--engine ray`",
}
"""What the extras are for, those of the commands."""

_OPENCV: Final = "opencv{}-python{}"
_KERNELS: Final = "rdlite._core"
_AGAIN: Final = "pip install --force-reinstall --no-deps --only-binary :all:"
_LOAD: Final = """
import contextlib, importlib, sys
for name in sys.argv[1:]:
    print(name, flush=True)
    with contextlib.suppress(Exception):
        importlib.import_module(name)
"""


def machine() -> Iterator[Finding]:
    """Say what this machine and its Python are."""
    threads = "" if getattr(sys, "_is_gil_enabled", lambda: True)() else ", free-threaded"
    yield Finding("Python", "ok", f"{platform.python_version()}{threads}, {sys.executable}")
    yield Finding("machine", "ok", f"{platform.platform()}, {cpu_name()}")


def package() -> Iterator[Finding]:
    """Look whether the rdlite that runs is the one that is installed, with its requirements."""
    if importlib.util.find_spec("packaging") is None:  # reads them
        yield Finding("packaging", "bad", "is not installed", "pip install packaging")
    folder = Path(rdlite.__file__).parent
    try:
        distribution = metadata.distribution("rdlite")
    except metadata.PackageNotFoundError:
        mend = f'pip install -e "{folder.parent}"'
        yield Finding("rdlite", "note", f"is run from {folder} and not installed", mend)
        return
    hidden = _hidden("rdlite", distribution)
    if hidden:
        mend = f'rename {folder}, or run rdlite in another folder or as "python -P -m rdlite"'
        yield Finding("rdlite", "bad", f"{folder} hides the installed one, {hidden}", mend)
    else:
        yield Finding("rdlite", "ok", f"{distribution.version}, {folder}")


def loading() -> Iterator[Finding]:
    """Look whether native code ends Python as it is loaded, in a process of its own."""
    modules = [_MODULES.get(r.name, r.name) for r in _requirements("")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-P", "-c", _LOAD, *modules, _KERNELS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode == 0:
        return
    module = done.stdout.split()[-1]
    names = {module: name for name, module in _MODULES.items()}
    mend = reinstall() if module == _KERNELS else f"{_AGAIN} {names.get(module, module)}"
    yield Finding(module, "bad", f"ends Python when it is loaded ({_how(done.returncode)})", mend)


def libraries() -> Iterator[Finding]:
    """Look at each distribution that rdlite requires: there, once, new enough, importable."""
    owners = metadata.packages_distributions()
    for requirement in _requirements(""):
        module = _MODULES.get(requirement.name, requirement.name)
        yield _library(requirement, module, sorted(set(owners.get(module, []))))


def extras() -> Iterator[Finding]:
    """Look at what the commands need beyond that."""
    for extra, purpose in _EXTRAS.items():
        wanting = [r for r in _requirements(extra) if not _is_met(r)]
        names = " and ".join(requirement.name for requirement in wanting)
        mend = f"pip install {_quoted(*wanting)}"
        if wanting:
            yield Finding(f"extra {extra}", "note", f"{purpose} needs {names}", mend)
        else:
            yield Finding(f"extra {extra}", "ok", f"{purpose} has what it needs")


def _requirements(extra: str) -> list[Requirement]:
    """Return what pyproject.toml wants for an extra beyond the rest; for the rest if empty."""
    from packaging.requirements import Requirement

    try:
        found = [Requirement(text) for text in metadata.requires("rdlite") or ()]
    except metadata.PackageNotFoundError:
        return []
    base = [r for r in found if r.marker is None or r.marker.evaluate({"extra": ""})]
    if not extra:
        return base
    return [r for r in found if r not in base and r.marker and r.marker.evaluate({"extra": extra})]


def _is_met(requirement: Requirement) -> bool:
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return False
    return requirement.specifier.contains(version, prereleases=True)


def _quoted(*requirements: Requirement) -> str:
    return " ".join(f'"{r.name}{r.specifier}"' if r.specifier else r.name for r in requirements)


def _library(requirement: Requirement, module: str, names: list[str]) -> Finding:
    """Look at one; `names` are the distributions whose files include the module."""
    what = requirement.name
    if not names:
        if importlib.util.find_spec(module):
            detail = "is there, but pip has no record of it: its version is not known"
            return Finding(what, "note", detail, f"pip install {_quoted(requirement)}")
        return Finding(what, "bad", "is not installed", f"pip install {_quoted(requirement)}")
    detail = " and ".join(f"{name} {metadata.version(name)}" for name in names)
    detail = detail.removeprefix(f"{what} ") if names == [what] else detail
    if len(names) > 1:
        mend = f"pip uninstall -y {' '.join(names)} && pip install {_preferred(what, names)}"
        return Finding(what, "bad", f"{detail} overwrite each other's files", mend)
    distribution = metadata.distribution(names[0])
    if not requirement.specifier.contains(distribution.version, prereleases=True):
        mend = f'pip install --upgrade "{names[0]}{requirement.specifier}"'
        return Finding(what, "bad", f"{detail}, needed is {requirement.specifier}", mend)
    if _hidden(module, distribution):
        folder = _folder(module)
        mend = f"rename {folder}, or run rdlite in another folder"
        return Finding(what, "bad", f"{folder} hides the installed {detail}", mend)
    try:
        importlib.import_module(module)
    except Exception as error:  # a broken library may raise anything
        text = " ".join(str(error).split())
        return Finding(what, "bad", f"{detail}: {text}", _mend_import(requirement, names[0], text))
    if what == "onnxruntime" and names != ["onnxruntime"]:
        mend = f"pip uninstall -y {names[0]} && pip install {_quoted(requirement)}"
        return Finding(what, "note", f"{detail} is in its place; only the CPU is used", mend)
    return Finding(what, "ok", detail)


def _how(code: int) -> str:
    try:
        return signal.Signals(-code).name
    except ValueError:  # Windows has other codes
        return f"exit code {code}"


def _preferred(what: str, names: list[str]) -> str:
    """Return which of several distributions of one module to keep."""
    if what != "opencv-python":
        return what
    contrib = "-contrib" if any("contrib" in name for name in names) else ""
    return _OPENCV.format(contrib, "-headless" if all("headless" in n for n in names) else "")


def _mend_import(requirement: Requirement, name: str, error: str) -> str:
    if name == "opencv-python" and "cannot open shared object file" in error:
        # a server without a desktop has no libGL
        return f"pip uninstall -y {name} && pip install opencv-python-headless"
    if requirement.name != "numpy" and ("numpy" in error.lower() or "_ARRAY_API" in error):
        # built for another major version of NumPy
        return f"pip install --upgrade numpy {name}"
    wanted = f'"{name}{requirement.specifier}"'
    return f"{_AGAIN} {wanted}"


def _hidden(module: str, distribution: metadata.Distribution) -> Path | None:
    """Return where a module is installed, if another is imported in its place."""
    if origin(distribution).get("dir_info", {}).get("editable"):
        return None
    installed = Path(str(distribution.locate_file(module)))
    found = _folder(module)
    return installed if found and found.resolve() != installed.resolve() else None


def _folder(module: str) -> Path | None:
    spec = importlib.util.find_spec(module)
    return Path(spec.origin).parent if spec and spec.origin else None
