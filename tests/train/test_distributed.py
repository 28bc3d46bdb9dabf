from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rdlite.errors import OptionError
from tests.train.teacher import options
from train.checkpoint import load_checkpoint
from train.engine import Trainer


def weights(run) -> dict[str, torch.Tensor]:
    return load_checkpoint(run.out)["objective"]


def test_two_processes_learn_what_one_learns_from_the_whole_batch(
    settings, launch, teacher_file: Path
) -> None:
    same = {
        **options(teacher_file),
        "precision": "fp32",
        "optimizer": "sgd",  # no sign of a tiny gradient decides a step, as with AdamW
        "lr": 3e-3,
        "warmup": 0,
        "epochs": 0.3,  # one step: after it, a rounding error may choose another hard negative
        "resolution": "128",
        "giou": True,
        "iou_guided": True,
        "multi_task": True,
    }
    one, two = settings("one", **same), settings("two", **same)
    start = {
        k: v.clone() for k, v in Trainer(settings("start", **same)).objective.state_dict().items()
    }
    launch("fit", one, processes=1)
    launch("fit", two, processes=2)

    alone, together = weights(one), weights(two)
    assert alone.keys() == together.keys()
    for name, value in alone.items():
        moved = (value.float() - start[name].float()).norm()
        assert (together[name].float() - value.float()).norm() <= 0.1 * moved + 1e-6, name
    assert (alone["model.odm_conf.0.weight"] - start["model.odm_conf.0.weight"]).norm() > 1e-3
    assert sorted(p.name for p in Path(two.out).iterdir() if p.suffix in (".onnx", ".json")) == [
        "model.onnx",
        "results.json",
        "settings.json",
    ]


def test_a_batch_in_parts_takes_the_same_step_where_nothing_depends_on_the_part(settings) -> None:
    """With every statistic and normaliser equal in both parts, only the sum of gradients counts."""
    same = {"precision": "fp32", "lr": 1e-3, "epochs": 1, "resolution": "96", "batch": 4}
    whole = Trainer(settings("whole", **same))
    parts = Trainer(settings("parts", **same, accumulate=2))
    for trainer in (whole, parts):
        trainer.objective.eval()  # batch statistics would differ
        batch = next(trainer.batches())
        # Both parts hold the same images.
        batch["images"][1::2] = batch["images"][0::2]
        batch["targets"][1::2] = batch["targets"][0::2]
        trainer.train_step(batch)
    before = Trainer(settings("before", **same)).model
    for (name, a), b, start in zip(
        whole.model.named_parameters(), parts.model.parameters(), before.parameters(), strict=True
    ):
        assert torch.allclose(a, b, atol=1e-5), name
        if name == "odm_conf.0.bias":
            assert not torch.equal(a, start)


@pytest.mark.parametrize(
    ("wrong", "reason"), [({"accumulate": 3}, "batch must be a multiple of processes x accumulate")]
)
def test_what_does_not_divide_is_refused(settings, wrong: dict, reason: str) -> None:
    with pytest.raises(OptionError, match=reason):
        Trainer(settings("run", **wrong))
