"""What a run does where its settings leave the choice: a schedule that fits the data."""

from __future__ import annotations

from dataclasses import replace

from train.config import TrainConfig

SMALLEST_BATCH_SHARE = 4
"""A small set still makes this many batches an epoch, as far as it can."""


def settle(config: TrainConfig, images: int) -> TrainConfig:
    """Fill in what is 0 or "auto": batch, epochs, learning rate and resolutions.

    Tiny sets get about 600 steps of 16 images, and the number grows a little slower than the set:
    10 thousand samples for 100 images, 17 thousand for 1,000, 90 thousand for 16,000. A network
    that starts at random gets three times as many and twice the learning rate, and begins at small
    resolutions, where a step is 2.7 times as fast.

    Args:
        config: The settings; what they say stays as it is.
        images: Size of the training set.

    Returns:
        Settings without gaps.
    """
    scratch = _from_scratch(config)
    batch = config.batch or max(1, min(16, images // SMALLEST_BATCH_SHARE))
    samples = 9_600 * (1 + images / 1_000) ** 0.8 * (3 if scratch else 1)
    return replace(
        config,
        batch=batch,
        epochs=config.epochs or round(max(1.0, samples / images), 2),
        lr=config.lr or (1e-3 if scratch else 5e-4),
        resolution=settled_resolution(config),
    )


def settled_resolution(config: TrainConfig) -> str:
    """The resolution schedule, which does not depend on the images."""
    if config.resolution != "auto":
        return config.resolution
    return "192:0.55,256:0.82,320:1" if _from_scratch(config) else "256:0.6,320:1"


def _from_scratch(config: TrainConfig) -> bool:
    return config.init is None or config.init.endswith("backbone.safetensors")


def explain(told: TrainConfig, settled: TrainConfig, images: int) -> str:
    """One line that names what `settle` chose."""
    chosen = [
        f"{name} {getattr(settled, name)}"
        for name in ("batch", "epochs", "lr", "resolution")
        if getattr(told, name) != getattr(settled, name) and not (name == "epochs" and told.minutes)
    ]
    if not chosen:
        return ""
    return f"chosen for {images} images: {', '.join(chosen)} (options of the same names override)"
