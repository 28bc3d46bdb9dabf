"""The example notebook: it runs, and what is stored in it is what it shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import street_clip

NOTEBOOK = Path(__file__).parents[1] / "examples" / "tour.ipynb"


def read() -> Any:
    nbformat = pytest.importorskip("nbformat", reason="notebooks are read with nbformat")
    return nbformat.read(NOTEBOOK, as_version=4)


def kinds(notebook: Any) -> list[list[list[str]]]:
    """What each output of each cell is: the names of streams, the media types of results."""
    return [
        [[output.get("name", output.output_type), *sorted(output.get("data", ()))]
         for output in cell.outputs]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]  # fmt: skip


def test_the_stored_notebook_is_executed_small_and_of_no_machine() -> None:
    stored = read()
    numbers = [cell.execution_count for cell in stored.cells if cell.cell_type == "code"]
    assert numbers == list(range(1, len(numbers) + 1))
    assert NOTEBOOK.stat().st_size < 300_000
    outputs = [str(output) for cell in stored.cells for output in cell.get("outputs", [])]
    assert outputs and not [text for text in outputs if str(Path.home()) in text or "/tmp" in text]


@pytest.mark.usefixtures("default_model")
def test_it_runs_and_shows_what_is_stored(tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient", reason="notebooks are run with nbclient")
    pytest.importorskip("ipykernel", reason="notebooks are run with ipykernel")
    street_clip()  # skips where there is none
    stored, run = read(), read()
    for cell in run.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(run, timeout=60, kernel_name="python3", resources=resources).execute()
    assert kinds(run) == kinds(stored)
    assert (tmp_path / "compare.html").exists()
