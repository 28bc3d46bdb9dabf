import io
import itertools
import os
import pickle
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")

import torch

from rdlite.evaluate.dataset import DataError
from tests.annotated import COCO_SIZE, coco_content, write_json
from train.augment import AugmentConfig
from train.data import (
    DetectionDataset,
    make_loader,
    open_dataset,
    repeat_factors,
    steps_per_epoch,
)

COUNT = 11


def picture(index: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, (COCO_SIZE[1], COCO_SIZE[0], 3), np.uint8)


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


@pytest.fixture
def coco_folder(tmp_path: Path) -> Path:
    for k in range(COUNT):
        (tmp_path / f"{k}.png").write_bytes(png(picture(k)))
    write_json(tmp_path, coco_content(COUNT))
    return tmp_path


def open_in(folder: Path, **options: Any) -> DetectionDataset:
    return open_dataset(
        folder / "set.json", folder, cache=folder / "cache", progress=False, **options
    )


def test_size_before_the_exif_rotation_is_named_as_the_reason(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.fromarray(picture(0)).save(tmp_path / "0.jpg", exif=exif)
    (tmp_path / "1.png").write_bytes(png(picture(1)))
    value = coco_content(2)
    value["images"][0]["file_name"] = "0.jpg"
    write_json(tmp_path, value)
    dataset = open_in(tmp_path)
    assert len(dataset) == 1
    reason = dataset.cache.failed["0.jpg"]
    assert "has 40x60 pixels but its boxes are for 60x40, the stored size" in reason
    assert "EXIF" in reason
    value["images"][0] |= {"width": 9, "height": 9}
    write_json(tmp_path, value)
    assert "EXIF" not in open_in(tmp_path).cache.failed["0.jpg"]


def test_cache_gives_the_decoded_pixels(coco_folder: Path) -> None:
    dataset = open_in(coco_folder)
    for k in range(COUNT):
        np.testing.assert_array_equal(dataset.cache[k], picture(k))
    assert not list((coco_folder / "cache").glob("*.part"))


def test_tar_shards_give_the_same_samples_as_files(coco_folder: Path, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    for part in range(2):
        with tarfile.open(shards / f"set-{part:02}.tar", "w") as tar:
            for k in range(part, COUNT, 2):
                tar.add(coco_folder / f"{k}.png", f"{k}.png")
    from_files = open_in(coco_folder)
    from_tars = open_dataset(
        coco_folder / "set.json", shards, cache=tmp_path / "other", progress=False
    )
    for k in range(COUNT):
        np.testing.assert_array_equal(from_tars.cache[k], from_files.cache[k])


def test_name_in_two_shards_is_not_guessed(coco_folder: Path, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    for part in range(2):
        with tarfile.open(shards / f"{part}.tar", "w") as tar:
            for k in range(part, COUNT):
                tar.add(coco_folder / f"{k}.png", f"{k}.png")
    dataset = open_dataset(
        coco_folder / "set.json", shards, cache=tmp_path / "other", progress=False
    )
    assert len(dataset) == 1
    assert "0.tar and 1.tar" in dataset.cache.failed["5.png"]


def test_larger_images_are_reduced_and_boxes_follow(coco_folder: Path) -> None:
    full = open_in(coco_folder)
    small = open_in(coco_folder, max_side=30)
    assert small.cache[0].shape == (20, 30, 3)
    boxes = [one.sample(0, epoch=0, resolution=320)[1].boxes for one in (small, full)]
    np.testing.assert_allclose(*boxes, atol=1e-6)


@pytest.mark.parametrize(
    "damage", [b"", b"not an image", png(picture(4))[:-300], png(picture(4)[:, ::2]), None]
)
def test_unreadable_image_is_skipped_and_counted(coco_folder: Path, damage: bytes | None) -> None:
    if damage is None:
        (coco_folder / "4.png").unlink()
    else:
        (coco_folder / "4.png").write_bytes(damage)

    dataset = open_in(coco_folder)

    assert len(dataset) == COUNT - 1
    assert list(dataset.cache.failed) == ["4.png"]
    assert "1 images unreadable" in dataset.summary()
    assert len(open_in(coco_folder)) == COUNT - 1  # also when the cache is opened again
    assert dataset.sample(4, epoch=0, resolution=320)[0].shape == (320, 320, 3)
    np.testing.assert_array_equal(dataset.cache[5], picture(5))


def test_set_without_readable_images_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path, coco_content(COUNT))
    with pytest.raises(DataError, match=r"none of the 11 images can be read.*0\.png"):
        open_in(tmp_path)


def test_missing_image_folder_is_refused(coco_folder: Path) -> None:
    with pytest.raises(DataError, match="nowhere does not exist"):
        open_dataset(coco_folder / "set.json", coco_folder / "nowhere", cache=coco_folder / "c")


def test_compressed_shard_is_refused(coco_folder: Path, tmp_path: Path) -> None:
    shard = tmp_path / "shards" / "a.tar"
    shard.parent.mkdir()
    with tarfile.open(shard, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("0.png"), io.BytesIO())
    with pytest.raises(DataError, match=r"a\.tar is not an uncompressed tar"):
        open_dataset(coco_folder / "set.json", shard.parent, cache=tmp_path / "c")


def pixels_file(folder: Path) -> Path:
    return next((folder / "cache").glob("*.bin"))


def test_unchanged_cache_is_not_rebuilt(coco_folder: Path) -> None:
    open_in(coco_folder)
    before = pixels_file(coco_folder).stat().st_ino
    open_in(coco_folder)
    assert pixels_file(coco_folder).stat().st_ino == before


def test_stale_cache_is_rebuilt_when_an_image_changes(coco_folder: Path) -> None:
    open_in(coco_folder)
    (coco_folder / "3.png").write_bytes(png(picture(99)))
    np.testing.assert_array_equal(open_in(coco_folder).cache[3], picture(99))


def test_stale_cache_is_rebuilt_when_the_json_changes(coco_folder: Path) -> None:
    open_in(coco_folder)
    write_json(coco_folder, coco_content(COUNT - 3))
    os.utime(coco_folder / "set.json", ns=(0, 0))
    assert len(open_in(coco_folder)) == COUNT - 3


@pytest.mark.parametrize("suffix", ["bin", "npz"])
def test_damaged_cache_is_rebuilt(coco_folder: Path, suffix: str) -> None:
    open_in(coco_folder)
    damaged = next((coco_folder / "cache").glob(f"*.{suffix}"))
    damaged.write_bytes(damaged.read_bytes()[:-100])
    np.testing.assert_array_equal(open_in(coco_folder).cache[COUNT - 1], picture(COUNT - 1))


def test_cache_refuses_a_disk_that_is_too_full(
    coco_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(DataError, match="smaller --resolution"):
        open_in(coco_folder)


def test_pickled_dataset_carries_no_pixels(coco_folder: Path) -> None:
    dataset = open_in(coco_folder)
    dataset.sample(0, epoch=0, resolution=64)
    data = pickle.dumps(dataset)
    assert len(data) < COUNT * COCO_SIZE[0] * COCO_SIZE[1] * 3
    again, sample = pickle.loads(data), {"epoch": 0, "resolution": 64}
    np.testing.assert_array_equal(again.sample(0, **sample)[0], dataset.sample(0, **sample)[0])


def test_sample_depends_on_seed_epoch_and_index_alone(coco_folder: Path) -> None:
    dataset = open_in(coco_folder, seed=3, config=AugmentConfig())
    first = dataset.sample(2, epoch=5, resolution=64)[0]
    np.random.default_rng().random()
    dataset.sample(1, epoch=5, resolution=64)
    np.testing.assert_array_equal(dataset.sample(2, epoch=5, resolution=64)[0], first)
    assert (dataset.sample(2, epoch=6, resolution=64)[0] != first).any()
    other = open_in(coco_folder, seed=4, config=AugmentConfig())
    assert (other.sample(2, epoch=5, resolution=64)[0] != first).any()


def batches(dataset: DetectionDataset, start: int, stop: int, workers: int = 0) -> list[Any]:
    return list(
        make_loader(
            dataset,
            batch_size=4,
            workers=workers,
            seed=1,
            resolution_at=lambda step: 32 + 16 * (step % 3),
            start_step=start,
            stop_step=stop,
        )
    )


STUCK = """
import time
import numpy as np
from train.augment import Targets
from train.data import make_loader

class Stuck:
    path = "a set"

    def __len__(self):
        return 8

    def sample(self, index, *, epoch, resolution):
        time.sleep(600 * epoch)
        kinds = {(0, 4): "f4", (0,): "i8"}, {(0,): "?"}, {(0,): "f4"}
        arrays = (np.zeros(shape, kind) for each in kinds for shape, kind in each.items())
        return np.zeros((resolution, resolution, 3), np.uint8), Targets(*arrays)

options = {"batch_size": 4, "workers": 1, "seed": 0, "resolution_at": lambda step: 32}
next(make_loader(Stuck(), stop_step=9, **options))
raise SystemExit("a fault of the run")
"""


def test_a_run_that_fails_does_not_wait_for_a_worker_that_never_answers(tmp_path: Path) -> None:
    (tmp_path / "train").symlink_to(Path(__file__).parents[2] / "train")
    done = subprocess.run(
        [sys.executable, "-c", STUCK], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.stderr.endswith("a fault of the run\n")


@pytest.mark.parametrize("workers", [0, 2])
def test_resumed_stream_equals_the_uninterrupted_one(coco_folder: Path, workers: int) -> None:
    dataset = open_in(coco_folder, config=AugmentConfig())
    whole = batches(dataset, 0, 7)
    resumed = batches(dataset, 3, 7, workers)
    assert [batch["step"] for batch in resumed] == [3, 4, 5, 6]
    assert [batch["epoch"] for batch in resumed] == [1, 2, 2, 3]
    for left, right in zip(whole[3:], resumed, strict=True):
        assert torch.equal(left["images"], right["images"])
        for one, other in zip(left["targets"], right["targets"], strict=True):
            assert all(torch.equal(one[key], other[key]) for key in one)


def test_batches_have_the_resolution_of_their_step(coco_folder: Path) -> None:
    made = batches(open_in(coco_folder), 0, 4)
    assert [tuple(b["images"].shape) for b in made] == [
        (4, side, side, 3) for side in (32, 48, 64, 32)
    ]
    batch = made[0]
    assert batch["images"].dtype == torch.uint8 and batch["images"].is_contiguous()
    targets = batch["targets"][0]
    assert {key: value.dtype for key, value in targets.items()} == {
        "boxes": torch.float32,
        "labels": torch.int64,
        "ignore": torch.bool,
        "score": torch.float32,
    }
    expected = [[5 / 60, 5 / 40, 25 / 60, 15 / 40], [0.5, 0.5, 50 / 60, 35 / 40]]
    torch.testing.assert_close(targets["boxes"], torch.tensor(expected))


def test_epoch_shows_no_image_twice_and_drops_others_each_time(coco_folder: Path) -> None:
    dataset = open_in(coco_folder)
    known = {dataset.sample(k, epoch=0, resolution=32)[0].tobytes(): k for k in range(COUNT)}
    stream = make_loader(
        dataset, batch_size=4, workers=0, seed=1, resolution_at=lambda step: 32, stop_step=40
    )
    epochs = [
        [known[image.numpy().tobytes()] for batch in group for image in batch["images"]]
        for _, group in itertools.groupby(stream, key=lambda batch: batch["epoch"])
    ]
    assert steps_per_epoch(dataset, 4) == 2
    assert all(len(epoch) == len(set(epoch)) == 8 for epoch in epochs)
    assert set(itertools.chain(*epochs)) == set(range(COUNT))


def test_set_smaller_than_a_batch_is_refused(coco_folder: Path) -> None:
    dataset = open_in(coco_folder)
    with pytest.raises(DataError, match="fewer than one batch of 12"):
        make_loader(
            dataset, batch_size=12, workers=0, seed=0, resolution_at=lambda step: 32, stop_step=1
        )


def with_rare_class(folder: Path, **rare: Any) -> None:
    """One image of the set has an object of another class as well."""
    content = coco_content(COUNT)
    content["categories"].append({"id": 90, "name": "rare"})
    entry = content["annotations"][0] | {"id": 999, "image_id": content["images"][3]["id"]}
    del entry["score"]
    content["annotations"].append(entry | {"category_id": 90} | rare)
    write_json(folder, content)


def test_mosaics_hold_four_images_and_end_before_the_last_side(coco_folder: Path) -> None:
    still: dict[str, Any] = {"distort_prob": 0, "expand_prob": 0}
    pasted = AugmentConfig(**still, mosaic_prob=1, mosaic_below=96)
    with_mosaics = open_in(coco_folder, config=pasted)
    whole = open_in(coco_folder, config=AugmentConfig(**still))
    counts = []
    for index in range(COUNT):
        sample, targets = with_mosaics.sample(index, epoch=0, resolution=64)
        assert sample.shape == (64, 64, 3)
        counts.append(len(targets.labels))
        last = [d.sample(index, epoch=0, resolution=96) for d in (with_mosaics, whole)]
        assert np.array_equal(last[0][0], last[1][0])
    none = open_in(coco_folder, config=AugmentConfig(**still, mosaic_below=96))
    for side in (64, 96):  # an option that is off changes no sample
        pair = [d.sample(3, epoch=0, resolution=side)[0] for d in (none, whole)]
        assert np.array_equal(*pair)
    alone = [len(whole.sample(i, epoch=0, resolution=64)[1].labels) for i in range(COUNT)]
    assert sum(counts) > 2 * sum(alone)


def test_images_of_rare_classes_are_repeated(coco_folder: Path) -> None:
    with_rare_class(coco_folder)
    plain, repeated = open_in(coco_folder), open_in(coco_folder, repeat=0.5)
    factors = repeat_factors(plain.images, 0.5)
    assert factors[3] == pytest.approx((0.5 * COUNT) ** 0.5)
    assert np.delete(factors, 3) == pytest.approx(1.0)
    extra = len(repeated) - COUNT
    assert extra in (1, 2)  # the factor is 2.3
    assert f"; {extra} more samples an epoch" in repeated.summary()
    assert f"{COUNT} images" in repeated.summary()
    labels = [repeated.sample(k, epoch=0, resolution=32)[1].labels for k in range(len(repeated))]
    assert sum(3 in one for one in labels) == 1 + extra
    assert "more samples" not in plain.summary()


def test_the_same_image_is_augmented_otherwise_each_time_it_is_repeated(coco_folder: Path) -> None:
    with_rare_class(coco_folder)
    dataset = open_in(coco_folder, repeat=0.5, config=AugmentConfig())
    first, second = (dataset.sample(k, epoch=0, resolution=32)[0] for k in (3, 4))
    assert (first != second).any()


@pytest.mark.parametrize(
    ("annotation", "min_score", "ignored"),
    [
        ({"score": 0.3, "iscrowd": 1}, None, True),
        ({"score": 0.3, "iscrowd": 1}, 0.2, False),
        ({"score": 0.3, "iscrowd": 0}, 0.4, True),
        ({"iscrowd": 1}, 0.0, True),  # no score: the flag says all
    ],
)
def test_min_score_decides_about_boxes_that_carry_a_score(
    coco_folder: Path, annotation: dict[str, Any], min_score: float | None, ignored: bool
) -> None:
    with_rare_class(coco_folder, **annotation)
    targets = open_in(coco_folder, min_score=min_score).images[3].targets
    assert targets.ignore[targets.labels == 3].tolist() == [ignored]
    assert targets.ignore[targets.labels == 1].tolist() == [True]  # a crowd without a score
