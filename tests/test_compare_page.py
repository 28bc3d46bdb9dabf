"""The page of a comparison in a real browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from rdlite import Detector
from rdlite.compare import Comparison, compare
from rdlite.compare import page as page_module
from tests.browser import chromium, console, dark, open_page
from tests.conftest import ModelWriter, tiny_spec

HOSTILE = "<img src=x onerror=alert(1)>.png"
HOSTILE_CLASS = "</script><script>alert(1)</script>"
NAMES = ("person", "bicycle", "car", "traffic light", HOSTILE_CLASS)
SWAPPED = ("person", "bicycle", HOSTILE_CLASS, "traffic light", "car")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def result(write_model: ModelWriter, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """45 pictures: 22 with a blue square, a person to both, the others with a dark red one."""
    folder = tmp_path_factory.mktemp("pictures")
    gray = np.full((64, 96, 3), 90, np.uint8)
    blue, red = gray.copy(), gray.copy()
    blue[16:32, 16:32] = (250, 20, 20)
    red[32:48, 64:80] = (20, 20, 95)  # a score of 0.62
    paths = [folder / f"{n:02}.png" for n in range(44)] + [folder / HOSTILE]
    for n, path in enumerate(paths):
        cv2.imwrite(str(path), blue if n % 2 else red)
    names = {"first.onnx": NAMES, "other.onnx": SWAPPED}
    detectors = {
        name: Detector(write_model(spec=tiny_spec(names=classes)))
        for name, classes in names.items()
    }
    shutil.copy(__file__, folder / "text.png")
    return compare(detectors, [*paths, folder / "text.png"])


@pytest.fixture
def opened(browser: Any, result: Comparison, tmp_path: Path) -> Iterator[Any]:
    result.save(tmp_path / "compare.html")
    open_page(browser, tmp_path / "compare.html")
    yield browser
    assert console(browser) == []


def find(browser: Any, selector: str) -> list[Any]:
    return list(browser.find_elements("css selector", selector))


def text(browser: Any, selector: str) -> str:
    return str(browser.find_element("css selector", selector).text)


def choose(browser: Any, name: str, value: str) -> None:
    browser.execute_script(
        "const one = document.getElementById(arguments[0]); one.value = arguments[1];"
        "one.dispatchEvent(new Event('input', {bubbles: true}));",
        name,
        value,
    )


def keys(browser: Any, *pressed: str) -> None:
    for key in pressed:
        browser.switch_to.active_element.send_keys(key)


def focused(browser: Any) -> str:
    return str(browser.switch_to.active_element.find_element("css selector", "h3").text)


def test_the_numbers_of_the_comparison_are_there(opened: Any) -> None:
    assert text(opened, "h1") == "Comparison of first.onnx, other.onnx"
    assert "45 pictures compared" in text(opened, "#what")
    assert text(opened, "#models tbody tr").split()[:3] == ["first.onnx", "fp32", "45"]
    assert "22 of 68 objects found by both" in text(opened, "#agreements h2")
    rows = [row.text for row in find(opened, "#agreements tbody tr")]
    assert rows[:2] == ["all 22 23 23", "car 0 23 0"] and "person 22 0 0" in rows
    assert len(find(opened, ".scatter circle")) == 1
    assert "1 unreadable file" in text(opened, "#failed") and "text.png" in text(opened, "#failed")


def test_what_differs_is_seen_first(opened: Any) -> None:
    rows = find(opened, "#pictures > li")
    assert len(rows) == 20 and all("2 objects that one model has alone" in row.text for row in rows)
    assert len(find(opened, "#pictures .box.alone")) == 40
    figures = rows[0].find_elements("css selector", "figure")
    assert ["1 object, 1 alone" in one.text for one in figures] == [True, True]
    image, box = (figures[0].find_element("css selector", kind) for kind in ("img", ".box"))
    assert image.get_property("naturalWidth") == 96
    whole, part = image.rect, box.rect
    # the red square, x 64 to 80 of 96 and y 32 to 48 of 64
    assert (part["x"] - whole["x"]) / whole["width"] == pytest.approx(64 / 96, abs=0.05)
    assert (part["y"] - whole["y"]) / whole["height"] == pytest.approx(32 / 64, abs=0.05)
    assert part["width"] / whole["width"] == pytest.approx(16 / 96, abs=0.05)


def test_filters_change_what_is_shown(opened: Any) -> None:
    assert text(opened, "#count") == "45 of 45 pictures shown"
    choose(opened, "class", find(opened, "#class option")[1].get_attribute("value"))
    assert text(opened, "#class option:checked") in ("person (44)", "car (23)")
    shown = int(text(opened, "#count").split()[0])
    assert shown in (22, 23)
    choose(opened, "class", "")
    find(opened, "#differing")[0].click()
    assert text(opened, "#count") == "23 of 45 pictures shown"
    choose(opened, "score", "0.7")
    assert text(opened, "#count") == "0 of 45 pictures shown"
    assert text(opened, "#score-value") == "0.70" and not find(opened, "#pictures > li")
    choose(opened, "score", "0.25")
    choose(opened, "search", "04.PNG")
    assert text(opened, "#count") == "1 of 45 pictures shown"


def test_the_order_can_be_chosen(opened: Any) -> None:
    choose(opened, "order", "number")
    names = [head.text for head in find(opened, "#pictures h3")]
    assert [Path(name).name for name in names[:3]] == ["00.png", "01.png", "02.png"]


def test_the_keyboard_is_enough(opened: Any) -> None:
    choose(opened, "order", "number")
    find(opened, "h1")[0].click()
    keys(opened, "j", "j")
    assert focused(opened).endswith("01.png")
    keys(opened, "k")
    assert focused(opened).endswith("00.png")
    keys(opened, "n")
    assert focused(opened).endswith("20.png") and text(opened, "#place") == "21 to 40 of 45"
    keys(opened, "k")
    assert focused(opened).endswith("19.png")
    keys(opened, "n", "n", "n")
    assert text(opened, "#place") == "41 to 45 of 45"
    keys(opened, "/")
    assert opened.switch_to.active_element.get_attribute("id") == "search"
    keys(opened, "j", "j")  # letters of a name, here
    assert text(opened, "#count") == "0 of 45 pictures shown"
    keys(opened, "\ue00c")  # Escape
    assert opened.switch_to.active_element.tag_name == "body"


def test_keys_of_one_letter_can_be_turned_off(opened: Any) -> None:
    find(opened, "#shortcuts")[0].click()
    find(opened, "h1")[0].click()
    keys(opened, "j", "/")
    assert opened.switch_to.active_element.tag_name == "body"


def test_no_score_lies_below_the_slider(browser: Any, result: Comparison, tmp_path: Path) -> None:
    conf = {**result.options, "conf": 0.3196}  # a score of 0.3204 is 0.32 in the page
    replace(result, options=conf).save(tmp_path / "compare.html")
    open_page(browser, tmp_path / "compare.html")
    assert find(browser, "#score")[0].get_attribute("min") == "0.31"
    assert text(browser, "#score-value") == "0.31"


def test_names_of_files_and_classes_are_text(opened: Any) -> None:
    choose(opened, "search", HOSTILE)
    assert text(opened, "#pictures h3").endswith(HOSTILE)
    assert find(opened, "#pictures .box span")[-1].get_property("textContent").startswith("</scr")
    assert not find(opened, "#pictures h3 img") and len(find(opened, "#pictures img")) == 2
    assert HOSTILE_CLASS in find(opened, "#pictures img")[1].get_attribute("alt")


def test_every_control_has_a_label_and_every_picture_a_text(opened: Any) -> None:
    controls = find(opened, "#controls select, #controls input")
    assert len(controls) == 6 and all(one.accessible_name for one in controls)
    assert all(one.get_attribute("alt") for one in find(opened, "img"))
    assert "Scores of the 22 objects" in find(opened, ".scatter")[0].accessible_name
    assert all(one.accessible_name for one in find(opened, "section"))


CONTRAST = """
const [parse, channel] = [
  (text) => (text.match(/[\\d.]+/g) || []).map(Number),
  (value) => value <= 10.31475 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4];
const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const ground = (one) => {
  for (; one; one = one.parentElement) {
    const color = parse(getComputedStyle(one).backgroundColor);
    if (color.length === 3 || color[3] > 0.5) return color.slice(0, 3);
  }
  return [255, 255, 255];
};
const poor = [];
for (const one of document.querySelectorAll("body *:not(script)")) {
  const own = [...one.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
  if (!own || !one.getClientRects().length) continue;
  const style = getComputedStyle(one);
  const color = one.namespaceURI.endsWith("svg") ? style.fill : style.color;
  const pair = [light(parse(color)), light(ground(one))].sort((a, b) => b - a);
  if ((pair[0] + 0.05) / (pair[1] + 0.05) < 4.5) poor.push(`${one.tagName} ${one.textContent}`);
}
return poor;
"""


@pytest.mark.parametrize("is_dark", [False, True])
def test_text_can_be_read_in_both_schemes(is_dark: bool, opened: Any) -> None:
    dark(opened, is_dark)
    assert opened.execute_script(CONTRAST) == []
    dark(opened, False)


def test_a_page_has_as_many_pictures_as_fit(
    browser: Any, result: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_module, "_MOST_BYTES", 30_000)
    result.save(tmp_path / "small.html")
    size = (tmp_path / "small.html").stat().st_size
    open_page(browser, tmp_path / "small.html")
    shown = int(text(browser, "#count").split()[2])
    assert 0 < shown < 45 and size < 80_000
    assert f"45 pictures compared; the {shown} that differ most" in text(browser, "#what")
    assert console(browser) == []
