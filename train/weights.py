"""Weights from and to files: safetensors, training checkpoints and exported .onnx models."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from rdlite.errors import ModelError
from rdlite.modelfile import DEFAULT_MODEL


def read_weights(source: str | Path) -> dict[str, Tensor]:
    """Read a state dict of `train.model.RefineDetLite`.

    Args:
        source: A `.safetensors` file, a `.pt` checkpoint of a training run (its averaged weights
            are taken), a `.onnx` file that `python -m train export` wrote, or "default" for the
            model that rdlite ships.

    Returns:
        Name to float32 tensor.

    Raises:
        ModelError: The file does not exist or is of none of these kinds.
    """
    path = Path(DEFAULT_MODEL if str(source) == "default" else source)
    readers = {".safetensors": _read_safetensors, ".pt": _read_checkpoint, ".onnx": _read_onnx}
    if not path.is_file():
        raise ModelError(
            f"no weights at {path}; wanted a file of kind {', '.join(readers)}, or 'default'"
        )
    if path.suffix not in readers:
        raise ModelError(f"{path} is no weights file; wanted one of kind {', '.join(readers)}")
    return {name: tensor.float() for name, tensor in readers[path.suffix](path).items()}


def load_weights(model: nn.Module, source: str | Path) -> None:
    """Load a file's weights into a model of exactly that layout.

    Batch counters may be missing; anything else that is missing, left over or of another shape is
    an error.

    Raises:
        ModelError: The file does not fit; the first differences are named.
    """
    weights = read_weights(source)
    own = {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    wrong = [
        name
        for name, value in own.items()
        if name not in weights or weights[name].shape != value.shape
    ]
    wrong += [name for name in weights if name not in own]
    if wrong:
        raise ModelError(
            f"{source} does not fit this network: {len(wrong)} tensors are missing, left over or "
            f"of another shape ({', '.join(wrong[:3])}, ...); check the width, the classes and the "
            "architecture switches"
        )
    model.load_state_dict(weights, strict=False)


def write_weights(model: nn.Module, path: str | Path) -> None:
    """Write a model's state dict as float32 safetensors, without batch counters."""
    from safetensors.torch import save_file

    state = {
        k: v.contiguous().cpu()
        for k, v in model.state_dict().items()
        if "num_batches_tracked" not in k
    }
    save_file(state, path)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


def _read_checkpoint(path: Path) -> dict[str, Tensor]:
    state = torch.load(path, map_location="cpu", weights_only=True)
    if "ema" not in state:
        raise ModelError(
            f"{path} is no checkpoint of `python -m train fit`: it holds no averaged weights"
        )
    return {k: v for k, v in state["ema"].items() if not k.endswith("num_batches_tracked")}


def _read_onnx(path: Path) -> dict[str, Tensor]:
    import onnx
    from onnx import numpy_helper

    initializers = onnx.load(path).graph.initializer
    arrays = {i.name: numpy_helper.to_array(i) for i in initializers if "." in i.name}
    return {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
