"""A real browser without a window, for the pages that rdlite writes."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@contextlib.contextmanager
def chromium(*, width: int = 1280, height: int = 1000) -> Iterator[Any]:
    """A selenium driver of Chromium; skips where the browser, its driver or selenium is not."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="pages are opened with selenium")
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("pages are opened in Chromium; run `apt-get install chromium chromium-driver`")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in (
        "--headless=new",
        "--no-sandbox",  # tests may run as root
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--host-resolver-rules=MAP * ~NOTFOUND",  # no network
        f"--window-size={width},{height}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.chrome.service.Service(driver)
    opened = webdriver.Chrome(options=options, service=service)
    try:
        yield opened
    finally:
        opened.quit()


def open_page(browser: Any, path: Path) -> None:
    """Open a file, with what was said about earlier pages forgotten."""
    browser.get_log("browser")
    browser.get(path.resolve().as_uri())


def console(browser: Any) -> list[str]:
    """What the page has written to the console or was refused, since the last look."""
    return [entry["message"] for entry in browser.get_log("browser")]


def dark(browser: Any, on: bool = True) -> None:
    """Let pages know that the user wants dark ones."""
    scheme = {"name": "prefers-color-scheme", "value": "dark" if on else "light"}
    still = {"name": "prefers-reduced-motion", "value": "reduce"}  # colours change at once
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme, still]})
