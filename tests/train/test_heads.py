"""The detectors of other papers: three heads on backbones of timm and torchvision."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rdlite import Detector
from rdlite.errors import ModelError, OptionError
from rdlite.session import Session
from train.__main__ import main
from train.anchors import AnchorShapes, decode, grid_sizes, make_anchors, to_corners
from train.config import HEADS, TrainConfig
from train.export import export_onnx
from train.heads import build_detector, head_shapes
from train.loss import detection_loss
from train.matching import Targets, collate
from train.model import RefineDetLite
from train.trained import load_trained
from train.weights import load_weights, write_weights

try:
    import timm  # noqa: F401
    import torchvision  # noqa: F401
except Exception as error:  # a torchvision that was built for another torch raises what it likes
    pytest.skip(
        f"these backbones need timm and torchvision, see the extra [bench] ({error})",
        allow_module_level=True,
    )

BACKBONES = (
    *("mobilenetv1_100", "mobilenetv2_100", "mobilenetv3_large_100"),
    *("shufflenet_v2_x1_0", "vgg16_bn", "resnet101"),
)
SMALL = "mobilenetv3_large_100"


def one_box() -> Targets:
    box = torch.tensor([[0.2, 0.3, 0.7, 0.8]])
    return collate(
        [(box, torch.tensor([2]), torch.tensor([False]), torch.tensor([1.0])) for _ in range(2)]
    )


def settle_norms(model: nn.Module) -> None:
    """Give batch normalisations the statistics of noise: without, outputs are in the thousands."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        model.train()(255 * torch.rand(4, 3, 96, 96))


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("head", HEADS)
def test_there_is_one_prediction_for_every_anchor(head: str, backbone: str) -> None:
    model = build_detector(head, backbone, 3).eval()
    for side in (96, 100):  # 100: odd maps at every level
        with torch.no_grad():
            out = model(torch.zeros(1, 3, side, side))
        count = len(make_anchors(side, head_shapes(head, backbone)))
        assert [t.shape for t in out] == [(1, count, n) for n in (4, 2, 4, 4)]


@pytest.mark.parametrize(
    ("head", "backbone", "side", "grids", "anchors"),
    [
        ("refinedet", SMALL, 320, [40, 20, 10, 5], 6375),  # arXiv 1711.06897: 3 a cell
        ("ssdlite", SMALL, 320, [20, 10, 5, 3, 2, 1], 3234),  # as torchvision's SSDLite320
        ("ssd", "mobilenetv1_100", 300, [19, 10, 5, 3, 2, 1], 3000),
        ("ssd", "vgg16_bn", 300, [38, 19, 10, 5, 3, 2], 11658),
    ],
)
def test_levels_have_these_grids_and_so_many_anchors(
    head: str, backbone: str, side: int, grids: list[int], anchors: int
) -> None:
    shapes = head_shapes(head, backbone)
    assert grid_sizes(side, shapes) == grids
    assert len(make_anchors(side, shapes)) == anchors


def test_one_scale_gives_an_anchor_of_the_levels_size_for_each_ratio() -> None:
    anchors = make_anchors(320, head_shapes("refinedet", SMALL))
    assert anchors[:3, 2:].prod(dim=1).sqrt().tolist() == pytest.approx([0.1] * 3)
    assert (anchors[:3, 2] / anchors[:3, 3]).tolist() == pytest.approx([0.5, 1, 2])
    assert anchors[3, :2].tolist() == pytest.approx([1.5 / 40, 0.5 / 40])


@pytest.mark.parametrize("head", HEADS)
def test_steps_on_a_batch_lower_its_loss(head: str) -> None:
    torch.manual_seed(0)
    model = build_detector(head, SMALL, 3)
    images, targets = torch.rand(2, 3, 96, 96) * 255, one_box()
    anchors = make_anchors(96, head_shapes(head, SMALL))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(12):
        with torch.autocast("cpu", torch.bfloat16):
            outputs = model(images)
        terms = detection_loss(outputs, targets, anchors, arm=head == "refinedet")
        loss = torch.stack(list(terms.values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert set(terms) >= {"odm_loc", "odm_cls"} and ("arm_cls" in terms) == (head == "refinedet")
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients and all(g.isfinite().all() and g.abs().max() < 1e4 for g in gradients)


@pytest.mark.parametrize("head", HEADS)
def test_an_exported_detector_opens_and_finds_what_the_network_says(
    head: str, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    path, shapes = tmp_path / "model.onnx", head_shapes(head, SMALL)
    model = build_detector(head, SMALL, 3)
    settle_norms(model)
    export_onnx(
        model,
        path,
        names=["a", "b", "c"],
        category_ids=[1, 2, 3],
        provenance={},
        resolution=96,
        shapes=shapes,
    )
    image = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    found = Detector(path)(image, conf=0.01, nms="hard", iou=1.0, max_det=5)
    arm_loc, arm_conf, odm_loc, odm_conf = map(torch.from_numpy, Session(path).run(image[None]))
    boxes = to_corners(decode(odm_loc, decode(arm_loc, make_anchors(96, shapes))))
    scores = odm_conf.softmax(dim=1)[:, 1:]
    best = scores.flatten().topk(1).indices[0]
    assert found.confidence[0] == pytest.approx(scores.max().item(), abs=1e-5)
    assert found.class_id[0] == best % 3
    assert found.xyxy[0] == pytest.approx((96 * boxes[best // 3]).clamp(0, 96).numpy(), abs=1e-2)
    if head != "refinedet":
        assert not arm_loc.any() and not arm_conf.any()


@pytest.mark.slow
def test_fit_exports_what_it_trained_and_another_run_may_start_from_it(
    shapes: tuple[Path, Path], tmp_path: Path
) -> None:
    data, images = map(str, shapes)
    out = tmp_path / "run"
    command = [
        *("fit", "--data", data, "--images", images, "--cache", str(tmp_path / "cache")),
        *("--backbone", SMALL, "--head", "ssdlite", "--resolution", "96", "--holdout", "0"),
        *("--batch", "8", "--workers", "0", "--threads", "1", "--warmup", "2", "--ema", "0.5"),
    ]
    assert main([*command, "--out", str(out), "--epochs", "7"]) == 0
    trained = load_trained(out / "model.onnx")
    assert Detector(out / "model.onnx").names == ("red", "green")
    with torch.no_grad():
        x = torch.rand(1, 3, 96, 96)
        wanted = load_trained(out).model(x).odm_conf
        assert torch.allclose(trained.model(x).odm_conf, wanted, atol=0.1)  # kernels are float16
    taken = load_weights(
        build_detector("ssdlite", SMALL, 2), out / "model.onnx", names=["green", "blue"]
    )
    assert taken.classes == 1 and taken.new == ("blue",)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"head": "ssd"}, "backbone and head belong together"),
        ({"backbone": SMALL}, "backbone and head belong together"),
        ({"head": "yolo", "backbone": SMALL}, "head must be one of"),
        ({"head": "ssd", "backbone": SMALL, "width": 48}, "width has no meaning"),
        ({"head": "ssd", "backbone": SMALL, "multi_task": True}, "multi_task has no meaning"),
        ({"head": "refinedet", "backbone": SMALL, "mimic": "t.onnx"}, "mimic has no meaning"),
    ],
)
def test_settings_that_would_be_ignored_are_refused(given: dict[str, Any], wanted: str) -> None:
    with pytest.raises(OptionError, match=wanted):
        TrainConfig(data="", images="", out="", **given)


def test_the_four_terms_of_refinedet_may_be_balanced() -> None:
    TrainConfig(
        data="", images="", out="", head="refinedet", backbone=SMALL, multi_task=True
    ).anchor_shapes()


@pytest.mark.parametrize("backbone", ["no_such_net", "vit_tiny_patch16_224"])
def test_a_backbone_without_the_features_is_refused(backbone: str) -> None:
    with pytest.raises(OptionError, match=f"backbone {backbone}"):
        build_detector("ssdlite", backbone, 3)


@pytest.mark.parametrize("error", ["ImportError", "RuntimeError"])
@pytest.mark.parametrize(
    ("package", "backbone"), [("timm", SMALL), ("torchvision", "shufflenet_v2_x1_0")]
)
def test_a_package_that_cannot_be_imported_is_named(
    package: str, backbone: str, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"{package}.py").write_text(f"raise {error}('no torchvision::nms')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, package)
    with pytest.raises(OptionError, match=rf"needs {package}, .*nms.*pip install -e \"\.\[bench"):
        build_detector("ssdlite", backbone, 3)


def test_weights_of_another_detector_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "ours.safetensors"
    write_weights(RefineDetLite(3, width=16), path)
    with pytest.raises(ModelError, match="does not fit"):
        load_weights(build_detector("refinedet", SMALL, 3), path)


def test_anchors_of_other_layouts_are_not_the_same() -> None:
    ours = AnchorShapes((0.1, 0.2, 0.4, 0.8, 1.0), (0.5, 1.0, 2.0))
    assert not ours.same_as(head_shapes("refinedet", SMALL))
    assert not ours.same_as(head_shapes("ssd", SMALL))
