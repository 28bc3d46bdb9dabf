from __future__ import annotations

import pytest
import torch
from torch import nn

from train.anchors import make_anchors
from train.model import Bottleneck, RefineDetLite, Res2Block, ResBlock, initialise


@pytest.fixture(scope="module")
def full() -> RefineDetLite:
    return RefineDetLite(80).eval()


def test_refinedetlite72_has_the_channels_of_the_paper(full: RefineDetLite) -> None:
    p1, p2 = full.backbone(torch.zeros(1, 3, 320, 320))
    assert p1.shape == (1, 576, 20, 20) and p2.shape == (1, 1152, 10, 10)
    p3 = full.extra[0](p2)
    assert p3.shape == (1, 512, 5, 5) and full.extra[1](p3).shape == (1, 512, 3, 3)
    assert sum(p.numel() for p in full.parameters()) == pytest.approx(10.1e6, rel=0.01)


@pytest.mark.parametrize("resolution", [192, 256, 320])
def test_one_prediction_for_every_anchor_at_every_resolution(
    full: RefineDetLite, resolution: int
) -> None:
    with torch.no_grad():
        out = full(torch.zeros(2, 3, resolution, resolution))
    count = len(make_anchors(resolution))
    assert [t.shape for t in out] == [(2, count, n) for n in (4, 2, 4, 81)]


def test_a_cell_predicts_the_anchors_at_its_own_place() -> None:
    model = RefineDetLite(3, width=16).eval()
    image = torch.rand(1, 3, 320, 320) * 255
    changed = image.clone()
    changed[..., -16:, -16:] = 0
    with torch.no_grad():
        for predictor in model.odm_conf:
            nn.init.normal_(predictor.weight)
        moved = (model(image).odm_conf - model(changed).odm_conf)[0, :2400].abs().sum(dim=1)
    nearest = make_anchors(320)[moved.argmax(), :2]
    assert (nearest > 0.85).all()


def test_every_residual_block_starts_as_the_identity() -> None:
    x = torch.rand(2, 64, 8, 8)
    for block in (Res2Block(64), ResBlock(64)):
        model = nn.ModuleList([block])
        initialise(model)
        assert torch.equal(block(x), x)


def test_downsampling_has_no_shortcut_and_halves() -> None:
    assert Bottleneck(32, 288)(torch.rand(1, 32, 16, 16)).shape == (1, 288, 8, 8)


@pytest.mark.parametrize(("res2block", "light_head"), [(False, False), (True, False)])
def test_the_baselines_of_the_ablation_predict_the_same_shapes(
    res2block: bool, light_head: bool
) -> None:
    model = RefineDetLite(5, width=16, res2block=res2block, light_head=light_head).eval()
    assert model(torch.zeros(1, 3, 64, 64)).odm_conf.shape == (1, len(make_anchors(64)), 6)
