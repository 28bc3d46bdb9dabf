"""The page of a report in a real browser: what it shows, and what keys and filters do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rdlite import open_results
from rdlite.report import write_report
from tests.browser import chromium, console, dark, open_page
from tests.report.made import objects, of_images, of_video, some
from tests.report.made import write as write_results


@pytest.fixture(scope="module")
def chrome() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


class Page:
    """A report that is open in a browser."""

    def __init__(self, browser: Any, path: Path) -> None:
        self.browser = browser
        open_page(browser, path)
        self.wait("return performance.getEntriesByName('ready').length === 1")

    def wait(self, script: str) -> Any:
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.browser, 20, 0.02).until(lambda b: b.execute_script(script))

    def run(self, script: str, *arguments: Any) -> Any:
        return self.browser.execute_script(script, *arguments)

    def settle(self) -> None:
        """Wait until what was done before is shown."""
        twice = (
            "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(done))"
        )
        self.browser.execute_async_script(twice)

    def text(self, name: str) -> str:
        return self.run("return document.getElementById(arguments[0]).textContent", name)

    def counts(self) -> tuple[int, int]:
        """Objects and frames that the page says to match."""
        self.settle()
        objects, frames = re.findall(r"([\d,]+) of", self.text("status"))
        return int(objects.replace(",", "")), int(frames.replace(",", ""))

    def keys(self, *keys: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        for key in keys:
            ActionChains(self.browser).send_keys(key).perform()
        self.settle()

    def click(self, selector: str) -> None:
        self.run("document.querySelector(arguments[0]).click()", selector)
        self.settle()

    def score(self, hundredths: int) -> None:
        self.run(
            "const s = document.getElementById('score'); s.value = arguments[0];"
            "s.dispatchEvent(new Event('input'))",
            hundredths,
        )

    def search(self, text: str) -> None:
        field = self.browser.find_element("id", "search")
        field.clear()
        field.send_keys(text)

    def focused(self) -> str:
        """The text of what has the focus, without spaces around."""
        return self.run("return document.activeElement.textContent.trim()")

    def is_open(self, dialog: str) -> bool:
        return self.run("return document.getElementById(arguments[0]).open", dialog)


@pytest.fixture
def show(chrome: Any, tmp_path: Path) -> Iterator[Any]:
    """A function that opens the report on a file; nothing may have gone wrong in it."""

    def opened(results: Path, **options: Any) -> Page:
        report = write_report(results, tmp_path / "page.html", overwrite=True, **options)
        return Page(chrome, report.path)

    yield opened
    assert console(chrome) == []


def test_filters_count_what_pandas_counts(show: Any, tmp_path: Path) -> None:
    results = of_images(tmp_path / "found.jsonl", 300)
    table, page = open_results(results).to_pandas(), show(results)

    def expected(wanted: Any) -> tuple[int, int]:
        return int(wanted.sum()), table[wanted].image.nunique()

    assert page.counts() == expected(table.confidence > 0)
    page.score(60)
    assert page.counts() == expected(table.confidence >= 0.6)
    page.click("#classes input[value='1']")
    both = (table.confidence >= 0.6) & (table.class_name == "bicycle")
    assert page.counts() == expected(both)
    page.search("NIGHT/")
    assert page.counts() == expected(both & table.image.str.startswith("night/"))
    page.click("#all-classes")
    night = (table.confidence >= 0.6) & table.image.str.startswith("night/")
    assert page.counts() == expected(night)
    listed = page.run("return [...document.querySelectorAll('#classes li')].map(x => x.innerText)")
    by_class = table[night].class_name.value_counts()
    assert {name: int(count) for name, count in map(str.split, listed)} == by_class.to_dict()


def test_the_gallery_shows_the_frames_that_match_and_the_others(show: Any, tmp_path: Path) -> None:
    lines = [
        ({"image": "two.jpg"}, objects((1, 1, 9, 9, 0.9, 0), (1, 1, 9, 9, 0.8, 1))),
        ({"image": "none.jpg"}, objects()),
        ({"image": "three.jpg"}, objects(*[(1, 1, 9, 9, 0.7, 0)] * 3)),
    ]
    page = show(write_results(tmp_path / "found.jsonl", lines))
    names = "return [...document.querySelectorAll('#grid .name')].map(x => x.textContent)"
    assert page.run(names) == ["two.jpg", "three.jpg"]
    page.run(
        "const o = document.getElementById('order'); o.value = 'objects';"
        "o.dispatchEvent(new Event('change'))"
    )
    page.settle()
    assert page.run(names) == ["three.jpg", "two.jpg"]
    page.click("#show-others")
    assert page.run(names) == ["none.jpg"]
    page.click("#show-matching")
    page.score(95)
    page.settle()
    assert page.run(names) == []
    assert page.text("nothing").startswith("No image to show here")


def test_captions_tell_names_apart_and_end_with_the_frame(show: Any, tmp_path: Path) -> None:
    names = ["a/b/x.jpg", "c/b/x.jpg", "c/y.jpg", "d\\x.jpg", "x.jpg"]
    lines = [({"image": name}, objects((1, 1, 9, 9, 0.9, 0))) for name in names]
    page = show(write_results(tmp_path / "found.jsonl", lines))
    texts = "return [...document.querySelectorAll('#grid .name')].map(x => x.textContent)"
    assert page.run(texts) == ["a/b/x.jpg", "c/b/x.jpg", "y.jpg", "d\\x.jpg", "x.jpg"]
    long = [({"image": "v/" * 60 + "clip.mp4", "frame": 123_456, "time": 9999.5}, objects())]
    page = show(write_results(tmp_path / "long.jsonl", long))
    page.click("#show-others")
    # Cut at the beginning: the end of the text lies inside its line.
    assert page.run(texts) == ["clip.mp4 · 2:46:39.50 · frame 123,456"]
    page.run("document.querySelector('#grid .name').style.width = '90px'")
    end, right = page.run(
        "const line = document.querySelector('#grid .name');"
        "return [line.firstChild.getBoundingClientRect().right, line.getBoundingClientRect().right]"
    )
    assert end <= right + 1


@pytest.mark.parametrize("on", [False, True], ids=["light", "dark"])
def test_a_class_has_one_colour_that_stands_out(show: Any, tmp_path: Path, on: bool) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"gone")
    names = tuple(f"class {number}" for number in range(10))
    rows = [(1, 1, 9, 9, 0.5, number) for number in range(10) for _ in range(10 - number)]
    found = objects(*rows, names=names)
    lines = [({"frame": n, "pts": n, "time": n / 2}, found) for n in range(4)]
    results = write_results(tmp_path / "a.jsonl", lines, source=tmp_path / "clip.mp4", names=names)
    page = show(results, pictures=0)
    dark(page.browser, on)
    page.settle()
    colours = (
        "return [...document.querySelectorAll(arguments[0])].map(x => x.style.backgroundColor)"
    )
    bars = page.run(colours, "#classes .bar")
    assert len(set(bars)) == 10
    assert page.run(colours, "#legend .swatch")[:6] == bars[:6]
    page.click("#grid button")
    assert set(page.run(colours, "#viewer-objects .swatch")) == set(bars)
    ratios = page.run(
        "return colours().flatMap((one) => ['--card', '--page', '--sunken'].map((name) => {"
        "const both = [luminance(one), luminance(token(name))].sort((a, b) => a - b);"
        "return (both[1] + 0.05) / (both[0] + 0.05); }));"
        "function colours() { return JSON.parse(blockText('meta')).colors; }"
    )
    dark(page.browser, False)
    assert min(ratios) >= 3


def test_only_what_can_be_seen_is_there_and_keys_reach_all(show: Any, tmp_path: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    lines = [({"image": f"{n}.jpg"}, objects((1, 1, 9, 9, 0.5, 0))) for n in range(5000)]
    page = show(write_results(tmp_path / "found.jsonl", lines))
    cards = "return document.querySelectorAll('#grid li').length"
    assert 0 < page.run(cards) < 100
    page.run("document.querySelector('#grid [tabindex=\"0\"]').focus()")
    page.keys(Keys.ARROW_RIGHT)
    assert page.focused() == "1.jpg1 object"
    page.keys(Keys.ARROW_DOWN, Keys.ARROW_UP, Keys.ARROW_LEFT)
    assert page.focused() == "0.jpg1 object"
    page.keys(Keys.END)
    assert page.focused() == "4999.jpg1 object"
    assert 0 < page.run(cards) < 100
    box = page.run("return document.activeElement.getBoundingClientRect().toJSON()")
    assert 0 <= box["top"] and box["bottom"] <= page.run("return innerHeight")
    page.keys(Keys.PAGE_UP, Keys.HOME)
    assert page.focused() == "0.jpg1 object"
    assert page.run("return document.querySelectorAll('#grid [tabindex=\"0\"]').length") == 1


def test_a_frame_opens_large_and_keys_move_on(show: Any, tmp_path: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    lines = [
        ({"image": "a.jpg"}, objects((10, 20, 30, 40, 0.87, 2), (1, 1, 9, 9, 0.3, 0))),
        ({"image": "b.jpg"}, objects((1, 1, 9, 9, 0.5, 1))),
    ]
    page = show(write_results(tmp_path / "found.jsonl", lines))
    page.score(50)
    page.settle()
    page.run("document.querySelector('#grid [tabindex=\"0\"]').focus()")
    page.keys(Keys.ENTER)
    assert page.is_open("viewer")
    assert page.text("viewer-title") == "a.jpg"
    row = "return document.getElementById('viewer-objects').innerText.split(/\\s+/).join(' ')"
    assert page.run(row) == "car 0.87 10 20 30 40"
    assert page.text("viewer-note").startswith("1 object; the filters hide 1 more.")
    page.keys(Keys.ARROW_RIGHT)
    assert page.text("viewer-title") == "b.jpg"
    page.keys(Keys.ARROW_RIGHT)  # there is no third
    assert page.text("viewer-title") == "b.jpg"
    page.keys(Keys.ARROW_LEFT)
    page.run("document.getElementById('viewer-next').focus()")
    page.keys(Keys.ENTER)  # which switches the button off that has the focus
    assert page.text("viewer-title") == "b.jpg"
    page.keys(Keys.ARROW_LEFT)
    assert page.text("viewer-title") == "a.jpg"
    page.keys(Keys.ARROW_RIGHT)
    page.keys(Keys.ESCAPE)
    assert not page.is_open("viewer")
    assert page.focused() == "b.jpg1 object"


def test_keys_search_and_help_and_can_be_turned_off(show: Any, tmp_path: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    page = show(of_images(tmp_path / "found.jsonl", 20))
    page.keys("/", "day")
    assert page.run("return document.activeElement.id") == "search"
    assert page.run("return document.activeElement.value") == "day"
    filtered = page.counts()
    page.keys(Keys.ESCAPE)
    assert page.counts() > filtered
    page.run("document.activeElement.blur()")
    page.keys("?")
    assert page.is_open("help")
    page.click("#shortcuts")
    page.keys(Keys.ESCAPE)
    assert not page.is_open("help")
    page.keys("?", "/")
    assert not page.is_open("help")
    assert page.run("return document.activeElement.id") != "search"


def test_a_time_in_a_video_is_gone_to(show: Any, tmp_path: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    random = np.random.default_rng(2)
    lines = [({"frame": n, "pts": n, "time": n / 2}, some(random)) for n in range(400)]
    (tmp_path / "clip.mp4").write_bytes(b"gone")
    results = write_results(tmp_path / "clip.jsonl", lines, source=tmp_path / "clip.mp4")
    page = show(results, pictures=0)
    page.search("1:1")
    page.keys(Keys.ENTER)
    table = open_results(results).to_pandas()
    nearest = min(table.frame.unique(), key=lambda frame: abs(frame / 2 - 61))
    assert f"frame {nearest}{(table.frame == nearest).sum()} object" in page.focused()
    page.search("soon")
    page.keys(Keys.ENTER)
    assert page.text("search-note").startswith("A time is written")
    page.run("document.getElementById('time-details').open = true")
    page.settle()
    cells = page.run(
        "return [...document.querySelectorAll('#time-table td')].map(x => +x.innerText)"
    )
    series = table.class_name.nunique()
    means = np.reshape(cells, (-1, series)).mean(axis=0)
    by_class = table.class_name.value_counts().to_numpy() / 400
    assert means == pytest.approx(by_class, rel=0.05)


def test_pictures_lie_below_the_boxes(show: Any, tmp_path: Path) -> None:
    page = show(of_video(tmp_path, 30), pictures=8)
    assert page.run("return document.querySelector('#show-pictures').checked")
    page.wait("""
        const canvas = document.querySelector('#grid canvas');
        const shown = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
        const dark = shown.data.filter((value, at) => at % 4 === 0 && value < 40).length;
        return dark > 0.1 * canvas.width * canvas.height;  // the black blocks of the clip
    """)


def test_hostile_names_are_only_text(show: Any, tmp_path: Path) -> None:
    attack = "</script><img src=x onerror='window.hacked=1'>\"&amp;<!--"
    names = (attack, "b")
    found = objects((1, 1, 9, 9, 0.5, 0), names=names)
    lines = [({"image": f"{attack}.jpg"}, found), ({"image": "\udcff.jpg"}, found)]
    page = show(write_results(tmp_path / "found.jsonl", lines, names=names))
    assert page.text("classes").startswith(attack)
    name = page.run("return document.querySelector('#grid .name').textContent")
    assert name == f"{attack}.jpg".split("/")[-1]
    page.click("#grid button")
    assert page.text("viewer-title") == f"{attack}.jpg"
    assert page.run("return window.hacked === undefined && document.images.length === 0")


def test_nothing_is_fetched_and_no_other_script_may_run(show: Any, tmp_path: Path) -> None:
    page = show(of_video(tmp_path, 6))
    fetched = page.run("return performance.getEntriesByType('resource').map(x => x.name)")
    assert [name for name in fetched if not name.startswith("data:")] == []
    page.run(
        "const s = document.createElement('script'); s.textContent = 'window.hacked = 1';"
        "document.body.append(s)"
    )
    assert page.run("return window.hacked === undefined")
    assert any("Content Security Policy" in line for line in console(page.browser))


@pytest.mark.parametrize("on", [False, True], ids=["light", "dark"])
def test_text_stands_out_in_both_schemes(show: Any, tmp_path: Path, on: bool) -> None:
    page = show(of_images(tmp_path / "found.jsonl", 5))
    dark(page.browser, on)
    page.settle()
    colours = page.run(
        "return ['--text', '--muted', '--accent', '--warn'].flatMap((one) =>"
        "['--card', '--page'].map((other) => [luminance(token(one)), luminance(token(other))]))"
    )
    ratios = [(max(pair) + 0.05) / (min(pair) + 0.05) for pair in colours]
    assert min(ratios) >= 4.5
    assert (page.run("return luminance(token('--page'))") < 0.2) == on
    dark(page.browser, False)


@pytest.mark.parametrize("of_a_video", [False, True])
def test_a_page_on_nothing_says_so(show: Any, tmp_path: Path, of_a_video: bool) -> None:
    source = tmp_path / "clip.mp4"
    source.write_bytes(b"")
    results = tmp_path / "found.jsonl"
    page = show(write_results(results, [], source=source if of_a_video else None))
    assert page.counts() == (0, 0)
    assert page.text("nothing") == "The file has no frames and no images."


def test_a_page_without_objects_shows_its_frames(show: Any, tmp_path: Path) -> None:
    lines = [({"image": f"{n}.jpg"}, objects()) for n in range(3)]
    page = show(write_results(tmp_path / "found.jsonl", lines))
    assert page.counts() == (0, 0)
    page.click("#show-others")
    assert page.run("return document.querySelectorAll('#grid li').length") == 3
