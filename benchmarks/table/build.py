"""The model files of the rows, exported with random weights where there are none."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.table import rows
from benchmarks.table.rows import Row
from benchmarks.table.yolov3 import YOLOv3
from rdlite.session import Session
from train.anchors import DEFAULT_SHAPES, AnchorShapes
from train.export import export_onnx
from train.heads import build_detector, head_shapes
from train.model import RefineDetLite
from train.quantize_build import build
from train.quantize_calibrate import Histograms
from train.quantize_graph import prepare

CLASSES = 80
SOURCES = (
    *Path(__file__).parents[2].glob("train/*.py"),
    *(Path(__file__).with_name(name) for name in ("build.py", "yolov3.py")),
)
"""What exported models are made by."""


def build_models(
    wanted: Iterable[Row], folder: Path, *, say: Callable[[str], None] = print
) -> None:
    """Export each row's model, unless it comes with rdlite or its file is not for us to make.

    A file that is newer than `SOURCES` stays. As for make, the times of the files decide; an
    int8 model must also be newer than its original.

    Raises:
        RdliteError: A model cannot be built or exported.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    weights = rows.trained()
    for row in wanted:
        path = folder / f"{row.key}.onnx"
        if row.key in weights or row in (*rows.PEERS, *rows.PACKAGES):
            continue
        name = rows.original(row.key)
        original = weights.get(name, folder / f"{name}.onnx") if name != row.key else None
        if up_to_date(path, [*SOURCES, *filter(None, [original])]):
            say(f"reusing {path}, newer than its sources")
            continue
        say(f"exporting {path}, random weights")
        unfinished = folder / "unfinished.onnx"
        if original:
            _quantise(original, unfinished)
        else:
            _export(row, unfinished)
        unfinished.replace(path)


def up_to_date(path: Path, sources: Iterable[Path]) -> bool:
    """Whether a file exists and none of its sources is newer."""
    newest = max(source.stat().st_mtime for source in sources)
    return path.exists() and path.stat().st_mtime >= newest


def _export(row: Row, path: Path) -> None:
    network, shapes = _network(row.key)
    _settle_norms(network, row.side)
    if shapes is None:
        _export_plain(network, path, row.side)
        return
    spec = Session().spec
    export_onnx(
        network,
        path,
        names=list(spec.names),
        category_ids=list(spec.category_ids),
        provenance={"note": "Random weights: for measuring time, finds nothing."},
        resolution=row.side,
        shapes=shapes,
    )


def _quantise(original: Path, path: Path) -> None:
    """An int8 model that takes the time of a good one: its ranges are of noise."""
    import onnx

    proto = prepare(original)
    noise = np.random.default_rng(0).integers(0, 256, (2, *Session(original).spec.input_size, 3))
    int8 = build(proto, Histograms(proto, noise.astype(np.uint8)).ranges("minmax"))
    onnx.helper.set_model_props(int8, Session(original).spec.to_metadata())
    onnx.save(int8, path)


def _network(key: str) -> tuple[nn.Module, AnchorShapes | None]:
    """A network with random weights; and its anchors, None for one that rdlite cannot decode."""
    if key == rows.REFERENCE:
        return _SSDLite320(), None
    if key == "yolov3":
        return YOLOv3(CLASSES), None
    if key.startswith("refinedetlite"):
        width = int(key.removeprefix("refinedetlite"))
        return RefineDetLite(CLASSES, width=width), DEFAULT_SHAPES
    if key.startswith("baseline"):
        res2block = key != "baseline-a"
        return RefineDetLite(CLASSES, res2block=res2block, light_head=False), DEFAULT_SHAPES
    head, backbone = key.split("-")
    return build_detector(head, backbone, CLASSES), head_shapes(head, backbone)


@torch.no_grad()
def _settle_norms(network: nn.Module, side: int) -> None:
    """Give batch normalisations the statistics of noise.

    Without them activations grow or vanish from layer to layer, and numbers too small for float32's
    normal range take longer.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the plain mean over the batches
    network.train()
    network(255 * torch.rand(4, 3, side, side))
    network.eval()


class _SSDLite320(nn.Module):
    """torchvision's, without its pre- and post-processing: raw logits and offsets."""

    def __init__(self) -> None:
        super().__init__()
        from torchvision.models.detection import ssdlite320_mobilenet_v3_large

        whole = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None)
        self.backbone, self.head = whole.backbone, whole.head

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return self.head(list(self.backbone(x).values()))  # type: ignore[no-any-return]


def _export_plain(network: nn.Module, path: Path, side: int) -> None:
    """A float NCHW image in, what the network returns out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's exporter uses what PyTorch deprecates
        program = torch.onnx.export(
            network, (torch.zeros(1, 3, side, side),), dynamo=True, verbose=False
        )
    program.save(path)
