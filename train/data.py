"""The training set as samples, and as a stream of batches that a resumed run continues exactly."""

from __future__ import annotations

import atexit
import hashlib
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypedDict

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from rdlite.evaluate.dataset import DataError
from train.augment import AugmentConfig, Targets, augment, mosaic, plain
from train.cache import ImageCache, open_cache
from train.coco import CocoImage, CocoSet, load_coco
from train.validation import held_out


class Samples(Protocol):
    """What `make_loader` makes batches of."""

    @property
    def path(self) -> Path:
        """What errors name."""
        ...

    def __len__(self) -> int: ...

    def sample(self, index: int, *, epoch: int, resolution: int) -> tuple[np.ndarray, Targets]:
        """Make one sample: uint8 (R, R, 3) BGR, and its targets."""
        ...


class DetectionDataset:
    """Samples of a COCO set, each a pure function of (seed, epoch, index, resolution).

    Images that could not be decoded are left out; `cache.failed` names them.

    Args:
        coco: The annotations.
        cache: The decoded images, in the same order.
        seed: Seed of the augmentation.
        config: The augmentation; None only resizes.
        holdout: Share of the images that is left out; see `train.validation.held_out`.
        repeat: See `repeat_factors`; 0 shows every image once an epoch.

    Attributes:
        held_out: File names of the images that are left out for validation.
    """

    def __init__(
        self,
        coco: CocoSet,
        cache: ImageCache,
        *,
        seed: int = 0,
        config: AugmentConfig | None = None,
        holdout: float = 0.0,
        repeat: float = 0.0,
    ) -> None:
        if len(cache) != len(coco.images):
            raise DataError(
                f"{coco.path} lists {len(coco.images)} images but {cache.path} holds {len(cache)}; "
                "open the cache of this annotation file"
            )
        self.coco = coco
        self.path = coco.path
        self.cache = cache
        self.seed = seed
        self.config = config
        readable = cache.readable.tolist()
        self.held_out = held_out(coco, holdout, readable=readable)
        self._indices = np.array(
            [i for i in readable if coco.images[i].file_name not in self.held_out], np.int64
        )
        self._samples = self._indices
        if repeat:
            times = repeat_factors(self.images, repeat)
            # A factor of 2.3 is 2 or 3, drawn once: an epoch keeps its length.
            whole = np.floor(times + np.random.default_rng(seed).random(len(times)))
            self._samples = np.repeat(self._indices, whole.astype(np.int64))

    def __len__(self) -> int:
        return len(self._samples)

    @property
    def images(self) -> list[CocoImage]:
        """The annotated images that samples are made of, each once."""
        return [self.coco.images[index] for index in self._indices.tolist()]

    def sha256(self) -> str:
        """Digest of all that is learned from: the images trained on, their boxes and classes."""
        digest = hashlib.sha256(self.coco.sha256().encode())
        for image in self.images:
            digest.update(image.file_name.encode() + image.targets.score.tobytes())
        return digest.hexdigest()

    def summary(self) -> str:
        """Say in one line what is trained on, and what was left out, if anything was."""
        targets = [image.targets for image in self.images]
        objects = sum(int((~target.ignore).sum()) for target in targets)
        regions = sum(int(target.ignore.sum()) for target in targets)
        text = (
            f"{self.coco.path.name}: {len(targets)} images, {objects} objects, {regions} ignore "
            f"regions, {len(self.coco.names)} classes"
        )
        counts = {
            "held out to measure AP on": len(self.held_out),
            "images unreadable": len(self.cache.failed),
            "boxes without area in their image": self.coco.dropped_boxes,
        } | {reason: len(names) for reason, names in self.coco.left_out.items()}
        left_out = [f"{count} {reason}" for reason, count in counts.items() if count]
        text += f"; left out: {', '.join(left_out)}" if left_out else ""
        more = len(self) - len(targets)
        text += f"; {more} more samples an epoch of images with rare classes" if more else ""
        notes = [f"{what}: {', '.join(where)}" for what, where in self.coco.notes.items()]
        return "; ".join([text, *notes])

    def sample(self, index: int, *, epoch: int, resolution: int) -> tuple[np.ndarray, Targets]:
        """Make one sample: uint8 (R, R, 3) BGR, and targets with boxes in [0, 1]."""
        config = self.config
        if config is None:
            return plain(*self._annotated(index), resolution=resolution)
        rng = np.random.default_rng((self.seed, epoch, index))
        may_be = config.mosaic_prob > 0 and resolution < config.mosaic_below
        if not (may_be and rng.random() < config.mosaic_prob):
            image, targets = self._annotated(index)
            return augment(image, targets, resolution=resolution, rng=rng, config=config)
        smaller = replace(config, expand_prob=0.0)  # a quarter is zoomed out as it is
        others = rng.integers(len(self), size=3).tolist()
        quarters = [
            augment(image, targets, resolution=resolution // 2, rng=rng, config=smaller)
            for image, targets in map(self._annotated, [index, *others])
        ]
        return mosaic(quarters)

    def _annotated(self, index: int) -> tuple[np.ndarray, Targets]:
        """A sample's whole image, and its annotations with boxes in pixels of it."""
        position = int(self._samples[index])
        image = self.cache[position]
        entry = self.coco.images[position]
        scale = np.array([*image.shape[1::-1]] * 2, np.float32) / np.array([*entry.size] * 2)
        targets = entry.targets
        boxes = (targets.boxes * scale).astype(np.float32)
        return image, Targets(boxes, targets.labels, targets.ignore, targets.score)


def repeat_factors(images: Sequence[CocoImage], share: float) -> np.ndarray:
    """How often an epoch should show each image, so that rare classes are seen more.

    Repeat factor sampling (LVIS, arXiv 1908.03195 §4.1): a class that is in a share f of the images
    has the factor max(1, sqrt(share / f)), an image the largest of the factors of its classes.

    Args:
        images: The annotated images; ignore regions do not count.
        share: Share of the images that a class must be in not to be repeated.

    Returns:
        float64 (n,), 1 or more.
    """
    classes = [np.unique(i.targets.labels[~i.targets.ignore]) for i in images]
    count = np.bincount(np.concatenate([np.zeros(0, np.int64), *classes]))
    factors = np.sqrt(share * len(images) / np.maximum(count, 1)).clip(min=1)
    return np.array([factors[present].max(initial=1.0) for present in classes])


def open_dataset(
    annotations: str | Path,
    images: str | Path,
    *,
    cache: str | Path,
    max_side: int = 512,
    seed: int = 0,
    config: AugmentConfig | None = None,
    holdout: float = 0.0,
    repeat: float = 0.0,
    min_score: float | None = None,
    progress: bool = True,
) -> DetectionDataset:
    """Open a COCO set for training, decoding its images into `cache` the first time.

    Args:
        annotations: COCO json, VOC or YOLO annotations; see `train.formats.read_annotations`.
        images: Folder of images or of tar shards, or one tar.
        cache: Folder for the decoded images; 3 bytes a pixel.
        max_side: Longest side kept in the cache, in pixels.
        seed: Seed of the augmentation.
        config: The augmentation; None only resizes.
        holdout: Share of the images that is left out; see `train.validation.held_out`.
        repeat: As for `DetectionDataset`.
        min_score: As for `load_coco`.
        progress: Whether to show a progress bar while decoding.

    Raises:
        DataError: As `load_coco` and `train.cache.open_cache`.
    """
    coco = load_coco(annotations, images, min_score=min_score)
    entries = [(image.file_name, image.size) for image in coco.images]
    decoded = open_cache(
        coco.path,
        Path(images),
        entries,
        folder=Path(cache),
        max_side=max_side,
        progress=progress,
    )
    return DetectionDataset(coco, decoded, seed=seed, config=config, holdout=holdout, repeat=repeat)


class Batch(TypedDict):
    """What the loader yields.

    `images` uint8 (B, R, R, 3) BGR, contiguous; `targets` one dict per image with `boxes` float32
    (n, 4) x1 y1 x2 y2 in [0, 1], `labels` int64 (n,), `ignore` bool (n,), `score` float32 (n,).
    """

    images: torch.Tensor
    targets: list[dict[str, torch.Tensor]]
    step: int
    epoch: int


class _Request(NamedTuple):
    """One batch to make: everything that decides its content."""

    step: int
    epoch: int
    indices: np.ndarray
    resolution: int


class _Plan(Sampler[_Request]):
    """Which images make up which step; a pure function of the step."""

    def __init__(
        self,
        images: int,
        *,
        batch_size: int,
        seed: int,
        steps: range,
        resolution_at: Callable[[int], int],
        part: tuple[int, int],
    ) -> None:
        self.images = images
        self.batch_size = batch_size
        self.seed = seed
        self.steps = steps
        self.resolution_at = resolution_at
        self.part, self.parts = part

    def __iter__(self) -> Iterator[_Request]:
        per_epoch = self.images // self.batch_size
        order, ordered_epoch = np.empty(0, np.int64), -1
        for step in self.steps:
            epoch, position = divmod(step, per_epoch)
            if epoch != ordered_epoch:
                order = np.random.default_rng((self.seed, epoch)).permutation(self.images)
                ordered_epoch = epoch
            first = position * self.batch_size
            indices = order[first : first + self.batch_size][self.part :: self.parts]
            yield _Request(step, epoch, indices, self.resolution_at(step))


class _Batches(Dataset[tuple[_Request, torch.Tensor, list[Targets]]]):
    """Make whole batches in a worker, so that all images cross over as one tensor."""

    def __init__(self, dataset: Samples) -> None:
        self.dataset = dataset

    def __getitem__(self, request: _Request) -> tuple[_Request, torch.Tensor, list[Targets]]:
        side = request.resolution
        images = np.empty((len(request.indices), side, side, 3), np.uint8)
        targets = []
        for row, index in enumerate(request.indices.tolist()):
            images[row], target = self.dataset.sample(index, epoch=request.epoch, resolution=side)
            targets.append(target)
        return request, torch.from_numpy(images), targets


def steps_per_epoch(dataset: Samples, batch_size: int) -> int:
    """Number of whole batches in the set.

    The images left over at the end of an epoch are dropped; each epoch has another order, so they
    are different ones each time.

    Raises:
        DataError: The set is smaller than one batch.
    """
    if len(dataset) < batch_size:
        raise DataError(
            f"{dataset.path} has {len(dataset)} readable images, fewer than one batch of "
            f"{batch_size}; give a smaller batch size"
        )
    return len(dataset) // batch_size


def make_loader(
    dataset: Samples,
    *,
    batch_size: int,
    workers: int,
    seed: int,
    resolution_at: Callable[[int], int],
    stop_step: int,
    start_step: int = 0,
    part: tuple[int, int] = (0, 1),
    pin: bool = False,
) -> Iterator[Batch]:
    """Yield the batches of steps `start_step` to `stop_step` - 1.

    A batch depends on the seeds and its step alone: a run that starts at step s sees exactly what
    an uninterrupted run sees from s on, whatever the number of workers.

    Args:
        dataset: Where samples come from.
        batch_size: Images in a batch.
        workers: Processes that make batches; 0 makes them in this process.
        seed: Seed of the order of images.
        resolution_at: Side of the samples for a step; called in this process, ahead of the step.
        stop_step: First step that is not made.
        start_step: First step that is made.
        part: (k, n): yield only every n-th image of each batch, from the k-th on; what one of n
            processes trains on.
        pin: Put images into page-locked memory, from which a GPU copies while it computes.

    Raises:
        DataError: The set is smaller than one batch.
    """
    steps_per_epoch(dataset, batch_size)
    plan = _Plan(
        len(dataset),
        batch_size=batch_size,
        seed=seed,
        steps=range(start_step, stop_step),
        resolution_at=resolution_at,
        part=part,
    )
    loader = DataLoader(
        _Batches(dataset),
        batch_size=None,
        sampler=plan,
        num_workers=workers,
        collate_fn=_same,
        worker_init_fn=_begin_worker,
        pin_memory=pin,
        prefetch_factor=2 if workers else None,
    )
    return _stream(loader)


def _stream(loader: DataLoader[Any]) -> Iterator[Batch]:
    for request, images, targets in loader:
        yield {
            "images": images,
            "targets": [_tensors(target) for target in targets],
            "step": request.step,
            "epoch": request.epoch,
        }


def _tensors(targets: Targets) -> dict[str, torch.Tensor]:
    return {
        "boxes": torch.from_numpy(targets.boxes),
        "labels": torch.from_numpy(targets.labels),
        "ignore": torch.from_numpy(targets.ignore),
        "score": torch.from_numpy(targets.score),
    }


def _same(item: Any) -> Any:
    return item


@atexit.register
def _kill_workers() -> None:
    """End processes that do not end by themselves, for which multiprocessing waits after this."""
    if hasattr(signal, "SIGCHLD"):  # PyTorch would call it a failure of the run
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for process in multiprocessing.active_children():
        process.kill()


def _begin_worker(worker: int) -> None:
    # Ctrl-C, systemd and Slurm signal every process of a run; only the one that saves it may decide
    # when to stop. Workers end with it: see `_kill_workers`.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
