"""Build the documentation site: `python docs/build.py` writes build/site, and fails on a warning.

Pages are the Markdown files of docs/ and some that lie elsewhere in the repository, where people
read them too. All are put together in build/docs, those of docs/ at its root and the others at
their paths in the repository, so that a link that works in the repository works on the site.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
DOCS: Final = ROOT / "docs"
STAGED: Final = ROOT / "build" / "docs"
SITE: Final = ROOT / "build" / "site"
ELSEWHERE: Final = (
    "[A-Z]*.md",
    "LICENSE",
    "benchmarks/*.md",
    "benchmarks/gate-record.json",
    "benchmarks/*.png",
    "benchmarks/table/*.md",
    "benchmarks/table/*.png",
    "examples/*.ipynb",
    "examples/*.md",
    "examples/*.py",
    "rdlite/data/*.md",
    "rdlite/data/*.png",
    "train/README.md",
)
_KINDS: Final = (".css", ".json", ".md", ".png", ".svg")
_FETCHED: Final = re.compile(
    r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=\"?(https?://[^\s\">]+)"
)


def stage(target: Path) -> None:
    """Put all pages, pictures and schemas of the site into a folder, which is made anew."""
    shutil.rmtree(target, ignore_errors=True)
    reference = _reference()
    for source, place in _files():
        copy, own = target / place, source.is_relative_to(DOCS)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix == ".md":
            text = _relink(source.read_text(encoding="utf-8"), own=own)
            copy.write_text(reference.fill(text) if own else text, encoding="utf-8")
        else:
            shutil.copy(source, copy)


def _files() -> Iterator[tuple[Path, Path]]:
    """Yield each file and its place on the site; index.md stands for the README."""
    for path in DOCS.rglob("*"):
        if path.suffix in _KINDS:
            yield path, path.relative_to(DOCS)
    for pattern in ELSEWHERE:
        for path in ROOT.glob(pattern):
            if path != ROOT / "README.md":
                yield path, path.relative_to(ROOT)


def _relink(text: str, *, own: bool) -> str:
    """Turn links between docs/ and the rest of the repository into those of the site."""
    if own:
        return re.sub(r"(\]\(|src=\"|href=\")\.\./", r"\1", text)
    return re.sub(r"(\]\((?:\.\./)*)docs/", r"\1", text)


def _reference() -> ModuleType:
    # docs/ is no package, and another project's may be installed under that name.
    spec = importlib.util.spec_from_file_location("reference", DOCS / "reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def faults_of_menu(staged: Path) -> list[str]:
    """Return a sentence for each page that the menu names in vain or leaves out."""
    config = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))
    named = set(_pages(config["project"]["nav"]))
    there = {path.relative_to(staged).as_posix() for path in staged.rglob("*.md")}
    return [
        *(f"zensical.toml has {page} in its menu, which does not exist" for page in named - there),
        *(f"{page} is not in the menu of zensical.toml" for page in there - named),
    ]


def _pages(entry: Any) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
    else:
        for inside in entry.values() if isinstance(entry, dict) else entry:
            yield from _pages(inside)


def faults_offline(site: Path) -> list[str]:
    """Return a sentence for each thing that a page would fetch from elsewhere."""
    return [
        f"{page.relative_to(site)} fetches {address}: the site must work offline"
        for page in site.rglob("*.html")
        for address in _FETCHED.findall(page.read_text(encoding="utf-8"))
    ]


def main() -> int:
    """Build the site and return the exit code."""
    stage(STAGED)
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    faults = sorted(faults_of_menu(STAGED) + faults_offline(SITE))
    for fault in faults:
        sys.stderr.write(f"{fault}\n")
    return code or (1 if faults else 0)


if __name__ == "__main__":
    sys.exit(main())
