"""The rows of the table: what the paper says of each detector, and how it is built here."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from rdlite import registry

REFERENCE = "ssdlite320"
"""Key of the row that ratios are to: torchvision's SSDLite320 with MobileNetV3-Large."""

PAPER_REFERENCE = "ssdlite-mobilenetv1_100"
"""Key of the row that the paper's own times are compared by."""


class Row(NamedTuple):
    """One detector.

    Attributes:
        key: Name of its model file.
        name: What the table calls it.
        backbone: Its backbone.
        side: Of its square input, pixels.
        paper_ms: Milliseconds in the paper (Table 2, Table 3 for the ablation), one thread of an
            Intel i7-6700; None where it is not in the paper.
        paper_ap: AP on COCO test-dev in the paper, percent.
        note: What else must be known to read the row.
    """

    key: str
    name: str
    backbone: str
    side: int
    paper_ms: float | None = None
    paper_ap: float | None = None
    note: str = ""


def original(key: str) -> str:
    """Key of the fp32 model that an int8 one was made from; of any other, its own."""
    return key.removesuffix("-int8")


def _own(key: str) -> Row:
    width = original(key).removeprefix("refinedetlite")
    int8 = "" if key == original(key) else " int8"
    paper = (130, 26.8) if key == "refinedetlite72" else ()
    return Row(key, f"RefineDetLite{width}{int8}", f"Res2NetLite{width}", 320, *paper)


OURS = tuple(
    map(
        _own,
        dict.fromkeys(
            [
                *(f"refinedetlite{width}{end}" for width in (72, 48, 32) for end in ("", "-int8")),
                *registry.table(),
            ]
        ),
    )
)
"""All that comes with rdlite, and three widths: with random weights where they do not."""

ABLATION = (
    Row("baseline-a", "baseline (a)", "residual blocks, 3x3 heads", 320, 150, 24.7),
    Row("baseline-b", "baseline (b)", "Res2NetLite72, 3x3 heads", 320, 140, 25.7),
)

HEADS = (
    Row("refinedet-mobilenetv1_100", "RefineDet", "MobileNetV1", 320, 168, 24.3),
    Row("refinedet-mobilenetv2_100", "RefineDet", "MobileNetV2", 320, 163, 24.8),
    Row("refinedet-mobilenetv3_large_100", "RefineDet", "MobileNetV3-Large", 320, 150, 22.1),
    Row("refinedet-shufflenet_v2_x1_0", "RefineDet", "ShuffleNetV2 1x", 320, 129, 21.1),
    Row("ssdlite-mobilenetv1_100", "SSDLite", "MobileNetV1", 320, 125, 22.2),
    Row(
        "ssdlite-mobilenetv2_100",
        "SSDLite",
        "MobileNetV2",
        320,
        120,
        22.1,
        "on layers of 96 and 320 channels, published on 576 and 1280",
    ),
    Row(
        "ssdlite-mobilenetv3_large_100",
        "SSDLite",
        "MobileNetV3-Large",
        320,
        note="on layers of 112 and 960 channels, published on 672 and 480",
    ),
    Row("ssd-mobilenetv1_100", "SSD", "MobileNetV1", 300, 128, 19.3),
    Row(
        "ssd-vgg16_bn",
        "SSD",
        "VGG16",
        300,
        1250,
        25.1,
        "ends at 2x2 cells of 128 channels, published at 1x1 of 256",
    ),
    Row("ssd-resnet101", "SSD", "ResNet101", 321, 1000, 28.0, "its last levels as for VGG16"),
)
"""Keys are the `--head` and `--backbone` of `python -m train fit`."""

DEVIATIONS = (
    "SSDLite on MobileNetV2 and V3 takes its first level from the thin output of a bottleneck (96 "
    "and 112 channels, the features that timm gives), where the papers take the wide expansion "
    "inside the next one (576, arXiv 1801.04381 §6.2; 672, arXiv 1905.02244 §6.3); its second from "
    "320 and 960 channels, where they take the last layer (1280; 480, as the papers' V3 halves the "
    "channels from there on). SSD on VGG16 and ResNet101 ends at 2x2 cells of 128 channels, where "
    "SSD300 ends at 1x1 of 256 (its conv10_2 and conv11_2 are 3x3 without padding). All SSD and "
    "SSDLite rows have six anchors a cell, of the ratios 1/2, 1 and 2 in two sizes; the papers "
    "have ratios of 3 and 1/3 instead of the second size for 2 and 1/2, and SSD only four anchors "
    "on some levels."
)
"""Where `HEADS` are not what their papers describe; see `train.heads`."""

OTHERS_THEN = ("refinedet-", "yolov3")
"""Beginnings of the keys whose network, or whose engine, was another one in the paper."""

REFERENCES = (
    Row(REFERENCE, "SSDLite320", "MobileNetV3-Large", 320, note="torchvision's, the reference"),
    Row("yolov3", "YOLOv3", "Darknet53", 320, 1300, 28.2),
)

PEERS = (
    Row("picodet_s_320", "PicoDet-S", "ESNet", 320),
    Row("yolox_nano", "YOLOX-Nano", "CSPDarknet", 416),
    Row("FastestDet", "FastestDet", "ShuffleNetV2", 352),
)
"""Timed and measured where their files are given."""

LEARNED_FROM = (
    "The others were trained on COCO train2017: 118 thousand images, on which people have drawn "
    "the objects of all 80 classes. Ours were not: they learned from far fewer images, mostly "
    "PASCAL VOC's and a few hundred of COCO (their model cards have the list), where people have "
    "drawn most objects of VOC's 20 classes; of most of the other 60 the boxes are what detectors "
    "trained on COCO found. AP over VOC's classes thus compares detectors that all had real "
    "labels, AP over all classes shows what guessed ones cost as well. dev-voc is more of what "
    "ours learned from, dev-coco of what the others did."
)
"""What must be known to compare the AP of `PEERS` with that of `OURS`."""

PACKAGES = (
    Row("ed-n", "easydetect ed-n", "HGNetV2", 320, note="boxes decoded, no suppression needed"),
    Row("yolo11n", "YOLO11n", "C3k2", 320, note="boxes decoded"),
    Row("yolo26n", "YOLO26n", "C3k2", 320, note="boxes decoded"),
)
"""Timed where `export_others.py` has exported them, all with random weights."""

NOT_BUILT = (
    (
        Row("pelee", "Pelee", "PeleeNet", 304, 140, 22.4),
        "its authors' detector is in Caffe, and neither timm nor torchvision has PeleeNet",
    ),
    (
        Row("tiny-dsod", "Tiny-DSOD", "DDB-Net + D-FPN", 300, 180, 23.2),
        "its authors' code is in Caffe, and no package has the port that the paper timed",
    ),
    (
        Row("fpnlite-64", "FPNLite @ 64", "MobileNetV2", 320, None, 22.7),
        "the paper has no time of its own; TensorFlow's Object Detection API is deprecated",
    ),
    (Row("fpnlite-128", "FPNLite @ 128", "MobileNetV2", 320, None, 24.3), "as FPNLite @ 64"),
    (
        Row("nas-fpnlite-3", "NAS-FPNLite (3 @ 48)", "MobileNetV2", 320, None, 24.2),
        "the paper has no time of its own, and its authors published no code",
    ),
    (
        Row("nas-fpnlite-7", "NAS-FPNLite (7 @ 64)", "MobileNetV2", 320, None, 25.7),
        "as NAS-FPNLite (3 @ 48)",
    ),
    (
        Row("thundernet", "ThunderNet", "SNet535", 320, 146, 28.0),
        "its authors published no code, and no package has the port that the paper timed",
    ),
)
"""Rows of the paper without a well-kept implementation, and why."""


ALL = (*OURS, *ABLATION, *HEADS, *REFERENCES, *PEERS, *PACKAGES)


def trained() -> dict[str, Path]:
    """The models that come with rdlite, by name."""
    return {model.name: model.path for model in registry.present() if model.shipped}


def has_weights(row: Row) -> bool:
    """Whether it finds something."""
    return row in PEERS or row.key in trained()
