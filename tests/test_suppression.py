"""`benchmarks/suppression.py` measures what `rdlite eval` measures, with any sigma."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.suppression import SETTINGS, Setting, WithSigma, main, measure, row
from rdlite import Detector, defaults
from rdlite.evaluate import evaluate
from rdlite.evaluate.dataset import DataError
from rdlite.session import Session
from tests.cocosets import SCENES, write_set

pytest.importorskip("faster_coco_eval")


@pytest.mark.parametrize("nms", ["hard", "linear", "gaussian"])
def test_the_defaults_measure_as_the_detector_does(
    tiny_model: Path, tmp_path: Path, nms: str
) -> None:
    truth = write_set(tmp_path, SCENES)
    ((name, _, found),) = measure(tiny_model, [(str(truth), str(tmp_path))], [Setting(nms)])
    wanted = evaluate(Detector(tiny_model, nms=nms), truth, tmp_path)
    assert name == "set"
    assert found.to_dict() == wanted.to_dict()


def test_a_narrower_sigma_takes_more_from_what_overlaps(tmp_path: Path) -> None:
    noise = write_set(tmp_path, SCENES).with_name("0.png")
    session = Session()
    options = {"conf": 0.01, "iou": 0.5, "nms": "gaussian", "max_det": 100, "classes": ["person"]}
    totals = [
        WithSigma(session, sigma)(str(noise), **options).confidence.sum()
        for sigma in (0.1, defaults.SIGMA, 2.0)
    ]
    assert totals[0] < totals[1] < totals[2]


def test_an_image_that_is_not_there_is_no_number(tiny_model: Path, tmp_path: Path) -> None:
    truth = write_set(tmp_path, SCENES)
    (tmp_path / "1.png").unlink()
    with pytest.raises(DataError, match=r"1 images were not evaluated, first 1\.png"):
        list(measure(tiny_model, [(str(truth), str(tmp_path))], SETTINGS[:1]))


def test_what_cannot_be_measured_is_one_sentence(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = write_set(tmp_path, SCENES)
    for wrong in (["--model", "nobody"], ["--model", str(tiny_model), "--dev", "absent.json", "."]):
        with pytest.raises(SystemExit):
            main(["--dev", str(truth), str(tmp_path), *wrong])
        assert "error: " in capsys.readouterr().err


def test_the_command_prints_every_setting(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = write_set(tmp_path, SCENES)
    main(["--model", str(tiny_model), "--dev", str(truth), str(tmp_path)])
    told = capsys.readouterr().out
    for setting in SETTINGS:
        assert f"| set | {setting} | " in told
    assert "F1 at 0.4 |" in told


def test_a_row_has_f1_at_the_default_score(tiny_model: Path, tmp_path: Path) -> None:
    truth = write_set(tmp_path, SCENES)
    found = evaluate(Detector(tiny_model), truth, tmp_path, conf=0.01)
    shown = evaluate(Detector(tiny_model, conf=defaults.CONF), truth, tmp_path, conf=defaults.CONF)
    usual = 100 * shown.f1()[:, round(100 * defaults.CONF)].mean()
    assert row("set", SETTINGS[0], found).endswith(f"| {usual:.1f} |")
