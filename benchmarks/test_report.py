"""A report on a hundred thousand frames: how long until a browser shows it, and how it moves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rdlite.report import Report, write_report
from rdlite.results import Detections
from rdlite.sinks import JsonlSink
from rdlite.storage.journal import jsonl_header
from tests.browser import chromium

FRAMES, OBJECTS = 100_000, 10
NAMES = tuple(f"class {number}" for number in range(80))
OPEN_TARGET_MS, PAGE_TARGET_MB = 2000, 20


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """On images with ten objects each anywhere, which compress worse than real ones."""
    folder = tmp_path_factory.mktemp("report")
    random = np.random.default_rng(1)
    header = jsonl_header("0" * 64, names=NAMES, category_ids=range(len(NAMES)))
    with JsonlSink(folder / "found.jsonl", header) as sink:
        for number in range(FRAMES):
            corners = np.sort(random.uniform(0, 1, (OBJECTS, 2, 2)), axis=1) * (1280, 720)
            found = Detections(
                corners.reshape(OBJECTS, 4),
                np.sort(random.uniform(0.25, 1, OBJECTS))[::-1],
                random.integers(0, len(NAMES), OBJECTS),
                NAMES,
                tuple(range(len(NAMES))),
                (1280, 720),
            )
            sink.write(found, image=f"day-{number // 1000:03}/{number:06}.jpg")
    return write_report(folder / "found.jsonl", folder / "page.html", pictures=0)


@pytest.fixture(scope="module")
def chrome() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


def open_and_wait(browser: Any, page: Path) -> None:
    browser.get(page.as_uri())
    browser.execute_async_script("""
        const done = arguments[0];
        const look = () => performance.getEntriesByName("ready").length
            ? done() : requestAnimationFrame(look);
        look();
    """)


def test_opening_a_report(chrome: Any, report: Report, measure: Callable[..., Any]) -> None:
    assert report.size < PAGE_TARGET_MB * 1e6 and report.warnings == ()
    measure(
        lambda: open_and_wait(chrome, report.path),
        rounds=5,
        target_ms=OPEN_TARGET_MS,
        page_mb=report.size / 1e6,
    )


def test_moving_the_slider_of_scores(
    chrome: Any, report: Report, measure: Callable[..., Any]
) -> None:
    open_and_wait(chrome, report.path)
    move = """
        const [value, done] = arguments;
        const slider = document.getElementById("score");
        slider.value = value;
        slider.dispatchEvent(new Event("input"));
        requestAnimationFrame(() => requestAnimationFrame(done));
    """
    values = iter(range(26, 100))
    measure(lambda: chrome.execute_async_script(move, next(values)), rounds=20)
