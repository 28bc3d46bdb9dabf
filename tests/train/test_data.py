import io
import itertools
import json
import os
import pickle
import tarfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from rdlite.dataset import DataError
from train.augment import AugmentConfig
from train.coco import load_coco
from train.data import DetectionDataset, make_loader, open_dataset, steps_per_epoch

COUNT = 11
SIZE = (60, 40)  # width, height


def picture(index: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8)


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


def content(count: int = COUNT) -> dict[str, Any]:
    annotations = [
        {"image_id": 10 + k, "category_id": 7, "bbox": [5, 5, 20, 10], "score": 0.5, "id": 2 * k}
        for k in range(count)
    ] + [
        {"image_id": 10 + k, "category_id": 3, "bbox": [30, 20, 20, 15], "iscrowd": k % 2}
        for k in range(count)
    ]
    return {
        "images": [
            {"id": 10 + k, "file_name": f"{k}.png", "width": SIZE[0], "height": SIZE[1]}
            for k in range(count)
        ],
        "annotations": annotations,
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
    }


def write_json(folder: Path, value: Any) -> Path:
    path = folder / "set.json"
    path.write_text(json.dumps(value))
    return path


@pytest.fixture
def coco_folder(tmp_path: Path) -> Path:
    for k in range(COUNT):
        (tmp_path / f"{k}.png").write_bytes(png(picture(k)))
    write_json(tmp_path, content())
    return tmp_path


def open_in(folder: Path, **options: Any) -> DetectionDataset:
    return open_dataset(
        folder / "set.json", folder, cache=folder / "cache", progress=False, **options
    )


def test_load_coco_gives_arrays_in_the_order_of_the_file(tmp_path: Path) -> None:
    value = content(2)
    value["annotations"].append({"image_id": 11, "category_id": 3, "bbox": [50, 30, 99, 99]})
    value["annotations"].append({"image_id": 11, "category_id": 3, "bbox": [9, 9, 0, 5]})
    value["annotations"].append({"image_id": 11, "category_id": 3, "bbox": [60, 9, 5, 5]})
    value["annotations"].append(
        {"image_id": 10, "category_id": 3, "bbox": [1, 1, 5, 5], "ignore": 1}
    )

    coco = load_coco(write_json(tmp_path, value))

    assert (coco.names, coco.category_ids) == (("cat", "dog"), (3, 7))
    assert [image.file_name for image in coco.images] == ["0.png", "1.png"]
    assert coco.images[0].size == SIZE
    first, second = (image.targets for image in coco.images)
    assert first.labels.tolist() == [2, 1, 1] and first.labels.dtype == np.int64
    assert first.ignore.tolist() == [False, False, True]
    assert first.score.tolist() == [0.5, 1, 1]
    assert second.boxes.tolist() == [[5, 5, 25, 15], [30, 20, 50, 35], [50, 30, 60, 40]]
    assert (coco.empty_boxes, coco.outside_boxes, coco.clipped_boxes) == (1, 1, 1)
    assert coco.dropped_boxes == 2


def test_load_coco_accepts_images_without_boxes(tmp_path: Path) -> None:
    value = content(2)
    value["annotations"] = value["annotations"][:1]
    coco = load_coco(write_json(tmp_path, value))
    assert coco.images[1].targets.boxes.shape == (0, 4)


@pytest.mark.parametrize(
    ("fields", "count"),
    [
        ({"bbox": [5, 5, 0, 9]}, "1 have no area"),
        ({"bbox": [90, 5, 5, 9]}, "1 lie outside"),
        ({"bbox": [1, 2, 3, 4], "iscrowd": 1}, "0 lie outside"),
        (None, "of 0 annotations"),
    ],
)
def test_set_with_no_box_to_learn_from_is_refused(
    tmp_path: Path, fields: dict[str, Any] | None, count: str
) -> None:
    boxes = [{"image_id": 10, "category_id": 3, **fields}] if fields else []
    path = write_json(tmp_path, content(1) | {"annotations": boxes})
    with pytest.raises(DataError, match=f"no box to learn from.*{count}"):
        load_coco(path)


def test_rounding_of_less_than_a_pixel_is_not_counted_as_clipped(tmp_path: Path) -> None:
    value = content(1)
    value["annotations"][0]["bbox"] = [-0.5, 0, 60.9, 40.5]
    coco = load_coco(write_json(tmp_path, value))
    assert coco.images[0].targets.boxes[0].tolist() == [0, 0, 60, 40]
    assert coco.clipped_boxes == 0


@pytest.mark.parametrize(
    ("where", "change", "message"),
    [
        ("images", [], "is empty"),
        ("images", None, 'no list "images"'),
        ("images", [{"id": 1, "file_name": "a.png"}], 'lacks "width"'),
        ("images", [{"id": 1, "file_name": "a", "width": 0, "height": 5}], "has size"),
        ("images", content(1)["images"] * 2, "occurs twice in images"),
        ("categories", content(1)["categories"] * 2, "occurs twice in categories"),
        ("categories", [{"id": 3, "name": " "}], "empty name"),
        ("annotations", content(1)["annotations"][:1] * 2, "occurs twice in annotations"),
        (
            "annotations",
            [{"image_id": 10, "category_id": 4, "bbox": [0, 0, 1, 1]}],
            "category_id 4",
        ),
        ("annotations", [{"image_id": 9, "category_id": 3, "bbox": [0, 0, 1, 1]}], "image_id 9"),
        ("annotations", [{"image_id": 10, "category_id": 3, "bbox": [0, 0, 1]}], "bbox"),
        ("annotations", [{"image_id": 10, "category_id": 3, "bbox": [0, 0, 1, None]}], "bbox"),
        (
            "annotations",
            [{"image_id": 10, "category_id": 3, "bbox": [0, 0, 1, 1], "score": "high"}],
            "score 'high'",
        ),
    ],
)
def test_bad_annotation_file_is_refused_in_a_sentence(
    tmp_path: Path, where: str, change: Any, message: str
) -> None:
    path = write_json(tmp_path, content(1) | {where: change})
    with pytest.raises(DataError, match=message) as caught:
        load_coco(path)
    assert "set.json" in str(caught.value)


def test_of_several_bad_annotations_one_is_named_and_all_are_counted(tmp_path: Path) -> None:
    value = content(3)
    for annotation in value["annotations"][1:]:
        annotation["category_id"] = 99
    with pytest.raises(DataError, match=r"category_id 99.*\(4 more annotations are wrong\)"):
        load_coco(write_json(tmp_path, value))


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"images": [], "annotations": []}'])
def test_file_that_is_not_coco_is_refused(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "set.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=r"set\.json"):
        load_coco(path)


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
    np.testing.assert_allclose(small[0][1].boxes, full[0][1].boxes, atol=1e-6)


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
    assert "1 unreadable images" in dataset.summary()
    assert len(open_in(coco_folder)) == COUNT - 1  # also when the cache is opened again
    dataset.set_epoch(0)
    assert dataset[4][0].shape == (320, 320, 3)
    np.testing.assert_array_equal(dataset.cache[5], picture(5))


def test_set_without_readable_images_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path, content())
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
    write_json(coco_folder, content(COUNT - 3))
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
    with pytest.raises(DataError, match="smaller cache size"):
        open_in(coco_folder)


def test_pickled_dataset_carries_no_pixels(coco_folder: Path) -> None:
    dataset = open_in(coco_folder)
    dataset[0]
    data = pickle.dumps(dataset)
    assert len(data) < COUNT * SIZE[0] * SIZE[1] * 3
    np.testing.assert_array_equal(pickle.loads(data)[0][0], dataset[0][0])


def test_sample_depends_on_seed_epoch_and_index_alone(coco_folder: Path) -> None:
    dataset = open_in(coco_folder, seed=3, config=AugmentConfig())
    first = dataset.sample(2, epoch=5, resolution=64)[0]
    np.random.default_rng().random()
    dataset.sample(1, epoch=5, resolution=64)
    np.testing.assert_array_equal(dataset.sample(2, epoch=5, resolution=64)[0], first)
    dataset.set_epoch(5)
    dataset.resolution = 64
    np.testing.assert_array_equal(dataset[2][0], first)
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
