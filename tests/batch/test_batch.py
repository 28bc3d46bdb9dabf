"""Many inputs: nothing is lost, nothing is done twice, and one bad input stops nothing."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from rdlite import Detector
from rdlite.batch.feed import BatchJob
from rdlite.batch.run import Batch
from rdlite.batch.totals import Totals
from rdlite.errors import OptionError, OutputError, RdliteError
from rdlite.storage.lock import Lock
from rdlite.storage.outputs import Input
from rdlite.workers.pool import make_pool
from tests.batches import IMAGES, Counting, Ear, content, job, run
from tests.command import lines
from tests.media import clip


def test_two_workers_make_the_same_as_one(
    source: Path, expected: dict[str, bytes], detector: Counting, tmp_path: Path
) -> None:
    totals = run(job(source, tmp_path / "out"), detector, workers=2)
    assert (totals.images, totals.videos, totals.failed) == (IMAGES, 1, 2)
    assert content(tmp_path / "out") == expected


def test_lines_are_in_the_order_of_the_inputs(expected: dict[str, bytes]) -> None:
    found = expected["detections.jsonl"].decode().splitlines()[1:]
    assert [line.split('.png"')[0][-3:] for line in found] == [f"{n:03}" for n in range(IMAGES)]


def test_a_run_interrupted_anywhere_ends_as_if_it_had_not_been(
    source: Path, expected: dict[str, bytes], detector: Counting, tmp_path: Path
) -> None:
    out, interruptions = tmp_path / "out", 0
    while True:
        try:
            run(job(source, out, resume=True), detector, Ear(steps=1 + interruptions))
            break
        except KeyboardInterrupt:
            interruptions += 1
            assert not (out / "detections.jsonl").exists()
    assert interruptions > 5
    assert content(out) == expected


def test_what_is_done_is_not_done_again(
    source: Path, expected: dict[str, bytes], detector: Counting, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run(job(source, out), detector)
    calls, detector.calls = detector.calls, 0
    assert calls == IMAGES + 600
    totals = run(job(source, out, resume=True), detector)
    assert detector.calls == 0
    assert (totals.images, totals.videos, totals.earlier) == (IMAGES, 1, IMAGES + 1)
    assert (totals.frames, totals.units, totals.failed) == (600, 0, 2)
    assert totals.found.total() > 0
    assert content(out) == expected


def test_results_are_had_in_another_format_without_another_look(
    source: Path, detector: Counting, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    images = [one for one in job(source, out).inputs if not one.video]
    run(BatchJob(images, out, format="jsonl"), detector)
    detector.calls = 0
    run(BatchJob(images, out, format="yolo", resume=True), detector)
    assert detector.calls == 0
    assert len(list((out / "detections-yolo").glob("0*.txt"))) == IMAGES


def test_changed_files_and_failures_are_done_anew(
    photos: Path, detector: Counting, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert run(job(photos, out), detector).failed == 1
    shutil.copy(photos / "003.png", photos / "007.jpg")
    cv2.imwrite(str(photos / "005.png"), np.full((64, 96, 3), 90, np.uint8))
    detector.calls, ear = 0, Ear()
    totals = run(job(photos, out, resume=True), detector, ear)
    assert detector.calls == 2
    assert (totals.images, totals.earlier, totals.changed, totals.failed) == (4, 2, 1, 0)
    assert ear.notes == ["1 input has changed since an earlier run: done anew"]
    fresh = tmp_path / "fresh"
    run(job(photos, fresh), detector)
    assert content(out) == content(fresh)  # in the order of the inputs, without the old failure


def test_more_files_may_be_added_and_a_lost_copy_comes_back(
    photos: Path, source: Path, detector: Counting, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run(job(photos, out), detector)
    shutil.copy(source / "001.png", photos)
    shutil.copy(source / "011.png", photos)
    (out / "005.png").unlink()
    detector.calls = 0
    run(job(photos, out, resume=True), detector)
    assert detector.calls == 3
    images = [Path(line["image"]).name for line in lines(out / "detections.jsonl")[1:]]
    assert images == ["001.png", "003.png", "005.png", "009.png", "011.png"]
    assert (out / "005.png").exists()


def test_entries_about_inputs_that_are_no_more_are_left_out(
    photos: Path, detector: Counting, tmp_path: Path
) -> None:
    out, ear = tmp_path / "out", Ear()
    run(job(photos, out), detector)
    (photos / "009.png").unlink()
    run(job(photos, out, resume=True), detector, ear)
    assert ear.warnings == ["1 entry of the record is about no input of this run: left out"]
    assert len(lines(out / "detections.jsonl")) == 1 + 2


def test_a_copy_that_another_image_has_now_is_not_taken_for_ours(
    detector: Counting, tmp_path: Path
) -> None:
    folder, out = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    pictures = {name: np.full((64, 96, 3), n, np.uint8) for n, name in enumerate("ab")}
    cv2.imwrite(str(folder / "x.gif"), pictures["a"])
    run(job(folder, out), detector)
    cv2.imwrite(str(folder / "x.bmp"), pictures["b"])  # comes first, and gets the name x.png
    run(job(folder, out, resume=True), detector)
    fresh = tmp_path / "fresh"
    run(job(folder, fresh), detector)
    assert content(out) == content(fresh)


def test_a_video_whose_place_another_one_had_meanwhile_is_done_again(
    detector: Counting, tmp_path: Path
) -> None:
    folder, out, fresh = tmp_path / "videos", tmp_path / "out", tmp_path / "fresh"
    folder.mkdir()
    clip(folder / "x.mp4", 5)
    run(job(folder, out), detector)
    clip(folder / "x.mkv", 9)  # comes first, and gets the name x.jsonl
    run(job(folder, out, resume=True), detector)
    (folder / "x.mkv").unlink()
    assert run(job(folder, out, resume=True), detector).earlier == 0
    run(job(folder, fresh), detector)
    assert (out / "x.jsonl").read_bytes() == (fresh / "x.jsonl").read_bytes()


def test_a_video_that_was_begun_anew_is_done_again_though_the_old_one_came_back(
    detector: Counting, tmp_path: Path
) -> None:
    folder, out, old = tmp_path / "videos", tmp_path / "out", clip(tmp_path / "old.mp4", 5)
    folder.mkdir()
    shutil.copy2(old, folder / "x.mp4")
    run(job(folder, out), detector)
    expected, record = content(out), out / ".rdlite" / "videos.jsonl"
    clip(folder / "x.mp4", 9)
    run(job(folder, out, resume=True), detector)
    header, *entries = record.read_text().splitlines(keepends=True)
    assert "begun" in entries[-2]
    record.write_text("".join([header, *entries[:-1]]))  # killed before the entry
    shutil.copy2(old, folder / "x.mp4")
    run(job(folder, out, resume=True), detector)
    assert content(out) == expected


def test_other_options_are_refused_by_name(
    photos: Path, tiny_model: Path, detector: Counting, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run(job(photos, out), detector)
    other = Counting(Detector(tiny_model, conf=0.5))
    with pytest.raises(OptionError, match=r"conf was 0\.4, now 0\.5.*--overwrite"):
        run(job(photos, out, resume=True), other)
    assert run(job(photos, out, resume=True, overwrite=True), other).earlier == 0
    assert lines(out / "detections.jsonl")[0]["options"]["conf"] == 0.5


@pytest.mark.parametrize("then", ["4.0.1", None])
def test_other_versions_are_refused_by_name(
    then: str | None, photos: Path, detector: Counting, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    clip(photos / "clip.mp4", 3)
    run(job(photos, out), detector)
    for kind in ("images", "videos"):
        record = out / ".rdlite" / f"{kind}.jsonl"
        whole = record.read_text()
        header = json.loads(whole.splitlines()[0])
        assert ("av" in header["options"]) == (kind == "videos")  # images do not depend on it
        now = header["options"].pop("opencv")
        header["options"] |= {"opencv": then} if then else {}
        record.write_text("\n".join([json.dumps(header), *whole.splitlines()[1:], ""]))
        was = repr(then) if then else "not recorded"
        with pytest.raises(OptionError, match=rf"\(opencv was {was}, now '{now}'\)"):
            run(job(photos, out, resume=True), detector)
        record.write_text(whole)
    assert run(job(photos, out, resume=True), detector).earlier == 4


def test_a_video_that_changes_between_two_runs_is_begun_anew(
    source: Path, detector: Counting, tmp_path: Path
) -> None:
    folder, out = tmp_path / "videos", tmp_path / "out"
    shutil.copytree(source / "videos", folder)
    (folder / "b.mp4").unlink()
    with make_pool(detector.detector, workers=2) as pool, pytest.raises(KeyboardInterrupt):
        Batch(job(folder, out), detector, pool, Ear(steps=3), Totals()).run()
    assert list(out.glob(".a.jsonl.rdlite/part-*"))
    clip(folder / "a.mp4", 300)
    assert run(job(folder, out, resume=True), detector).frames == 300
    assert sorted(content(out)) == ["a.jsonl"]


def test_one_picture_that_the_network_cannot_take_fails_alone(
    photos: Path, detector: Counting, tmp_path: Path
) -> None:
    cv2.imwrite(str(photos / "004.png"), np.full((64, 31, 3), 90, np.uint8))
    detector.bad, ear = 31, Ear()
    copies = [Path(shutil.copy(photos / "003.png", photos / f"1{n:02}.png")) for n in range(20)]
    totals = run(job(photos, tmp_path / "out"), detector, ear)
    assert (totals.images, totals.failed) == (3 + len(copies), 2)
    assert f"{photos / '004.png'}: RuntimeError: a fault of the runtime" in ear.errors


def test_a_second_run_on_the_same_output_is_refused(
    photos: Path, detector: Counting, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (out / ".rdlite").mkdir(parents=True)
    with Lock(out / ".rdlite" / "lock"), pytest.raises(RdliteError, match="held by process"):
        run(job(photos, out), detector)
    assert run(job(photos, out), detector).images == 3


def test_an_output_folder_that_vanishes_is_one_error(
    source: Path, detector: Counting, tmp_path: Path
) -> None:
    out = tmp_path / "out"

    class Remover(Ear):
        def check(self) -> None:
            super().check()
            if self.units > 10:
                shutil.rmtree(out, ignore_errors=True)

    with pytest.raises(OutputError, match=str(out)):
        run(job(source, out), detector, Remover())
    assert not out.exists()


def test_places_that_lead_out_of_the_folder_are_refused(
    photos: Path, detector: Counting, tmp_path: Path
) -> None:
    inputs = [Input(str(photos / "003.png"), f"../{name}") for name in ("x.png", "out-2/x.png")]
    ear = Ear()
    assert run(BatchJob(inputs, tmp_path / "out"), detector, ear).failed == 2
    assert all("leads out of" in error for error in ear.errors)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "photos"]
