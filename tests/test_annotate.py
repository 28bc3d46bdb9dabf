"""Drawing: boxes where the objects are, labels that can be read."""

from __future__ import annotations

import numpy as np
import pytest

from rdlite.annotate import class_color, draw, line_width
from rdlite.results import Detections

NAMES = tuple(f"class {n}" for n in range(80))


def found(*boxes: tuple[float, float, float, float], size: tuple[int, int]) -> Detections:
    return Detections(
        xyxy=np.array(boxes, np.float32).reshape(-1, 4),
        confidence=np.linspace(0.9, 0.5, len(boxes), dtype=np.float32),
        class_id=np.arange(len(boxes)),
        names=NAMES,
        category_ids=tuple(range(80)),
        image_size=size,
    )


def gray(width: int, height: int) -> np.ndarray:
    return np.full((height, width, 3), 128, np.uint8)


def brightness(color: tuple[int, int, int]) -> float:
    blue, green, red = color
    return 0.114 * blue + 0.587 * green + 0.299 * red


def test_draw_returns_a_copy(street: np.ndarray) -> None:
    before = street.copy()
    picture = draw(street, found((10, 60, 200, 200), size=(640, 272)))
    assert picture.shape == street.shape
    assert picture.dtype == np.uint8
    assert (street == before).all()
    assert (picture != street).any()


def test_draw_in_place_draws_the_same_on_the_array_itself(street: np.ndarray) -> None:
    boxes = found((10, 60, 200, 200), size=(640, 272))
    picture = street.copy()
    assert draw(picture, boxes, in_place=True) is picture
    assert (picture == draw(street, boxes)).all()


def test_draw_of_nothing_changes_nothing() -> None:
    assert (draw(gray(40, 30), found(size=(40, 30))) == 128).all()


def test_edges_beyond_all_counting_stay_outside() -> None:
    far = draw(gray(100, 80), found((-1e30, 40, 1e30, 1e30), size=(100, 80)))
    near = draw(gray(100, 80), found((-50, 40, 150, 130), size=(100, 80)))
    assert (far == near).all()


def test_draw_takes_a_read_only_view() -> None:
    image = gray(80, 60)[:, ::-1]
    image.flags.writeable = False
    assert (draw(image, found((10, 30, 60, 50), size=(80, 60))) != 128).any()


def test_the_box_lies_on_the_coordinates() -> None:
    picture = draw(gray(400, 300), found((100, 80, 300, 250), size=(400, 300)))
    for x, y in ((100, 150), (300, 150), (250, 250), (290, 80)):
        assert tuple(picture[y, x]) == class_color(0)
    assert (picture[120:240, 110:290] == 128).all()


@pytest.mark.parametrize("size", [(320, 240), (1920, 1080)])
@pytest.mark.parametrize("corner", [(0, 0), (0.9, 0), (0, 0.9), (0.9, 0.9)])
def test_labels_stay_inside_the_image(size: tuple[int, int], corner: tuple[int, int]) -> None:
    def white(x: float, y: float) -> int:
        box = np.array([x, y, x + 0.1, y + 0.1]) * (*size, *size)
        picture = draw(gray(*size), found(tuple(box), size=size))
        return int((picture.min(axis=2) > 140).sum())

    assert white(0.4, 0.5) > 20
    assert white(*corner) == white(0.4, 0.5)


def test_a_label_larger_than_the_image_is_drawn_as_far_as_it_fits() -> None:
    picture = draw(gray(20, 8), found((2, 2, 18, 6), size=(20, 8)))
    assert picture.shape == (8, 20, 3)
    assert (picture != 128).any()


def test_lines_grow_with_the_image() -> None:
    widths = [line_width(gray(*size)) for size in ((64, 48), (640, 480), (1920, 1080))]
    assert widths == sorted(widths)
    assert widths[0] == 1
    assert widths[-1] >= 3


def test_every_class_has_its_own_colour() -> None:
    colors = [class_color(n) for n in range(80)]
    assert len(set(colors)) == 80
    assert colors[3] == class_color(3)


def test_text_is_black_on_bright_colours_and_white_on_dark_ones() -> None:
    for number in range(20):
        size = (600, 200)
        box = Detections(
            xyxy=np.array([[50, 100, 550, 190]], np.float32),
            confidence=np.array([0.5], np.float32),
            class_id=np.array([number]),
            names=NAMES,
            category_ids=tuple(range(80)),
            image_size=size,
        )
        label = draw(gray(*size), box)[80:98, 52:120]
        color = class_color(number)
        text = (0, 0, 0) if brightness(color) > 128 else (255, 255, 255)
        assert (label == text).all(axis=2).any()
        assert (label == color).all(axis=2).any()


def test_the_most_confident_object_is_on_top() -> None:
    boxes = (100.0, 80.0, 300.0, 250.0)
    picture = draw(gray(400, 300), found(boxes, boxes, size=(400, 300)))
    assert tuple(picture[150, 100]) == class_color(0)
