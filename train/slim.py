"""A narrower network out of a wider one: some channels are kept, the same ones everywhere.

Channels that meet in a sum, or that one layer writes and others read, are one *space* and are
selected together: those of a stage, whose residual blocks add to each other, those of all laterals,
or those between two layers of a block. `wiring` says which spaces a layer writes and reads; how
many channels each has, and in how many groups, follows from the shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from train.model import ConvBN, Res2Block

STAGES = ("backbone.stage1", "backbone.stage2", "backbone.stage3")
EXTRAS = ("extra.0", "extra.1")


class Wires(NamedTuple):
    """The spaces of a layer's channels.

    Several, of equal size, where it writes for a split or reads a concatenation; none where the
    number of channels is the same in every width.
    """

    writes: tuple[str, ...]
    reads: tuple[str, ...]


def wiring(model: nn.Module) -> dict[str, Wires]:
    """The spaces of every layer of a `RefineDetLite` that its width changes, by the layer's name.

    A space has the name of the block or layer that it leaves.
    """
    found: dict[str, Wires] = {}
    space: tuple[str, ...] = ()  # the stem's
    for stage in STAGES:
        found |= _chain(f"{stage}.0", space, stage)
        space = (stage,)
        for name, block in list(model.get_submodule(stage).named_children())[1:]:
            wire = _splits if isinstance(block, Res2Block) else _chain
            found |= wire(f"{stage}.{name}", space, stage)
    for extra in EXTRAS:
        found |= _chain(extra, space, extra)
        space = (extra,)
    for i, level in enumerate((*STAGES[1:], *EXTRAS)):
        for head, reads, writes in (
            (f"arm.{i}", level, f"arm.{i}"),
            (f"lateral.{i}", level, "fused"),
            (f"odm.{i}", "fused", f"odm.{i}"),
        ):
            plain = isinstance(model.get_submodule(head), ConvBN)
            found[head if plain else f"{head}.skip"] = Wires((writes,), (reads,))
            found |= {} if plain else _chain(head, (reads,), writes)
        for predictor in ("arm_loc", "arm_conf", "odm_loc", "odm_conf"):
            found[f"{predictor}.{i}"] = Wires((), (f"{predictor[:3]}.{i}",))
    return found


def _chain(block: str, reads: tuple[str, ...], writes: str) -> dict[str, Wires]:
    """A Bottleneck, a ResBlock, or the longer path of a LightHead."""
    reduced, middle = f"{block}.reduce", f"{block}.conv"
    return {
        reduced: Wires((reduced,), reads),
        middle: Wires((middle,), (reduced,)),
        f"{block}.expand": Wires((writes,), (middle,)),
    }


def _splits(block: str, reads: tuple[str, ...], writes: str) -> dict[str, Wires]:
    """A Res2Block: the next split is added to what a branch writes, so both are one space."""
    first, *passing, last = (f"{block}.{i}" for i in range(5))
    branches = zip((*passing, last)[1:], passing, strict=True)
    return {
        f"{block}.reduce": Wires((first, *passing), reads),
        **{f"{block}.branches.{i}": Wires((w,), (r,)) for i, (w, r) in enumerate(branches)},
        f"{block}.expand": Wires((writes,), (first, *passing[1:], last)),
    }


class Narrowed(NamedTuple):
    """A wider network's tensors, cut to a narrower one's shapes.

    Attributes:
        tensors: By name.
        share: How much of the `importance` is kept: the mean of the spaces that lost channels.
    """

    tensors: dict[str, Tensor]
    share: float


def narrow(model: nn.Module, tensors: Mapping[str, Tensor]) -> Narrowed:
    """Cut a wider network's tensors to the shapes of a model.

    The running statistics of batch normalisation are those of the wider network: each layer has
    lost inputs, so they hold only after some batches in training mode.

    Args:
        model: A `RefineDetLite`.
        tensors: Of a network that differs from it in nothing but a greater width, or of its
            backbone alone, by name.
    """
    wires = {k: v for k, v in wiring(model).items() if any(n.startswith(f"{k}.") for n in tensors)}
    scores = importance(wires, tensors)
    kept = select(model, wires, scores)
    cut = dict(tensors)
    for layer, (writes, reads) in wires.items():
        for name in (n for n in tensors if n.startswith(f"{layer}.")):
            rows, columns = (
                torch.cat([kept[space] for space in spaces]) if spaces else None
                for spaces in (writes, reads)
            )
            cut[name] = _cut(tensors[name], rows, columns, _convolution(model, layer).groups)
    smaller = {space: mask for space, mask in kept.items() if not mask.all()}
    shares = [float(scores[s][mask].sum() / scores[s].sum()) for s, mask in smaller.items()]
    return Narrowed(cut, sum(shares) / len(shares) if shares else 1.0)


def importance(wires: Mapping[str, Wires], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """How much each channel of a space matters: the L1 norms of the kernels that write it.

    Li et al., arXiv 1608.08710 §3.1; where several layers write to one sum, all of them count.
    """
    found: dict[str, Tensor] = {}
    for layer, (writes, _) in wires.items():
        if writes:
            norms = tensors[f"{layer}.conv.weight"].abs().sum(dim=(1, 2, 3))
            for space, part in zip(writes, norms.chunk(len(writes)), strict=True):
                found[space] = found.get(space, 0) + part
    return found


def select(
    model: nn.Module, wires: Mapping[str, Wires], scores: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Masks of the channels that a model has room for, by space.

    Where a grouped convolution writes or reads a space, as many are taken from each of its groups.
    """
    count: dict[str, int] = {}
    groups = dict.fromkeys(scores, 1)
    for layer, (writes, reads) in wires.items():
        conv = _convolution(model, layer)
        count |= {space: conv.out_channels // len(writes) for space in writes}
        groups |= {space: max(groups[space], conv.groups) for space in (*writes, *reads)}
    return {
        space: _strongest(score, count[space], groups[space]) for space, score in scores.items()
    }


def _convolution(model: nn.Module, layer: str) -> nn.Conv2d:
    found = model.get_submodule(layer)
    found = found.conv if isinstance(found, ConvBN) else found
    assert isinstance(found, nn.Conv2d)
    return found


def _strongest(score: Tensor, count: int, groups: int) -> Tensor:
    parts = score.reshape(groups, -1)
    best = parts.topk(count // groups).indices
    return torch.zeros_like(parts, dtype=torch.bool).scatter(1, best, value=True).flatten()


def _cut(tensor: Tensor, rows: Tensor | None, columns: Tensor | None, groups: int) -> Tensor:
    """A kernel, or a value of each output channel, with the masked channels alone."""
    tensor = tensor if rows is None else tensor[rows]
    if columns is None or tensor.ndim == 1:
        return tensor
    parts = zip(tensor.chunk(groups), columns.chunk(groups), strict=True)
    return torch.cat([part[:, mask] for part, mask in parts])
