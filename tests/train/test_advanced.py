from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from train.advanced import (
    BALANCED,
    MultiTaskBalance,
    anchor_weights,
    giou_loss,
    kl_loss,
    soft_labels,
)

TRUTH = [0.1, 0.1, 0.3, 0.3]


def tensor(*rows: list[float], dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(rows, dtype=dtype)


@pytest.mark.parametrize(
    ("box", "wanted"),
    [
        (TRUTH, 0.0),
        ([0.0, 0.0, 0.2, 0.2], 1 - 1 / 7 + 2 / 9),  # overlap 0.01, union 0.07, around 0.09
        ([0.0, 0.0, 0.4, 0.4], 0.75),  # nested: around is union
        ([0.5, 0.1, 0.7, 0.3], 1 + 0.04 / 0.12),  # apart: union 0.08, around 0.12
        ([0.3, 0.1, 0.5, 0.3], 1.0),  # touching
        ([0.2, 0.2, 0.2, 0.2], 1.0),  # a point inside
        ([0.1, 0.5, 0.3, 0.5], 1 + 0.04 / 0.08),  # a line apart: union 0.04, around 0.08
    ],
)
def test_giou_loss_by_hand(box: list[float], wanted: float) -> None:
    assert math.isclose(giou_loss(tensor(box), tensor(TRUTH)).item(), wanted, abs_tol=1e-9)
    assert math.isclose(giou_loss(tensor(TRUTH), tensor(box)).item(), wanted, abs_tol=1e-9)


def test_giou_loss_agrees_with_counting_cells() -> None:
    def cells(x1: int, y1: int, x2: int, y2: int) -> set[tuple[int, int]]:
        return {(x, y) for x in range(x1, x2) for y in range(y1, y2)}

    corners = torch.randint(0, 9, (200, 2, 2, 2), generator=torch.Generator().manual_seed(0))
    low, high = corners.amin(dim=2), corners.amax(dim=2) + 1
    pairs = torch.cat([low, high], dim=-1)
    for (a, b), loss in zip(
        pairs.tolist(), giou_loss(pairs[:, 0] / 10, pairs[:, 1] / 10).tolist(), strict=True
    ):
        overlap, union = len(cells(*a) & cells(*b)), len(cells(*a) | cells(*b))
        around = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
        assert math.isclose(
            loss, 1 - overlap / union + (around - union) / around, rel_tol=1e-5, abs_tol=1e-6
        )


def test_giou_loss_has_the_right_gradient() -> None:
    truth = tensor([0.1, 0.2, 0.5, 0.7]).expand(4, 4)
    boxes = tensor(
        [0.2, 0.1, 0.6, 0.5], [0.2, 0.3, 0.4, 0.6], [0.0, 0.1, 0.8, 0.9], [0.7, 0.75, 0.9, 0.8]
    ).requires_grad_()
    assert torch.autograd.gradcheck(lambda b: giou_loss(b, truth), boxes)


def test_giou_loss_draws_boxes_together_that_are_apart() -> None:
    box = tensor([0.6, 0.6, 0.8, 0.8]).requires_grad_()
    giou_loss(box, tensor(TRUTH)).backward()
    assert (box.grad > 0)[0, :2].all()  # its near corner moves down the gradient, to the truth


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_boxes_without_area_have_finite_losses_and_gradients(dtype: torch.dtype) -> None:
    boxes = tensor(
        [0.2, 0.2, 0.2, 0.2], [0.2, 0.2, 0.2, 0.2], [0.1, 0.3, 0.6, 0.3], TRUTH, dtype=dtype
    ).requires_grad_()
    truth = tensor(
        [0.2, 0.2, 0.2, 0.2], [0.7, 0.2, 0.7, 0.2], [0.2, 0.3, 0.4, 0.3], TRUTH, dtype=dtype
    )
    losses = giou_loss(boxes, truth)
    losses.sum().backward()
    assert torch.isfinite(losses).all() and torch.isfinite(boxes.grad).all()


def test_soft_labels_by_hand() -> None:
    soft = soft_labels(torch.tensor([2, 0, 1, 0]), torch.tensor([0.6, 0.4, 1.0, 0.0]), classes=5)
    wanted = torch.tensor(
        [
            [0.025, 0.025, 0.9, 0.025, 0.025],  # 1 - 0.25 (1 - 0.6)
            [0.9, 0.025, 0.025, 0.025, 0.025],  # 1 - 0.25 * 0.4
            [0.0, 1.0, 0.0, 0.0, 0.0],
            [1.0, 0.0, 0.0, 0.0, 0.0],
        ]
    )
    torch.testing.assert_close(soft, wanted)


def test_anchor_weights_by_hand() -> None:
    weights = anchor_weights(torch.tensor([3, 1, 7, 0]), torch.tensor([1.0, 0.5, 0.0, 0.3]))
    torch.testing.assert_close(weights, torch.tensor([1.0, 1 / 0.55, 10.0, 1.0]))


def test_kl_loss_by_hand_without_and_with_class_weights() -> None:
    logits = 5 + tensor([0.5, 0.25, 0.25]).log()
    soft = tensor([0.8, 0.1, 0.1])
    plain = 0.8 * math.log(1.6) + 0.2 * math.log(0.4)
    assert math.isclose(kl_loss(logits, soft).item(), plain, rel_tol=1e-9)
    weighted = 0.8 * math.log(1.6) + (2 * 0.1 + 3 * 0.1) * math.log(0.4)
    # w y = 0.8, 0.2, 0.3, with the sum 1.3; the least that Eq. 2 can be
    floor = 0.8 * math.log(1.3 / 1) + 0.2 * math.log(1.3 / 2) + 0.3 * math.log(1.3 / 3)
    weights = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    assert math.isclose(kl_loss(logits, soft, weights).item(), weighted - floor, rel_tol=1e-9)


def test_the_weighted_kl_loss_has_its_minimum_at_0() -> None:
    soft = tensor([0.9, 0.05, 0.05])
    weights = torch.tensor([1.0, 8.0, 3.0], dtype=torch.float64)
    logits = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.1)
    for _ in range(500):
        optimizer.zero_grad()
        loss = kl_loss(logits, soft, weights).sum()
        loss.backward()
        optimizer.step()
        assert loss.item() > -1e-12
    assert loss.item() < 1e-9
    wanted = soft * weights / (soft * weights).sum()
    torch.testing.assert_close(logits.softmax(dim=1), wanted, atol=1e-4, rtol=0)


def test_kl_loss_of_one_hot_labels_is_the_cross_entropy() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 20 * torch.randn(50, 81, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 81, (50,), generator=generator)
    one_hot, weights = F.one_hot(labels, 81).double(), torch.linspace(1, 10, 81).double()
    torch.testing.assert_close(
        kl_loss(logits, one_hot), F.cross_entropy(logits, labels, reduction="none")
    )
    torch.testing.assert_close(
        kl_loss(logits, one_hot, weights),
        F.cross_entropy(logits, labels, weight=weights, reduction="none"),
    )


def test_kl_loss_is_0_where_the_prediction_is_the_soft_label() -> None:
    soft = tensor([0.7, 0.2, 0.1])
    assert kl_loss(soft.log(), soft).abs().item() < 1e-12


@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 10.0]])
def test_kl_loss_has_the_right_gradient(weights: list[float] | None) -> None:
    logits = tensor([0.3, -1.0, 2.0], [0.0, 0.5, -0.5]).requires_grad_()
    soft = tensor([0.8, 0.1, 0.1], [0.0, 1.0, 0.0])
    w = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: kl_loss(x, soft, w), logits)


def balance(variances: list[float]) -> MultiTaskBalance:
    module = MultiTaskBalance().double()
    with torch.no_grad():
        module.log_variance.copy_(torch.tensor(variances, dtype=torch.float64).log())
    return module


def test_balanced_terms_by_hand() -> None:
    values = dict(zip(BALANCED, torch.tensor([8.0, 8.0, 3.0, 5.0]).double(), strict=True))
    weighted = balance([2.0, 4.0, 0.5, 1.0])(values | {"another": torch.tensor(7.0)})
    half = math.log(2) / 2
    wanted = {
        "arm_loc": 2 + half,  # 8 / (2 * 2) + ln 2 / 2
        "arm_cls": 2 + 2 * half,  # 8 / 4 + ln 4 / 2
        "odm_loc": 3 - half,  # 3 / (2 * 0.5) + ln 0.5 / 2
        "odm_cls": 5.0,
        "another": 7.0,
    }
    assert {k: v.item() for k, v in weighted.items()} == pytest.approx(wanted, rel=1e-9)


def test_untrained_balance_weighs_localisation_half_and_classification_one() -> None:
    weighted = MultiTaskBalance()({name: torch.tensor(4.0) for name in BALANCED})
    assert [weighted[name].item() for name in BALANCED] == [2.0, 4.0, 2.0, 4.0]


def test_balance_rests_where_the_variance_is_the_loss_or_twice_it() -> None:
    module = balance([8.0, 16.0, 3.0, 10.0])
    losses = dict(zip(BALANCED, torch.tensor([8.0, 8.0, 3.0, 5.0]).double(), strict=True))
    sum(module(losses).values()).backward()
    assert module.log_variance.grad.abs().max() < 1e-12


def test_balance_has_the_right_gradient() -> None:
    module = MultiTaskBalance().double()

    def total(log_variance: Tensor, terms: Tensor) -> Tensor:
        named = dict(zip(BALANCED, terms, strict=True))
        weighted = torch.func.functional_call(module, {"log_variance": log_variance}, (named,))
        return sum(weighted.values())

    s = torch.tensor([0.5, -1.0, 0.0, 2.0], dtype=torch.float64, requires_grad=True)
    terms = torch.tensor([1.0, 0.2, 3.0, 0.7], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(total, (s, terms))
