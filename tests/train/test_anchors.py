from __future__ import annotations

import pytest
import torch

from rdlite.errors import OptionError
from train.anchor_search import measure_recall, search_anchors
from train.anchors import (
    AnchorShapes,
    decode,
    encode,
    grid_sizes,
    make_anchors,
    to_centre_size,
    to_corners,
)


def test_320_pixels_give_the_grids_and_the_3204_anchors_of_the_paper() -> None:
    assert grid_sizes(320) == [20, 10, 5, 3]
    assert make_anchors(320).shape == ((400 + 100 + 25 + 9) * 6, 4)


def test_anchors_run_by_level_row_column_scale_and_ratio() -> None:
    anchors = make_anchors(320)
    assert anchors[0].tolist() == pytest.approx(
        [0.5 / 20, 0.5 / 20, 28 / 320 * 0.4**0.5, 28 / 320 / 0.4**0.5]
    )
    assert anchors[6, :2].tolist() == pytest.approx([1.5 / 20, 0.5 / 20])  # next column
    assert anchors[6 * 20, :2].tolist() == pytest.approx([0.5 / 20, 1.5 / 20])  # next row
    second_scale = (28 * 68) ** 0.5 / 320
    assert anchors[3:6, 2:].prod(dim=1).sqrt().tolist() == pytest.approx([second_scale] * 3)
    assert (anchors[:3, 2] / anchors[:3, 3]).tolist() == pytest.approx([0.4, 0.8, 1.6])
    assert anchors[2400, :2].tolist() == pytest.approx([0.05, 0.05])  # first of the 10x10 level


def test_encode_by_hand() -> None:
    anchor = torch.tensor([0.5, 0.5, 0.2, 0.4])
    box = torch.tensor([0.51, 0.46, 0.2, 0.8])
    # 0.01 / (0.1 * 0.2), -0.04 / (0.1 * 0.4), ln 1 / 0.2, ln 2 / 0.2
    assert encode(box, anchor).tolist() == pytest.approx([0.5, -1.0, 0.0, 3.4657], abs=1e-4)


def test_decode_is_the_inverse_of_encode() -> None:
    anchors = make_anchors(192)
    boxes = anchors[torch.randperm(len(anchors), generator=torch.Generator().manual_seed(0))]
    assert torch.allclose(decode(encode(boxes, anchors), anchors), boxes, atol=1e-5)


def test_corners_and_centre_size_are_inverse() -> None:
    anchors = make_anchors(256)
    assert torch.allclose(to_centre_size(to_corners(anchors)), anchors, atol=1e-6)


def test_a_search_finds_shapes_that_reach_more_of_unusual_boxes() -> None:
    centre = torch.rand(200, 2, generator=torch.Generator().manual_seed(0)) * 0.4 + 0.3
    boxes = to_corners(torch.cat([centre, torch.tensor([[0.5, 0.05]]).expand(200, 2)], dim=1))
    before = measure_recall(boxes)
    found = search_anchors(boxes)
    after = measure_recall(boxes, found)
    assert before.boxes[-1] == 200 and before.reached[-1] < 0.1
    assert after.reached[-1] > 0.9
    assert max(found.ratios) > 4
    assert AnchorShapes.parse(*found.options().split()[1::2]).sizes == pytest.approx(
        found.sizes, rel=1e-3
    )
    assert after.table().splitlines()[-1].split()[-1] == f"{after.reached[-1]:.2f}"


@pytest.mark.parametrize(
    ("sizes", "ratios"),
    [
        ("28,68,136,216", "0.4,0.8,1.6"),
        ("68,28,136,216,300", "0.4,0.8,1.6"),
        ("28,68,136,216,400", "0.4,0.8,1.6"),
        ("28,68,136,216,300", "0.4,0.8"),
        ("28,68,136,216,300", "0.4,0.8,x"),
    ],
)
def test_impossible_anchors_are_refused(sizes: str, ratios: str) -> None:
    with pytest.raises(OptionError, match="anchor_"):
        AnchorShapes.parse(sizes, ratios)
