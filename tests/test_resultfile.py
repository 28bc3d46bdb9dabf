"""Files of results, read again: all that is whole, and a sentence for all that is not."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdlite import ResultFileError, open_results
from rdlite.convert import convert
from rdlite.errors import RdliteError
from rdlite.report import write_report
from rdlite.results import Detections
from rdlite.sinks import FORMATS, open_sink, to_line
from rdlite.storage.journal import dump_line
from tests.samples import CATEGORY_IDS, NAMES, detections, found, header


def images_file(path: Path, count: int = 3) -> Path:
    with open_sink("jsonl", path, header=header(), overwrite=True) as sink:
        for number in range(count):
            sink.write(found(number % 3), image=f"in/{number}.jpg", place=f"{number}.jpg")
    return path


def video_file(path: Path, frames: list[int], stride: int = 1) -> Path:
    video = path.with_suffix(".mp4")
    video.touch()
    head = header(source=video, options={"stride": stride, "conf": 0.3})
    with open_sink("jsonl", path, header=head, overwrite=True) as sink:
        for number in frames:
            sink.write(found(1), image=str(video), frame=number, pts=512 * number, time=number / 30)
    return path


def text_file(path: Path, *lines: dict[str, Any] | str, head: dict[str, Any] | None = None) -> Path:
    texts = [one if isinstance(one, str) else dump_line(one) for one in (head or header(), *lines)]
    path.write_text("".join(texts))
    return path


def same(one: Detections, other: Detections) -> bool:
    return one.to_dict() == other.to_dict() and one.names == other.names


def test_a_file_of_images(tmp_path: Path) -> None:
    results = open_results(images_file(tmp_path / "a.jsonl"))
    assert (results.names, results.category_ids) == (NAMES, CATEGORY_IDS)
    assert (results.source, dict(results.options)) == (None, {})
    for _ in range(2):
        records = list(results)
        assert [record.image for record in records] == ["in/0.jpg", "in/1.jpg", "in/2.jpg"]
        assert [record.place for record in records] == ["0.jpg", "1.jpg", "2.jpg"]
        assert all(same(record.found, found(n)) for n, record in enumerate(records))
        assert {record.frame for record in records} == {None}
        assert results.warnings() == []
    assert results.position == results.path.stat().st_size


def test_a_file_of_a_video(tmp_path: Path) -> None:
    results = open_results(video_file(tmp_path / "clip.jsonl", [0, 2, 4], stride=2))
    assert results.source == str(tmp_path / "clip.mp4")
    assert results.options["conf"] == 0.3
    assert [record.frame for record in results] == [0, 2, 4]
    record = list(results)[-1]
    assert record[1:] == (results.source, 4, 2048, round(4 / 30, 6), "clip.mp4")
    assert results.warnings() == []


@settings(deadline=None, max_examples=25)
@given(images=st.lists(detections(), max_size=4))
def test_what_was_written_is_read(
    images: list[Detections], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("results") / "a.jsonl"
    with open_sink("jsonl", path, header=header()) as sink:
        for number, one in enumerate(images):
            sink.write(one, image=str(number))
    read = [record.found for record in open_results(path)]
    assert [one.to_dict() for one in read] == [one.to_dict() for one in images]


@settings(deadline=None)
@given(cut=st.integers(0, 2**20))
def test_of_a_file_cut_anywhere_every_whole_line_is_read(
    cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    whole = images_file(folder / "a.jsonl").read_bytes()
    part = whole[: cut % (len(whole) + 1)]
    head, *lines = part.split(b"\n")
    (folder / "a.jsonl").write_bytes(part)
    if head != whole.split(b"\n")[0]:
        with pytest.raises(ResultFileError, match="does not begin with a header"):
            open_results(folder / "a.jsonl")
        return
    results = open_results(folder / "a.jsonl")
    read = [record.image for record in results]
    # A line that has lost nothing but its end is whole.
    torn = bool(lines) and lines[-1] != b"" and not lines[-1].endswith(b"]}")
    assert read == [f"in/{n}.jpg" for n in range(sum(line != b"" for line in lines) - torn)]
    assert len(results.warnings()) == torn
    if torn:
        (sentence,) = results.warnings()
        assert sentence == (
            f"{results.path}: 1 damaged line was left out; the first is line {len(lines) + 1}: "
            "it is cut off"
        )


def test_a_compressed_file_is_read_alike_and_may_be_cut(tmp_path: Path) -> None:
    whole = images_file(tmp_path / "a.jsonl", 3000).read_bytes()
    packed = gzip.compress(whole)
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(packed)
    results = open_results(path)
    assert len(list(results)) == 3000
    assert (results.position, results.warnings()) == (len(whole), [])
    for damaged in (packed[: len(packed) // 2], packed[:-4], packed[:-500] + bytes(500)):
        path.write_bytes(damaged)
        read = list(results)
        assert 1000 < len(read) <= 3000
        if packed.startswith(damaged):
            assert [record.image for record in read] == [f"in/{n}.jpg" for n in range(len(read))]
            assert "the compressed file is cut off or damaged here" in results.warnings()[0]
        assert len(results.warnings()) == 1
    path.write_bytes(packed[:30])
    with pytest.raises(ResultFileError, match="has lost its header: the compressed file is cut"):
        open_results(path)


WHOLE = st.sampled_from([0, -1, 7, 2**31, 2**63 - 1, 2**63, 10**30, 10**400])
REAL = st.sampled_from([0.5, -1.5, 1e30, 1e39, 1e300, float("inf"), float("nan")])
TEXT = st.sampled_from(
    ["", "..", "../x", "C:\\x", "a\0", "\ud800", "\udcff", "</script>", 5000 * "x"]
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | WHOLE | REAL | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=1),
    max_leaves=4,
)

OTHER_CLASS = to_line(found(), image="x.jpg")
OTHER_CLASS["detections"][0] = OTHER_CLASS["detections"][0] | {"class_id": 7}
OTHER_NAME = to_line(found(), image="x.jpg")
OTHER_NAME["detections"][0] = OTHER_NAME["detections"][0] | {"class_name": "cat"}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("what is this\n", "it is no JSON object"),
        ("[1]\n", "it is no JSON object"),
        ("\0" * 5000 + "\n", "it is no JSON object"),
        ("[" * 100_000 + "\n", "it is no JSON object"),
        (2**24 * " " + "\n", "it is longer than 16,777,216 bytes"),
        ({"image": "x.jpg"}, "KeyError('detections')"),
        (OTHER_CLASS, "class_id must be from 0 to 1, got 0 to 7"),
        (OTHER_NAME, "['traffic light', 'person'] by number, ['cat', 'person'] by name"),
        (to_line(found()) | {"width": 0}, "size 0 x 80"),
        (to_line(found()) | {"height": "80"}, "size 100 x '80'"),
        (to_line(found()) | {"image": 3}, "image is 3"),
        (to_line(found()) | {"frame": "3"}, "frame is '3'"),
        (to_line(found()) | {"time": []}, "time is []"),
        ('{"image": "x.jpg", "time": NaN}\n', "it is no JSON object"),
        *(
            (json.dumps(to_line(found()) | {key: value}) + "\n", f"{key} is {value!r}"[:100])
            for key, value in [
                ("frame", -1),
                ("frame", 2**63),
                ("frame", True),
                ("pts", -(2**63)),
                ("time", 10**400),
                ("image", "\ud800.jpg"),
                ("image", "a\0.jpg"),
                ("place", ""),
            ]
        ),
        (dump_line(to_line(found()) | {"time": 7}).replace("7}", "1e999}"), "time is inf"),
    ],
)
def test_a_damaged_line_costs_no_other(line: Any, why: str, tmp_path: Path) -> None:
    good = [to_line(found(), image=name) for name in ("a.jpg", "b.jpg")]
    results = open_results(text_file(tmp_path / "a.jsonl", good[0], line, good[1]))
    assert [record.image for record in results] == ["a.jpg", "b.jpg"]
    (sentence,) = results.warnings()
    assert sentence.startswith(
        f"{results.path}: 1 damaged line was left out; the first is line 3: "
    )
    assert why in sentence


@pytest.mark.parametrize(
    ("frames", "stride", "expected"),
    [
        ([0, 1, 5, 6], 1, ["3 frames are missing; the first is frame 2 of {}"]),
        ([0, 5, 20, 30], 5, ["3 frames are missing; the first is frame 10 of {}"]),
        ([2, 3], 1, ["2 frames are missing; the first is frame 0 of {}"]),
        (
            [0, 1, 1, 2],
            1,
            ["1 frame is not in order; the first is frame 1 where frame 2 of {} should be"],
        ),
    ],
)
def test_gaps_in_a_video_are_told(
    frames: list[int], stride: int, expected: list[str], tmp_path: Path
) -> None:
    results = open_results(video_file(tmp_path / "clip.jsonl", frames, stride))
    assert [record.frame for record in results] == frames
    video = tmp_path / "clip.mp4"
    assert results.warnings() == [f"{results.path}: {text.format(video)}" for text in expected]


def test_the_frames_of_several_videos_are_counted_apart(tmp_path: Path) -> None:
    lines = [to_line(found(), image=video, frame=n) for video in "ab" for n in range(3)]
    results = open_results(text_file(tmp_path / "a.jsonl", *lines))
    assert (len(list(results)), results.warnings()) == (6, [])


def test_two_files_joined_are_refused_where_the_second_begins(tmp_path: Path) -> None:
    path = images_file(tmp_path / "a.jsonl")
    path.write_bytes(2 * path.read_bytes())
    records = iter(open_results(path))
    assert [next(records).image for _ in range(3)] == ["in/0.jpg", "in/1.jpg", "in/2.jpg"]
    with pytest.raises(ResultFileError, match=r"line 5 of .* is a second header: several files"):
        next(records)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "does not begin with a header line; give a file that rdlite wrote as JSON Lines"),
        ('{"image": "a.jpg"}\n', "does not begin with a header line"),
        ("x_min,y_min\n", "does not begin with a header line"),
        (dump_line({"schema": 2}), "has schema 2, and this version of rdlite knows only 1"),
        (dump_line({"schema": 1, "options": {}}), "has no names and category_ids"),
        (dump_line(header() | {"category_ids": [1]}), "damaged: category_ids cannot be read"),
        (dump_line(header() | {"names": "ab"}), "damaged: names cannot be read"),
        (dump_line(header() | {"names": [["a"], 3]}), "damaged: names cannot be read"),
        (dump_line(header() | {"options": [1]}), "damaged: options cannot be read"),
        (dump_line(header() | {"source": 3}), "damaged: source cannot be read"),
        (dump_line(header() | {"model_sha256": ["a"]}), "damaged: model_sha256 cannot be read"),
        (dump_line(header() | {"source": "a\0"}), "damaged: source cannot be read"),
        (dump_line(header() | {"names": ["a", "\udcff"]}), "damaged: names cannot be read"),
        (dump_line(header() | {"category_ids": [1, 1.5]}), "damaged: category_ids cannot"),
        (
            dump_line(header(options={"conf": 7})).replace("7}", "1e999}"),
            "number that is too large",
        ),
    ],
)
def test_other_files_are_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(text)
    with pytest.raises(ResultFileError, match=message) as caught:
        open_results(path)
    assert str(path) in str(caught.value)


def test_what_is_no_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ResultFileError, match="a directory; name a file in it"):
        open_results(tmp_path)
    with pytest.raises(ResultFileError, match="cannot be read: No such file"):
        open_results(tmp_path / "gone.jsonl")
    with pytest.raises(ResultFileError, match="no file on disk"):
        open_results("/dev/null")


@pytest.mark.parametrize("given", [0, None, 1.5, b"a.jsonl", "", "a\0b", "\ud800", [0] * 1000])
def test_what_is_no_path_is_one_sentence(given: Any, tmp_path: Path) -> None:
    with pytest.raises(ResultFileError, match=r"^give the path of a file of results, got .{1,40}$"):
        open_results(given)
    if not given or isinstance(given, float):
        with pytest.raises(ResultFileError, match="give the path"):
            convert(given, "csv", tmp_path / "a.csv")


@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_whatever_a_line_says_every_format_can_hold_what_is_read(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A line with any value in any place is read, or left out and told of."""
    for package in ("pandas", "pyarrow"):
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp("any")
    line = to_line(found(1), image="a.jpg", frame=0, pts=0, time=0.0)
    part = data.draw(st.sampled_from([line, line["detections"][0]]))
    part[data.draw(st.sampled_from([*part, "place", "dropped_nonfinite"]))] = data.draw(ANYTHING)
    text = (
        dump_line(header()) + json.dumps(line) + "\n" + dump_line(to_line(found(1), image="b.jpg"))
    )
    (folder / "a.jsonl").write_text(text)
    results = open_results(folder / "a.jsonl")
    read = len(list(results))
    assert (read == 1) == any("damaged line" in one for one in results.warnings())
    assert len(results.to_pandas()) == sum(len(record.found) for record in results)
    for format in FORMATS:
        try:
            assert convert(results.path, format, folder / format).records == read
        except RdliteError:  # nothing is written to "../x.txt"
            assert format in ("yolo", "voc")
    convert(results.path, "csv", folder / "named.csv", images=folder)
    assert write_report(results.path, folder / "a.html").frames == read


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    line = dump_line(to_line(found(), image="a.jpg"))
    path = text_file(tmp_path / "a.jsonl", *([line] * 20_000))
    results = open_results(path)
    assert sum(1 for _ in results) == 20_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with open(path, "a") as file:
        for _ in range(20):
            file.write(line * 10_000)
    assert sum(len(record.found) for record in results) == 2 * 220_000
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 5_000, f"{grown} KiB"


def test_times_are_floats_however_they_are_written(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    line = to_line(found(1), image="a.mp4", frame=0, time=0.0) | {"time": 2**63 - 1}
    results = open_results(text_file(tmp_path / "a.jsonl", line))
    (record,) = results
    assert isinstance(record.time, float)
    assert convert(results.path, "parquet", tmp_path / "a.parquet").records == 1
