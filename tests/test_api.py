"""The public API changes only when somebody says so, and every name of it is explained."""

from __future__ import annotations

import dataclasses
import inspect
import re
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from tests import api

FROZEN = Path(__file__).with_name("api.txt")


def explained() -> dict[str, Any]:
    """Every public name, methods and properties included, whose text is to be complete."""
    found = {}
    for name, value in api.public():
        if inspect.isclass(value) or inspect.isfunction(value):
            found[name] = value
        if inspect.isclass(value):
            found |= {f"{name}.{one}": member for one, member in api.members(value)}
    return {name: value for name, value in found.items() if not name.endswith("__")}


NAMES = explained()


def test_a_change_of_the_public_api_is_acknowledged() -> None:
    now, frozen = list(api.describe()), FROZEN.read_text(encoding="utf-8").splitlines()
    changes = [f"- {line}" for line in frozen if line not in now]
    changes += [f"+ {line}" for line in now if line not in frozen]
    assert not changes, "\n".join(
        [*changes, "docs/stability.md; then: python -m tests.api > tests/api.txt"]
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_explained(name: str) -> None:
    value = NAMES[name]
    text = inspect.getdoc(value) or ""
    assert text, "it has no docstring"
    if isinstance(value, property) or (inspect.isclass(value) and issubclass(value, Exception)):
        return
    call = getattr(value, "__func__", value)
    signature = inspect.signature(call)
    arguments = set(signature.parameters) - {"self", "cls", "_cls"}
    section = "Args:|Attributes:" if inspect.isclass(value) else "Args:"
    elsewhere = re.search("are those of `|[Ss]ee `", text)
    if arguments and not elsewhere:
        assert re.search(rf"^({section})$", text, re.MULTILINE), f"it has no section {section}"
        missing = {one for one in arguments if not re.search(rf"^ +\*?{one}: ", text, re.MULTILINE)}
        assert not missing
    # A class of ours explains itself.
    obvious = {"None", "Self", *(name.rpartition(".")[2] for name in NAMES)}
    if inspect.isfunction(call) and signature.return_annotation not in obvious:
        said = re.search(r"^(Returns|Yields):$", text, re.MULTILINE)
        assert said or re.match("Return|Yield|Whether|Say", text), "what is returned?"


def test_what_the_types_say_is_installed_with_them() -> None:
    files = {str(path) for path in metadata.files("rdlite") or ()}
    if not any(path.endswith("rdlite/__init__.py") for path in files):
        pytest.skip("installed from a checkout in place; a wheel has the files")
    assert {"rdlite/py.typed", "rdlite/_core.pyi"} <= files


def test_results_are_frozen() -> None:
    for name in ("rdlite.Detections", "rdlite.evaluate.EvalResult", "rdlite.bench.BenchResult"):
        value = NAMES[name]
        assert dataclasses.is_dataclass(value) and value.__dataclass_params__.frozen


def test_the_page_on_stability_names_the_public_modules() -> None:
    page = (FROZEN.parents[1] / "docs" / "stability.md").read_text(encoding="utf-8")
    named = re.search(r"^Public modules: (.*?)\.\n", page, re.MULTILINE | re.DOTALL)
    assert named and tuple(re.findall(r"`([\w.]+)`", named[1])) == api.MODULES
