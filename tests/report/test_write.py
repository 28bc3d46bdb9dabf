"""Files of detections as pages: what is in them, what is left out, what is refused."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdlite import open_results
from rdlite.errors import OptionError, ResultFileError
from rdlite.report import pack, write, write_report
from rdlite.report.pack import Collected
from rdlite.report.page import json_block
from rdlite.report.pictures import choose
from rdlite.resultfile import Record
from tests.command import cli
from tests.media import number
from tests.report.made import arrays, meta, objects, of_images, of_video, pictures, some, unpack
from tests.report.made import write as write_results

Printed = pytest.CaptureFixture[str]


def test_a_page_has_all_objects(tmp_path: Path) -> None:
    results = of_images(tmp_path / "found.jsonl", 40)
    report = write_report(results, tmp_path / "page.html", pictures=0)
    table, packed = open_results(results).to_pandas(), arrays(report.path)
    assert (report.frames, report.objects, report.warnings) == (40, len(table), ())
    assert report.size == report.path.stat().st_size
    assert packed["classes"].tolist() == table.class_id.tolist()
    boxes = packed["boxes"].reshape(-1, 4) / meta(report.path)["steps"]
    assert boxes == pytest.approx(table.iloc[:, :4].to_numpy(), abs=1 / 8)
    scores = packed["scores"] / 10_000
    assert ((scores <= table.confidence + 1e-6) & (scores > table.confidence - 0.0001)).all()


def test_a_page_names_no_model_where_the_results_name_none(tmp_path: Path) -> None:
    results = of_images(tmp_path / "found.jsonl", 2)
    head, rest = results.read_text().split("\n", 1)
    results.write_text(json.dumps(json.loads(head) | {"model_sha256": None}) + "\n" + rest)
    page = write_report(results, tmp_path / "page.html", pictures=0).path
    assert ["Model", "not stated"] in meta(page)["facts"]


@given(st.floats(2**-13, 1, width=32))
def test_a_threshold_lets_the_same_objects_through_as_in_the_file(score: float) -> None:
    one, found = objects((0, 0, 9, 9, score, 0)), Collected()
    found.add(Record(one))
    (stored,) = unpack(*pack.pack(found))["scores"].tolist()
    in_file = one.to_dict()["detections"][0]["confidence"]
    at = np.arange(101)
    assert (stored >= at * 100).tolist() == (in_file >= at / 100).tolist()


def test_a_picture_of_any_size_has_its_boxes(tmp_path: Path) -> None:
    found = objects((5000, 1, 90_000, 8, 0.5, 0), size=(100_000, 10))
    results = write_results(tmp_path / "found.jsonl", [({"image": "a.jpg"}, found)])
    page = write_report(results, tmp_path / "page.html", pictures=0).path
    boxes = arrays(page)["boxes"] / meta(page)["steps"]
    assert boxes.tolist() == pytest.approx([5000, 1, 90_000, 8], abs=1)


def test_each_picture_is_that_of_its_frame(tmp_path: Path) -> None:
    results = of_video(tmp_path, 240, keys=(100, 200))
    report = write_report(results, tmp_path / "page.html", pictures=20)
    shown = pictures(report.path)
    assert 15 <= len(shown) == report.pictures <= 20
    assert {frame: number(picture) for frame, picture in shown.items()} == {n: n for n in shown}
    assert report.warnings == ()


def test_pictures_far_apart_are_found_by_seeking(tmp_path: Path) -> None:
    ticks = [n * 25 for n in range(60)]  # one frame a second
    results = of_video(tmp_path, 60, ticks=ticks, keys=(20, 40))
    random = np.random.default_rng(0)
    lines = (({"frame": n, "pts": n * 25, "time": float(n)}, some(random)) for n in range(60))
    results.unlink()
    write_results(results, lines, source=tmp_path / "clip.mp4")
    report = write_report(results, tmp_path / "page.html", pictures=4)
    assert {n: number(picture) for n, picture in pictures(report.path).items()} == {
        n: n for n in meta(report.path)["pictures"]
    }
    assert report.pictures >= 3


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.integers(1, 80), st.integers(6, 30))
def test_chosen_frames_are_spread_and_show_every_class(seed: int, count: int, limit: int) -> None:
    random, found = np.random.default_rng(seed), Collected()
    for _ in range(count):
        found.add(Record(some(random)))
    chosen = choose(found, limit)
    assert len(chosen) <= limit
    assert chosen == sorted(set(chosen))
    shown = set(np.asarray(found.classes)[np.isin(found.frame_of, chosen)].tolist())
    assert shown == set(found.classes)
    gaps = np.diff([-1, *chosen, count])
    assert gaps.max() <= 2 * np.ceil(count / ((limit + 1) // 2))


def missing(tmp_path: Path) -> str:
    (tmp_path / "clip.mp4").unlink()
    return f"clip.mp4 is not in . or {tmp_path}; give it or its folder (--media)"


def changed(tmp_path: Path) -> str:
    with open(tmp_path / "clip.mp4", "ab") as file:
        file.write(b"more")
    return "the video has changed"


def damaged(tmp_path: Path) -> str:
    video = tmp_path / "clip.mp4"
    status = video.stat()
    video.write_bytes(bytes(status.st_size))
    os.utime(video, ns=(status.st_atime_ns, status.st_mtime_ns))
    return "cannot be read from the video"


@pytest.mark.parametrize("spoil", [missing, changed, damaged])
def test_frames_without_a_picture_are_counted(spoil: Any, tmp_path: Path, capsys: Printed) -> None:
    results, page = of_video(tmp_path, 20), tmp_path / "page.html"
    reason = spoil(tmp_path)
    assert cli("report", results, "-o", page) == 0
    sentence = next(line for line in capsys.readouterr().err.splitlines() if reason in line)
    assert "20 of 20 frames are shown without a picture" in sentence
    assert meta(page)["warnings"] == [sentence.removeprefix("rdlite: ")]
    assert pictures(page) == {}


def test_a_copied_video_is_shown_with_a_warning(tmp_path: Path) -> None:
    results = of_video(tmp_path, 10)
    shutil.copy(tmp_path / "clip.mp4", tmp_path / "copy.mp4")
    os.utime(tmp_path / "copy.mp4", (1, 1))
    (tmp_path / "clip.mp4").unlink()
    report = write_report(results, tmp_path / "page.html", media=tmp_path / "copy.mp4")
    assert report.pictures == 10
    (warning,) = report.warnings
    assert "another time of change" in warning


def test_images_are_found_missed_and_linked(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "photos").mkdir()
    for name, shape in (("a", (64, 96, 3)), ("b", (64, 96, 3)), ("turned", (96, 64, 3))):
        cv2.imwrite(str(tmp_path / "photos" / f"{name}.png"), np.full(shape, 90, np.uint8))
    (tmp_path / "photos" / "bad.png").write_text("no image")
    names = ("a", "b", "turned", "bad", "gone")
    records = [({"image": f"photos/{name}.png"}, objects()) for name in names]
    results = write_results(tmp_path / "found.jsonl", records)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pages").mkdir()
    report = write_report(results, Path("pages", "page.html"))
    assert list(pictures(report.path)) == [0, 1]
    assert meta(report.path)["folder"] == "../"
    assert sorted(warning.split(": ")[1] for warning in report.warnings) == [
        "its size is not that in which objects were detected.",
        "the image cannot be read.",
        "the image was not found; give its folder (--media).",
    ]
    monkeypatch.chdir("/")
    there = write_report(results, tmp_path / "there.html")  # beside the file of detections
    assert there.pictures == 2
    shutil.move(tmp_path / "photos", tmp_path / "moved")
    moved = write_report(results, tmp_path / "moved.html", media=tmp_path / "moved")
    assert moved.pictures == 2


def test_an_image_is_the_longest_end_of_its_path_that_is_there(tmp_path: Path) -> None:
    wanted = {"dup/a/x.png": 1, "dup/b/x.png": 2, "dup/b/y/\\<z.png": 3}
    for name, value in wanted.items():
        path = tmp_path / "moved" / Path(name).relative_to("dup")
        path.parent.mkdir(parents=True, exist_ok=True)
        content = cv2.imencode(".png", np.full((64, 96, 3), 60 * value, np.uint8))[1]
        path.write_bytes(content.tobytes())
    records = [({"image": name}, objects()) for name in wanted]
    results = write_results(tmp_path / "found.jsonl", records)
    report = write_report(results, tmp_path / "page.html", media=tmp_path / "moved")
    assert (report.pictures, report.warnings) == (3, ())
    lone = write_report(results, tmp_path / "lone.html", media=tmp_path / "moved" / "a")
    assert lone.pictures == 1  # the one x.png there is not shown for both
    assert any("of several images of that name" in warning for warning in lone.warnings)


def test_without_pictures_no_media_is_looked_for(tmp_path: Path) -> None:
    results = of_video(tmp_path, 5)
    (tmp_path / "clip.mp4").unlink()
    assert write_report(results, tmp_path / "page.html", pictures=0).warnings == ()


def test_a_cut_file_gives_its_whole_lines_and_code_3(tmp_path: Path, capsys: Printed) -> None:
    results, page = of_images(tmp_path / "found.jsonl", 10), tmp_path / "page.html"
    results.write_bytes(results.read_bytes()[:-20])
    assert cli("report", results, "-o", page, "--json", "--pictures", 0) == 3
    printed = capsys.readouterr()
    summary = json.loads(printed.out)
    assert (summary["frames"], summary["size"]) == (9, page.stat().st_size)
    (warning,) = summary["damaged"]
    assert warning in printed.err
    assert meta(page)["warnings"] == [warning]


def test_a_huge_file_is_thinned_and_says_so(tmp_path: Path, monkeypatch: Any) -> None:
    results = of_images(tmp_path / "found.jsonl", 100)
    whole = write_report(results, tmp_path / "whole.html", pictures=0)
    monkeypatch.setattr(pack, "MAX_FRAMES", 30)
    report = write_report(results, tmp_path / "page.html", pictures=0)
    assert (report.frames, report.objects) == (100, whole.objects)
    (warning,) = report.warnings
    assert "25 of 100 frames, one in 4" in warning
    kept = arrays(report.path)
    assert kept["counts"].tolist() == arrays(whole.path)["counts"][::4].tolist()
    scores = np.split(arrays(whole.path)["scores"], np.cumsum(arrays(whole.path)["counts"]))
    assert kept["scores"].tolist() == np.concatenate(scores[:100:4]).tolist()


def test_a_page_keeps_below_its_size(tmp_path: Path, monkeypatch: Any) -> None:
    results = of_images(tmp_path / "found.jsonl", 2000)
    monkeypatch.setattr(write, "MAX_BYTES", 460_000)
    report = write_report(results, tmp_path / "page.html", pictures=0)
    assert report.size < 460_000
    assert len(report.warnings) == 1


def test_what_the_network_lost_is_said(tmp_path: Path) -> None:
    results = of_images(tmp_path / "found.jsonl", 1)
    header, line = results.read_text().splitlines()
    line = json.dumps(json.loads(line) | {"dropped_nonfinite": 3})
    results.write_text(f"{header}\n{line}\n")
    (warning,) = write_report(results, tmp_path / "page.html", pictures=0).warnings
    assert warning.startswith("3 boxes were dropped")


@pytest.mark.parametrize("key", ["frame", "pts", "time", "width", "height"])
@pytest.mark.parametrize("value", [10**30, 10**400, -(10**30), float("inf"), float("nan"), -1, 0])
def test_no_number_in_a_damaged_line_stops_a_page(key: str, value: float, tmp_path: Path) -> None:
    line = {"frame": 0, "pts": 0, "time": 0.0}
    results = write_results(tmp_path / "found.jsonl", [(line, objects((1, 1, 9, 9, 0.5, 0)))] * 2)
    header, first, second = results.read_text().splitlines()
    bad = json.dumps(json.loads(first) | {key: value})
    results.write_text(f"{header}\n{bad}\n{second}\n")
    report = write_report(results, tmp_path / "page.html", pictures=0)
    assert report.frames in (1, 2)
    assert len(arrays(report.path)["counts"]) == report.frames


@pytest.mark.parametrize(
    ("output", "options", "text"),
    [
        ("page.txt", {}, "must end in .html, got .*page.txt"),
        ("there.html", {}, "exists already; .*--overwrite"),
        ("no/page.html", {}, "does not exist"),
        ("page.html", {"media": "nowhere"}, "nowhere does not exist; .*--media"),
        ("page.html", {"pictures": 501}, "must be 0 to 500 pictures .--pictures., got 501"),
        ("page.html", {"pictures": -1}, "must be 0 to 500 pictures .--pictures., got -1"),
    ],
)
def test_bad_options_are_refused(
    output: str, options: dict[str, Any], text: str, tmp_path: Path
) -> None:
    results = of_images(tmp_path / "found.jsonl", 1)
    (tmp_path / "there.html").write_text("mine")
    with pytest.raises(OptionError, match=text):
        write_report(results, tmp_path / output, **options)
    assert (tmp_path / "there.html").read_text() == "mine"


def test_a_page_replaces_another_when_asked_and_never_its_source(tmp_path: Path) -> None:
    results = of_images(tmp_path / "found.jsonl", 1)
    page = tmp_path / "page.html"
    page.write_text("old")
    assert write_report(results, page, overwrite=True).size == page.stat().st_size
    source = results.rename(tmp_path / "source.html")
    with pytest.raises(OptionError, match="is the file of detections itself"):
        write_report(source, source, overwrite=True)


def test_another_schema_leaves_no_page(tmp_path: Path, capsys: Printed) -> None:
    results = of_images(tmp_path / "found.jsonl", 1)
    results.write_text(results.read_text().replace('"schema": 1', '"schema": 99'))
    with pytest.raises(ResultFileError, match="99"):
        write_report(results, tmp_path / "page.html")
    assert cli("report", results) == 1
    assert "99" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["found.jsonl"]


def test_the_page_lies_beside_the_results_by_default(tmp_path: Path, capsys: Printed) -> None:
    assert cli("report", of_images(tmp_path / "found.jsonl", 3)) == 0
    assert (tmp_path / "found.html").exists()
    assert "3 images or frames" in capsys.readouterr().out


@given(st.text())
def test_no_text_ends_the_block_that_holds_it(text: str) -> None:
    start, end = '<script type="application/json" id="x">', "</script>"
    block = json_block("x", text + "</script><!--<script>")
    assert block.startswith(start) and block.endswith(end)
    inside = block[len(start) : -len(end)]
    assert "<" not in inside
    assert json.loads(inside) == text + "</script><!--<script>"


def test_a_folder_stands_for_the_one_file_of_detections_in_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    (out / ".rdlite").mkdir(parents=True)
    assert cli("report", out) == 1
    assert "is not finished; go on with --resume" in capsys.readouterr().err
    write_results(out / "detections.jsonl", [({"image": "a.png"}, objects())])
    (out / "errors.jsonl").write_text("")
    assert cli("report", out) == 0
    assert (out / "detections.html").exists()
    write_results(out / "other.jsonl", [({"image": "a.png"}, objects())])
    assert cli("report", out) == 1
    assert "has 2 files of detections" in capsys.readouterr().err


def test_frequent_classes_have_colours_far_apart(tmp_path: Path) -> None:
    results = of_images(tmp_path / "found.jsonl", 10)
    page = meta(write_report(results, tmp_path / "page.html").path)
    shown = [page["colors"][number] for number in page["classes"]]
    assert len(set(shown)) == len(shown)
