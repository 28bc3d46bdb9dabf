import numpy as np
import pytest

from train.augment import (
    AugmentConfig,
    Targets,
    augment,
    crop_window,
    expand_window,
    flip,
    mosaic,
    plain,
    render,
)
from train.photometric import NO_DISTORTION, apply_distortion, distortion

WIDTH, HEIGHT = 130, 97
STILL = AugmentConfig(distort_prob=0, expand_prob=0, flip_prob=0)


def make_targets(
    *boxes: tuple[float, float, float, float], ignore: tuple[int, ...] = ()
) -> Targets:
    return Targets(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.arange(1, len(boxes) + 1),
        np.isin(np.arange(len(boxes)), ignore),
        np.linspace(0.4, 1, len(boxes), dtype=np.float32),
    )


def noise(seed: int = 0, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def painted(targets: Targets) -> np.ndarray:
    """A black image in which every box is filled with white."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for x1, y1, x2, y2 in targets.boxes.astype(int).tolist():
        image[y1:y2, x1:x2] = 255
    return image


def extent(image: np.ndarray) -> list[float]:
    """Box of the bright pixels, in [0, 1]."""
    ys, xs = np.nonzero(image[..., 0] > 127)
    side = image.shape[0]
    return [xs.min() / side, ys.min() / side, (xs.max() + 1) / side, (ys.max() + 1) / side]


@pytest.mark.parametrize("seed", range(60))
def test_boxes_stay_in_the_sample_and_keep_their_annotations(seed: int) -> None:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 1, (7, 2)) * [WIDTH - 20, HEIGHT - 20]
    boxes = np.concatenate([corners, corners + rng.uniform(1, 20, (7, 2))], axis=1)
    targets = make_targets(*boxes.tolist(), ignore=(2, 5))

    sample, kept = augment(noise(), targets, resolution=83, rng=rng, config=AugmentConfig())

    assert sample.shape == (83, 83, 3) and sample.dtype == np.uint8
    assert kept.boxes.dtype == np.float32
    assert (kept.boxes >= 0).all() and (kept.boxes <= 1).all()
    assert (kept.boxes[:, 2:] > kept.boxes[:, :2]).all()
    assert (~kept.ignore).any()
    rows = kept.labels - 1  # make_targets labels each box with its row + 1
    np.testing.assert_array_equal(kept.ignore, targets.ignore[rows])
    np.testing.assert_array_equal(kept.score, targets.score[rows])


@pytest.mark.parametrize("seed", range(60))
def test_boxes_go_where_the_pixels_go(seed: int) -> None:
    targets = make_targets((40, 30, 90, 70))
    config = AugmentConfig(distort_prob=0, fill_bgr=(0, 0, 0))
    rng = np.random.default_rng(seed)

    sample, kept = augment(painted(targets), targets, resolution=200, rng=rng, config=config)

    np.testing.assert_allclose(kept.boxes[0], extent(sample), atol=1.01 / 200)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_plain_only_resizes(count: int) -> None:
    targets = make_targets(*[(13 * k, 0, 13 * k + 13, 97) for k in range(count)])

    sample, kept = plain(noise(), targets, resolution=64)

    assert sample.shape == (64, 64, 3)
    expected = [(k / 10, 0, k / 10 + 0.1, 1) for k in range(count)]
    np.testing.assert_allclose(kept.boxes, np.reshape(expected, (-1, 4)), atol=1e-6)


def test_same_generator_gives_same_sample() -> None:
    targets = make_targets((40, 30, 90, 70), (0, 0, 20, 20))
    results = [
        augment(
            noise(),
            targets,
            resolution=96,
            rng=np.random.default_rng((1, 2, 3)),
            config=AugmentConfig(),
        )
        for _ in range(2)
    ]
    (first, boxes), (second, again) = results
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(boxes.boxes, again.boxes)


def test_augment_leaves_its_input_as_it_was() -> None:
    image, targets = noise(), make_targets((40, 30, 90, 70))
    image.flags.writeable = False
    boxes = targets.boxes.copy()
    for seed in range(20):
        rng = np.random.default_rng(seed)
        augment(image, targets, resolution=64, rng=rng, config=AugmentConfig())
    np.testing.assert_array_equal(image, noise())
    np.testing.assert_array_equal(targets.boxes, boxes)


def test_flip_twice_is_identity() -> None:
    image = noise(width=64, height=64)
    targets = make_targets((0.125, 0.25, 0.5, 0.75), (0, 0, 1, 1))
    once = flip(image, targets)
    twice, kept = flip(*once)
    np.testing.assert_allclose(once[1].boxes[0], (0.5, 0.25, 0.875, 0.75))
    np.testing.assert_array_equal(twice, image)
    np.testing.assert_array_equal(kept.boxes, targets.boxes)


def test_crop_drops_objects_by_centre_and_keeps_parts_of_ignore_regions() -> None:
    window = (50, 0, 100, 90)
    half_out = (20, 20, 70, 60)  # its centre, x = 45, is outside the window
    targets = make_targets(half_out, half_out, (60, 20, 120, 60), (0, 0, 40, 40), ignore=(1, 3))

    _, kept = render(noise(), targets, window, resolution=100)

    assert kept.labels.tolist() == [2, 3]
    assert kept.ignore.tolist() == [True, False]
    np.testing.assert_allclose(
        kept.boxes, [(0, 2 / 9, 0.4, 6 / 9), (0.2, 2 / 9, 1, 6 / 9)], atol=0.006
    )


def iou_with(box: tuple[int, ...], boxes: np.ndarray) -> np.ndarray:
    corner = np.maximum(boxes[:, :2], box[:2])
    common = (np.minimum(boxes[:, 2:], box[2:]) - corner).clip(min=0).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return common / (areas + (box[2] - box[0]) * (box[3] - box[1]) - common)


@pytest.mark.parametrize("min_iou", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_crop_overlaps_an_object_as_asked(min_iou: float) -> None:
    # So many equal choices that "whole" and "any", which are always offered, are rare.
    config = AugmentConfig(crop_min_iou=(min_iou,) * 5000)
    objects = np.array([(5, 5, 105, 72), (60, 40, 70, 50)], np.float32)
    whole = (0, 0, WIDTH, HEIGHT)
    crops = [crop_window(whole, objects, np.random.default_rng(k), config) for k in range(60)]
    for x1, y1, x2, y2 in crops:
        assert 0 <= x1 < x2 <= WIDTH and 0 <= y1 < y2 <= HEIGHT
        assert 0.5 <= (x2 - x1) / (y2 - y1) <= 2
    met = [iou_with(crop, objects).max() >= min_iou for crop in crops]
    assert np.mean(met) > 0.9


def test_ignore_regions_do_not_count_for_the_crop_constraint() -> None:
    # Where the object is cannot be reached by a crop around the ignore region alone.
    targets = make_targets((0, 0, 12, 12), (60, 20, 130, 97), ignore=(1,))
    config = AugmentConfig(distort_prob=0, expand_prob=0, flip_prob=0)
    for seed in range(60):
        rng = np.random.default_rng(seed)
        _, kept = augment(noise(), targets, resolution=64, rng=rng, config=config)
        assert 1 in kept.labels


def test_image_without_objects_is_never_cropped_to_fill_alone() -> None:
    config = AugmentConfig(distort_prob=0, expand_prob=1, fill_bgr=(0, 0, 0))
    white = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    for seed in range(60):
        rng = np.random.default_rng(seed)
        sample, kept = augment(white, make_targets(), resolution=64, rng=rng, config=config)
        assert sample.any()
        assert kept.boxes.shape == (0, 4)


def test_expand_holds_the_image_and_is_at_most_four_times_as_wide() -> None:
    config = AugmentConfig(expand_prob=1)
    widths = []
    for seed in range(100):
        x1, y1, x2, y2 = expand_window(WIDTH, HEIGHT, np.random.default_rng(seed), config)
        assert x1 <= 0 and y1 <= 0 and x2 >= WIDTH and y2 >= HEIGHT
        widths.append((x2 - x1) / WIDTH)
    assert max(widths) <= 4
    assert min(widths) < 1.5 and max(widths) > 3.5


def test_fill_colour_surrounds_an_expanded_image() -> None:
    sample, _ = render(
        np.zeros((HEIGHT, WIDTH, 3), np.uint8),
        make_targets(),
        (-WIDTH, -HEIGHT, 2 * WIDTH, 2 * HEIGHT),
        resolution=90,
        distort=distortion_with(brightness=60),
        fill_bgr=(104, 117, 123),
    )
    outside = np.ones((90, 90), bool)
    outside[30:60, 30:60] = False
    assert (sample[outside] == (104, 117, 123)).all()
    assert not (sample[~outside] == (104, 117, 123)).all(axis=1).any()


def distortion_with(**ranges: float) -> tuple[np.ndarray | None, ...]:
    values = {"brightness": 0.0, "contrast": (1, 1), "saturation": (1, 1), "hue": 0.0} | ranges
    return distortion(np.random.default_rng(5), prob=1, **values)


def test_distortion_of_nothing_keeps_the_image() -> None:
    image = noise()
    assert distortion(
        np.random.default_rng(0), prob=0, brightness=32, contrast=(0, 9), saturation=(0, 9), hue=18
    ) == (None, None, None)
    np.testing.assert_array_equal(apply_distortion(image, NO_DISTORTION), image)


def test_distortion_changes_grey_by_brightness_and_colour_by_saturation() -> None:
    grey = np.full((4, 4, 3), 100, np.uint8)
    brighter = apply_distortion(grey, distortion_with(brightness=30))
    assert len(np.unique(brighter)) == 1
    assert 70 <= brighter[0, 0, 0] <= 130 and brighter[0, 0, 0] != 100
    red = np.full((4, 4, 3), (0, 0, 200), np.uint8)
    washed = apply_distortion(red, distortion_with(saturation=(0.5, 0.5)))
    np.testing.assert_allclose(washed[0, 0], (100, 100, 200), atol=2)


def test_hue_turns_within_its_range_and_wraps() -> None:
    red = np.full((4, 4, 3), (0, 0, 200), np.uint8)
    turned = apply_distortion(red, distortion_with(hue=18))[0, 0].astype(int)
    assert turned[2] == 200
    assert 0 < turned[:2].max() <= 200 * 18 / 60 + 4  # 60 degrees lead from red to yellow
    assert turned[:2].min() == 0


def test_the_boxes_of_a_mosaic_are_where_its_quarters_went() -> None:
    boxes = [(10, 20, 60, 90), (0, 0, 130, 97), (100, 50, 130, 97), (30, 10, 50, 30)]
    quarters = []
    for number, box in enumerate(boxes):
        targets = make_targets(box, ignore=(0,) if number == 2 else ())
        quarters.append(plain(painted(targets), targets, resolution=64))
    sample, kept = mosaic(quarters)
    assert sample.shape == (128, 128, 3) and sample.dtype == np.uint8
    assert kept.boxes.dtype == np.float32 and kept.ignore.tolist() == [False, False, True, False]
    for number, (row, column) in enumerate([(0, 0), (0, 64), (64, 0), (64, 64)]):
        alone = np.zeros_like(sample)
        part = np.s_[row : row + 64, column : column + 64]
        alone[part] = sample[part]
        assert extent(alone) == pytest.approx(kept.boxes[number].tolist(), abs=1.01 / 128)
