"""The detector's backbone as a classifier, for pre-training."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from rdlite.errors import ModelError
from train.model import Backbone, initialise
from train.weights import read_weights


class Classifier(nn.Module):
    """The backbone under global average pooling and a 1x1 convolution (Table 1, stage 4).

    Args:
        num_classes: Classes.
        width: The paper's c.
        res2block: False puts the classic residual block in place of Res2Block.
    """

    def __init__(self, num_classes: int, *, width: int = 72, res2block: bool = True) -> None:
        super().__init__()
        self.backbone = Backbone(width, res2block=res2block)
        self.classifier = nn.Conv2d(self.backbone.channels[-1], num_classes, 1)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Class logits (B, K) of images (B, 3, R, R): float, BGR, 0-255."""
        _, features = self.backbone(x)
        return self.classifier(features.mean(dim=(2, 3), keepdim=True)).flatten(1)


def load_backbone(backbone: Backbone, source: str | Path) -> None:
    """Load a backbone's weights from a file of it alone, of a classifier or of a detector.

    Raises:
        ModelError: The file cannot be read or its backbone does not fit; differences are named.
    """
    weights = {
        name.removeprefix("backbone."): value
        for name, value in read_weights(source).tensors.items()
        if name.startswith("backbone.")
    }
    own = {k: v for k, v in backbone.state_dict().items() if "num_batches_tracked" not in k}
    wrong = sorted(own.keys() ^ weights.keys())
    wrong += [k for k in own.keys() & weights.keys() if own[k].shape != weights[k].shape]
    if wrong:
        raise ModelError(
            f"{source} does not fit this backbone: {len(wrong)} tensors are missing, left over or "
            f"of another shape ({', '.join(wrong[:3])}, ...); check width and res2block"
        )
    backbone.load_state_dict(weights, strict=False)
