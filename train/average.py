"""The mean of several trained networks of one lineage ("model soup", arXiv 2203.05482)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from rdlite.errors import OptionError
from train import provenance
from train.checkpoint import checkpoint_path, source_path
from train.weights import Weights, read_weights, write_tensors


def average_weights(sources: Sequence[str], shares: Sequence[float], output: str) -> None:
    """Average weights and statistics, and write them as safetensors.

    Networks that were trained on from the same weights often lie in one basin, where their mean is
    better than either; networks of different beginnings do not. The file says of which networks it
    is the mean, and has the classes, the anchors and the resolution of the first that says them.

    Args:
        sources: Folders of runs, .pt, .onnx or .safetensors files, or names of models that come
            with rdlite.
        shares: How much of each; they add up to 1.
        output: .safetensors file to write.

    Raises:
        OptionError: There is not one share for each source, they do not add up to 1, the output
            has another ending, or the networks, their classes or their anchors differ.
        ModelError: A file cannot be read.
    """
    if len(shares) != len(sources) or len(sources) < 2 or abs(sum(shares) - 1) > 1e-6:
        raise OptionError(
            f"shares must be one for each of two or more sources and add up to 1, got "
            f"{', '.join(map(str, shares))} for {len(sources)}"
        )
    if Path(output).suffix != ".safetensors":
        raise OptionError(f"output must be a .safetensors file, got {output}")
    found = [read_weights(source) for source in sources]
    first = found[0]
    for source, weights in zip(sources, found, strict=True):
        shapes = {name: tensor.shape for name, tensor in weights.tensors.items()}
        if shapes != {name: tensor.shape for name, tensor in first.tensors.items()} or (
            None not in (weights.names, first.names) and weights.names != first.names
        ):
            raise OptionError(f"{source} has another architecture or classes than {sources[0]}")
        if None not in (weights.shapes, first.shapes) and weights.shapes != first.shapes:
            raise OptionError(f"{source} has other anchors than {sources[0]}")
    with torch.no_grad():
        mean = {
            name: sum(s * w.tensors[name] for s, w in zip(shares, found, strict=True))
            for name in first.tensors
        }
    known = {
        field: next((value for w in found if (value := getattr(w, field)) is not None), None)
        for field in ("names", "shapes", "category_ids", "resolution")
    }
    parts = [
        (provenance.short(checkpoint_path(source_path(source))), share, weights.provenance)
        for source, share, weights in zip(sources, shares, found, strict=True)
    ]
    write_tensors(Weights(mean, **known, provenance=provenance.of_mean(parts)), output)
