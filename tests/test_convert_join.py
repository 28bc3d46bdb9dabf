"""Several files of results in one output: what is kept apart, what is stated, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rdlite.convert import convert
from rdlite.errors import ResultFileError
from rdlite.resultfile import open_results
from rdlite.sinks import open_sink
from rdlite.wording import counted_from
from tests.samples import found, header
from tests.test_convert import changed, video_results


def test_several_files_become_one_and_their_videos_stay_apart(tmp_path: Path) -> None:
    files = [video_results(tmp_path / "in" / name) for name in "ab"]
    progress: list[int] = []
    done = convert(files, "yolo", tmp_path / "labels", progress=progress.append)
    assert (done.records, done.objects, done.faults, done.notes) == (4, 8, [], [])
    assert sum(progress) == sum(file.stat().st_size for file in files)
    names = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("0*.txt"))
    assert names == [f"labels/{v}/clip.mp4/00000{n}.txt" for v in "ab" for n in range(2)]
    convert(files, "coco", tmp_path / "a.json")
    coco = json.loads((tmp_path / "a.json").read_text())
    assert [image["id"] for image in coco["images"]] == [1, 2, 3, 4]
    assert coco["images"][2]["file_name"] == f"{tmp_path}/in/b/clip.mp4/000000"
    convert(files, "jsonl", tmp_path / "all.jsonl")
    joined = open_results(tmp_path / "all.jsonl")
    assert [(r.image, r.frame) for r in joined] == [
        (str(file.with_suffix(".mp4")), n) for file in files for n in range(2)
    ]
    assert (joined.source, joined.warnings()) == (None, [])


def test_joined_files_say_of_all_lines_only_what_holds_for_all(tmp_path: Path) -> None:
    with open_sink("jsonl", tmp_path / "a.jsonl", header=header(options={"conf": 0.3})) as sink:
        sink.write(found(), image="a.jpg", place="a.jpg")
    files = [tmp_path / "a.jsonl"]
    for stride in (2, 2, 3):
        options = {"stride": stride, "conf": 0.3}
        folder = tmp_path / f"in-{len(files)}"
        files.append(video_results(folder, stride, options=options))
    for number, (group, options) in enumerate(
        [
            (files[:2], {"conf": 0.3}),
            (files[1:3], {"stride": 2, "conf": 0.3}),
            (files[1:], {"conf": 0.3}),
        ]
    ):
        joined = tmp_path / f"joined-{number}.jsonl"
        assert convert(group, "jsonl", joined).faults == []
        assert open_results(joined).options == options
        assert convert(joined, "csv", tmp_path / f"{number}.csv").faults == []


@pytest.mark.parametrize("format", ["jsonl", "csv"])
def test_what_frames_are_counted_from_is_said_of_files_that_are_joined(
    format: str, tmp_path: Path
) -> None:
    """What is joined does not hold it any more."""
    late, whole = (
        video_results(tmp_path / name, options={"stride": 1, "start": start})
        for name, start in (("late", 0.4), ("whole", None))
    )
    told = f"frames of {late} are {counted_from(0.4)}"
    assert convert([late, whole], format, tmp_path / "joined").notes.count(told) == 1


@pytest.mark.parametrize("format", ["jsonl", "coco", "yolo"])
def test_a_video_that_is_in_two_files_is_not_joined(
    format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Be they two ranges of one, or different ones of one name."""
    files = []
    for name in "ab":
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        files.append(video_results(Path("in"), video=name.encode() * len(files)).absolute())
    other_range = changed(files[0], "range.jsonl", options={"start": 2.0})
    joined = video_results(tmp_path / "more"), tmp_path / "joined.jsonl"
    convert([files[0], joined[0]], "jsonl", joined[1])
    for second in (files[1], other_range, joined[1]):
        with pytest.raises(ResultFileError) as caught:
            convert([files[0], second], format, tmp_path / "all")
        assert str(caught.value) == (
            f"in/clip.mp4 is in {files[0]} and in {second}; leave one of these out, or give each "
            "an output of its own"
        )
        assert not list(tmp_path.glob("*all*"))


@pytest.mark.parametrize("format", ["csv", "voc"])
def test_an_image_that_is_in_two_files_is_not_joined(format: str, tmp_path: Path) -> None:
    images = {"one": ["in/a.jpg", "in/b.jpg"], "two": ["in/c.jpg"], "again": ["in/./b.jpg"]}
    for name, group in images.items():
        with open_sink("jsonl", tmp_path / f"{name}.jsonl", header=header()) as sink:
            for image in group:
                sink.write(found(), image=image)
    one, two, again = (tmp_path / f"{name}.jsonl" for name in images)
    assert convert([one, two], format, tmp_path / "fine").records == 3
    for files, name in (([one, two, again], "in/./b.jpg"), ([one, one], "in/a.jpg")):
        with pytest.raises(ResultFileError) as caught:
            convert(files, format, tmp_path / "all")
        assert str(caught.value).startswith(f"{name} is in {one} and in {files[-1]}; ")
        assert not list(tmp_path.glob("*all*"))


def test_joined_files_state_a_model_only_where_there_is_one(tmp_path: Path) -> None:
    first, same, more = (video_results(tmp_path / name) for name in ("a", "same", "more"))
    other = changed(video_results(tmp_path / "b"), "other.jsonl", model_sha256="cd" * 32)
    joined = {name: tmp_path / f"{name}.jsonl" for name in ("same", "several", "again")}
    assert convert([first, same], "jsonl", joined["same"]).notes == []
    assert open_results(joined["same"]).header["model_sha256"] == "ab" * 32
    told = "model was abababababab..., now cdcdcdcdcdcd..."
    assert convert([first, other], "jsonl", joined["several"]).notes == [
        f"{other} was made otherwise than {first}: {told}"
    ]
    assert open_results(joined["several"]).header["model_sha256"] is None
    assert convert([joined["several"], more], "jsonl", joined["again"]).notes == [
        f"{more} was made otherwise than {joined['several']}: "
        "model was not stated, now abababababab..."
    ]
    assert open_results(joined["again"]).header["model_sha256"] is None
    convert(joined["several"], "labelstudio", tmp_path / "tasks")
    (version,) = {
        prediction["model_version"]
        for task in json.loads((tmp_path / "tasks" / "tasks.json").read_text())
        for prediction in task["predictions"]
    }
    assert version == "rdlite"


def test_files_of_other_classes_are_not_joined_and_other_options_are_told(tmp_path: Path) -> None:
    first = video_results(tmp_path / "a", options={"conf": 0.3})
    other = video_results(tmp_path / "b", options={"conf": 0.5})
    done = convert([first, other], "csv", tmp_path / "a.csv")
    assert done.notes == [f"{other} was made otherwise than {first}: conf was 0.3, now 0.5"]
    cats = video_results(tmp_path / "c", names=("cat", "dog"))
    with pytest.raises(ResultFileError, match=f"{cats} has other classes than {first}"):
        convert([first, cats], "csv", tmp_path / "b.csv")
    assert not (tmp_path / "b.csv").exists()
