from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from rdlite.errors import ModelError, OptionError
from train.config import TrainConfig
from train.engine import Trainer
from train.model import ConvBN, RefineDetLite
from train.slim import importance, narrow, select, wiring
from train.weights import load_weights, write_weights

IMAGE = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0)) * 255


def network(width: int, classes: int = 3, **switches: bool) -> RefineDetLite:
    """A network in which every layer has a say: residual blocks do not begin as the identity."""
    torch.manual_seed(width)
    model = RefineDetLite(classes, width=width, **switches).eval()
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        if name.endswith(("bn.weight", "bn.running_var")):
            nn.init.uniform_(value, 0.5, 1.5)
        elif name.endswith(("bias", "running_mean")):
            nn.init.normal_(value, std=0.1)
    return model


def state(model: nn.Module) -> dict[str, Tensor]:
    return {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}


def silence_dropped(wide: RefineDetLite, narrower: RefineDetLite) -> None:
    """Make every channel of the wide network that the narrower one has no room for give zeros."""
    wires = wiring(wide)
    kept = select(narrower, wires, importance(wires, state(wide)))
    for layer, (writes, _) in wires.items():
        if writes:
            dropped = ~torch.cat([kept[space] for space in writes])
            found = wide.get_submodule(layer)
            for value in (found.conv.weight, found.bn.weight, found.bn.bias):
                value.data[dropped] = 0


SWITCHES: list[dict[str, bool]] = [{}, {"res2block": False}, {"light_head": False}]


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
@pytest.mark.parametrize("widths", [(72, 48), (72, 32), (48, 16)], ids=str)
def test_a_network_without_its_dead_channels_gives_the_same(
    widths: tuple[int, int], switches: dict[str, bool]
) -> None:
    wide, narrower = (network(width, **switches).double() for width in widths)
    silence_dropped(wide, narrower)
    narrower.load_state_dict(narrow(narrower, state(wide)).tensors, strict=False)
    with torch.inference_mode():
        for ours, theirs in zip(narrower(IMAGE.double()), wide(IMAGE.double()), strict=True):
            assert theirs.std() > 1e-3
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_the_same_width_keeps_every_bit(switches: dict[str, bool]) -> None:
    source = state(network(32, **switches))
    cut, share = narrow(network(32, **switches), source)
    assert cut.keys() == source.keys() and share == 1
    assert all(torch.equal(cut[name], source[name]) for name in source)


def test_every_layer_but_the_stem_is_wired() -> None:
    model = network(16)
    layers = {n for n, m in model.named_modules() if isinstance(m, ConvBN)}
    layers |= {n for n, _ in model.named_modules() if n.startswith(("arm_", "odm_")) and "." in n}
    assert wiring(model).keys() == layers - {"backbone.stem"}


def test_the_strongest_channels_are_kept_and_their_order() -> None:
    wide, narrower = network(32), network(16)
    strong = torch.tensor([i % 4 in (1, 2) for i in range(128)])  # of stage 1: 64 of 128
    wide.backbone.stage1[0].expand.conv.weight.data[strong] *= 20  # one of four layers summed
    cut, share = narrow(narrower, state(wide))
    name = "backbone.stage1.2.expand.bn.bias"
    assert torch.equal(cut[name], state(wide)[name][strong])
    assert 0.5 < share < 0.9


def test_training_begins_from_a_wider_network_and_matches_classes(tmp_path: Path) -> None:
    wide, model, path = network(48), network(32, classes=2), tmp_path / "wide.pt"
    torch.save({"ema": wide.state_dict(), "names": ["cat", "dog", "bus"], "config": {}}, path)
    taken = load_weights(model, path, names=["Bus", "gizmo"])
    assert taken.new == ("gizmo",)
    assert "c = 48 narrowed to 32, " in str(taken) and "1 classes begin" in str(taken)
    for ours, theirs in ((0, 0), (1, 3)):  # the background and the bus, of the first anchor
        assert model.odm_conf[0].bias[ours] == wide.odm_conf[0].bias[theirs]
    columns = set(wide.odm_conf[0].weight[3].flatten().tolist())
    assert set(model.odm_conf[0].weight[1].flatten().tolist()) < columns


def test_a_wider_backbone_fills_the_backbone_alone(tmp_path: Path) -> None:
    wide, model, untouched = network(48), network(32), network(32)
    path = tmp_path / "backbone.safetensors"
    save_file({k: v for k, v in state(wide).items() if k.startswith("backbone.")}, path)
    text = str(load_weights(model, path, names=["a", "b", "c"]))
    assert text.startswith("c = 48 narrowed to 32, ") and "the backbone is taken" in text
    cut = narrow(untouched, state(wide)).tensors
    for name, value in state(model).items():
        wanted = cut if name.startswith("backbone.") else state(untouched)
        assert torch.equal(value, wanted[name]), name


@pytest.mark.parametrize(
    ("ours", "message"),
    [
        ({"width": 48}, "c = 32, this network 48: .* give --width 32 or less"),
        ({"width": 16, "res2block": False}, "does not fit this network: .*architecture switches"),
        ({"width": 16, "light_head": False}, "does not fit this network: .*architecture switches"),
    ],
)
def test_narrower_and_other_networks_are_refused(
    ours: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "w.safetensors"
    write_weights(network(32), path)
    with pytest.raises(ModelError, match=message):
        load_weights(network(**ours), path)


def test_a_narrowed_backbone_cannot_be_frozen(shapes: tuple[Path, Path], tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    write_weights(network(32, classes=2), path)
    data, images = map(str, shapes)
    folders = {"out": str(tmp_path / "run"), "cache": str(tmp_path / "cache")}
    config = TrainConfig(
        data=data, images=images, **folders, width=16, init=str(path), freeze="backbone", workers=0
    )
    with pytest.raises(OptionError, match=r"wider than 16, .*leave out --freeze backbone"):
        Trainer(config)
