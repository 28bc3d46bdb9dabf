"""What notebooks show, and that showing costs nothing until it is asked for."""

from __future__ import annotations

import gc
import weakref
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from rdlite import Detections, Detector, OptionError
from rdlite.annotate import draw
from rdlite.image import load
from rdlite.notebook import Picture


def found(count: int = 2, *, names: tuple[str, ...] = ("person", "car")) -> Detections:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 40, (count, 2))
    return Detections(
        xyxy=np.concatenate([corners, corners + 20], axis=1),
        confidence=np.linspace(0.9, 0.5, count),
        class_id=np.arange(count) % len(names),
        names=names,
        category_ids=tuple(range(len(names))),
        image_size=(96, 64),
    )


class Elements(HTMLParser):
    """Counts the elements of a text, and keeps what stands in them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += f"{data} "


def test_a_plot_is_the_drawn_picture_and_shows_itself(squares: np.ndarray, tmp_path: Path) -> None:
    detections = found()
    picture = detections.plot(squares)
    assert np.array_equal(picture.image, draw(squares, detections))
    assert repr(picture) == "<Picture 96x64>"
    assert np.array_equal(load(picture._repr_png_()), picture.image)
    picture.save(tmp_path / "boxes.png")
    assert np.array_equal(load(tmp_path / "boxes.png"), picture.image)
    assert np.array_equal(detections.plot(squares[..., ::-1], color="rgb").image, picture.image)


def test_a_large_picture_is_shown_small_and_saved_whole(tmp_path: Path) -> None:
    picture = Picture(np.zeros((1000, 4000, 3), np.uint8))
    assert load(picture._repr_png_()).shape == (320, 1280, 3)
    picture.save(tmp_path / "whole.jpg")
    assert load(tmp_path / "whole.jpg").shape == (1000, 4000, 3)


def test_detections_of_another_picture_are_not_drawn(squares: np.ndarray) -> None:
    with pytest.raises(OptionError, match=r"of a picture of 96x64 pixels, got 95x64"):
        found().plot(squares[:, 1:])


@pytest.mark.parametrize("name", ["boxes", "boxes.tga", "boxes.html"])
def test_a_picture_is_saved_only_in_formats_that_it_knows(name: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"must end in .png, .jpg"):
        Picture(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_saved_picture_is_replaced_only_when_asked(tmp_path: Path) -> None:
    path, picture = tmp_path / "a.png", Picture(np.zeros((4, 4, 3), np.uint8))
    path.write_text("of the user")
    with pytest.raises(OptionError, match=r"exists already; .* overwrite=True \(--overwrite\)"):
        picture.save(path)
    assert path.read_text() == "of the user"
    picture.save(path, overwrite=True)
    assert load(path).shape == (4, 4, 3) and len(list(tmp_path.iterdir())) == 1


def test_a_picture_too_large_for_a_format_is_refused(tmp_path: Path) -> None:
    wide = Picture(np.zeros((1, 70_000, 3), np.uint8))
    with pytest.raises(OptionError, match="70000x1 pixels are too many"):
        wide.save(tmp_path / "wide.jpg")


def test_a_table_has_a_row_and_a_box_for_every_object() -> None:
    shown = Elements(found(3)._repr_html_())
    assert shown.tags.count("tr") == 1 + 3
    assert shown.tags.count("g") == shown.tags.count("title") == 3
    assert "Detections 2 person, 1 car in 96x64" in shown.text
    assert "1: person 0.90" in shown.text


def test_a_table_of_many_objects_says_how_many_it_leaves_out() -> None:
    shown = Elements(found(100)._repr_html_())
    assert shown.tags.count("tr") == shown.tags.count("g") + 1 == 31
    assert "the best 30 of 100 are shown" in shown.text


def test_a_table_of_nothing() -> None:
    assert "nothing" in Elements(found(0)._repr_html_()).text
    assert "svg" not in Elements(Detections.empty()._repr_html_()).tags


def test_names_of_classes_are_text() -> None:
    hostile = found(2, names=("</title><script>alert(1)</script>", "<img src=x onerror=alert(1)>"))
    shown = Elements(hostile._repr_html_())
    assert not {"script", "img"} & set(shown.tags)
    assert "<script>alert(1)</script>" in shown.text and "onerror" in shown.text


def test_detections_keep_no_picture(tiny_model: Path, squares: np.ndarray) -> None:
    image = squares.copy()
    alive = weakref.ref(image)
    detections = Detector(tiny_model)(image)
    shown = detections.plot(image)._repr_png_(), detections._repr_html_()
    del image
    gc.collect()
    assert alive() is None and len(detections) and all(shown)
