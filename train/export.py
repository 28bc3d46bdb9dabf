"""A trained network as one .onnx file that `rdlite.Detector` opens."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rdlite.errors import ModelError
from rdlite.modelfile import ModelSpec
from rdlite.session import Session
from train.anchors import DEFAULT_SHAPES, VARIANCES, AnchorShapes, make_anchors
from train.config import RESOLUTION
from train.graph import split_kernels, store_half
from train.model import Outputs, RefineDetLite

PARITY_LIMIT = 1e-3
"""Largest difference of any output between PyTorch and onnxruntime in fp32 arithmetic, as a share
of the largest value of that output where that is above 1: logits of a few hundred do occur."""


class _FromImage(nn.Module):
    """The network behind the input that the run time feeds: uint8 (1, H, W, 3) BGR.

    Transposing the bytes before the cast costs 0.25 ms, transposing the floats after it 4 ms.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.model(image.permute(0, 3, 1, 2).float()))


def export_onnx(
    model: RefineDetLite,
    path: str | Path,
    *,
    names: list[str],
    category_ids: list[int],
    provenance: dict[str, Any],
    half: bool = True,
    resolution: int = RESOLUTION,
    shapes: AnchorShapes = DEFAULT_SHAPES,
) -> float:
    """Write a model file and compare it with the network.

    Args:
        model: The network; its weights are stored under their PyTorch names, so that training can
            start from the file.
        path: The .onnx file to write, only if it agrees with the network.
        names: Class names in the order of the predictor.
        category_ids: COCO category id of each.
        provenance: What made the weights; any JSON values.
        half: Store convolution kernels as float16. onnxruntime turns them back into float32 while
            loading, so that the file halves and nothing else changes but their rounding.
        resolution: Side of the input in pixels, a multiple of 16.
        shapes: The anchors that the network was trained with.

    Returns:
        `parity` of the network and the file, with the kernels that the file stores.

    Raises:
        ModelError: The difference is above `PARITY_LIMIT`.
    """
    import onnx

    model = _rounded(model) if half else model
    model.eval()
    spec = ModelSpec(
        names=tuple(names),
        category_ids=tuple(category_ids),
        anchors=make_anchors(resolution, shapes).numpy(),
        variances=VARIANCES,
        input_size=(resolution, resolution),
        weights_sha256=weights_sha256(model),
        provenance=provenance,
    )
    proto = _trace(model, resolution)
    split_kernels(proto)
    if half:
        store_half(proto)
    onnx.helper.set_model_props(proto, spec.to_metadata())
    path = Path(path)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        temporary = Path(folder) / path.name
        onnx.save(proto, temporary)
        difference = parity(model, temporary)
        if not difference <= PARITY_LIMIT:
            raise ModelError(
                f"{path} was not written: onnxruntime and PyTorch differ by {difference:.2g}, "
                f"more than {PARITY_LIMIT:g}"
            )
        temporary.replace(path)
    return difference


def set_provenance(path: str | Path, provenance: dict[str, Any]) -> None:
    """Replace what a model file says about its making; everything else stays."""
    import onnx

    proto = onnx.load(path)
    spec = dataclasses.replace(Session(path).spec, provenance=provenance)
    onnx.helper.set_model_props(proto, spec.to_metadata())
    temporary = Path(f"{path}.partial")
    onnx.save(proto, temporary)
    temporary.replace(path)


def parity(model: RefineDetLite, path: Path, *, images: int = 3) -> float:
    """Largest difference of any output between a network and a model file, over random images.

    Returns:
        The difference, divided by the largest value of the output where that is above 1.
    """
    session = Session(path)
    rng = np.random.default_rng(0)
    worst = 0.0
    for _ in range(images):
        image = rng.integers(0, 256, (1, *session.spec.input_size, 3), dtype=np.uint8)
        with torch.no_grad():
            ours = _FromImage(model)(torch.from_numpy(image))
        for a, b in zip(ours, session.run(image), strict=True):
            largest = max(1.0, float(np.abs(b).max()))
            worst = max(worst, float(np.abs(a[0].numpy() - b).max()) / largest)
    return worst


def weights_sha256(model: nn.Module) -> str:
    """SHA-256 over names and float32 bytes of all weights, in the order of the state dict."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _rounded(model: RefineDetLite) -> RefineDetLite:
    """A copy whose convolution kernels are float16 values."""
    model = copy.deepcopy(model).cpu().float()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.copy_(module.weight.half().float())
    return model


def _trace(model: RefineDetLite, resolution: int) -> Any:
    """The ONNX graph with batch normalisation kept apart, so that the weights keep their names.

    onnxruntime folds it into the convolutions while loading.
    """
    from onnx_ir.passes.common import CommonSubexpressionEliminationPass
    from onnxscript import optimizer

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns of a missing torchvision
    with warnings.catch_warnings():
        # PyTorch 2.13's exporter uses what PyTorch 2.13 deprecates.
        warnings.filterwarnings(
            "ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning
        )
        program = torch.onnx.export(
            _FromImage(model).eval(),
            (torch.zeros(1, resolution, resolution, 3, dtype=torch.uint8),),
            input_names=["image"],
            output_names=list(Outputs._fields),
            dynamo=True,
            optimize=False,  # would fold the batch normalisations away
            verbose=False,
        )
    optimizer.fold_constants(program.model)
    CommonSubexpressionEliminationPass()(program.model)
    optimizer.remove_unused_nodes(program.model)
    proto = program.model_proto
    for tensor in proto.graph.initializer:
        tensor.name = tensor.name.removeprefix("model.")
    for node in proto.graph.node:
        node.input[:] = [name.removeprefix("model.") for name in node.input]
        del node.metadata_props[:]  # the exporter's notes, with the paths of its source files
        node.doc_string = ""
    return proto
