"""Journals: what survives a process that is killed, a full disk, and other settings."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdlite.errors import OptionError, RdliteError, ResultFileError
from rdlite.storage.journal import Journal, describe_difference, read_journal
from tests.command import lines
from tests.samples import header, small_disk

ENTRIES = [{"image": "ß 漢字.jpg"}, {"image": "new\nline"}, {"image": "\udcff"}]


def written(path: Path, entries: list[dict[str, str]] = ENTRIES, **options: bool) -> bytes:
    with Journal(path, header(), **options) as journal:
        for entry in entries:
            journal.append(entry)
    return path.read_bytes()


def test_what_was_appended_is_read_back(tmp_path: Path) -> None:
    written(tmp_path / "a.jsonl")
    head, entries = read_journal(tmp_path / "a.jsonl")
    assert head == json.loads(json.dumps(header()))
    assert list(entries) == ENTRIES


def test_a_line_is_in_the_file_when_append_returns(tmp_path: Path) -> None:
    with Journal(tmp_path / "a.jsonl", header()) as journal:
        for count, entry in enumerate(ENTRIES, start=1):
            journal.append(entry)
            assert len(list(read_journal(journal.path)[1])) == journal.entries == count


def test_an_existing_journal_is_kept_unless_told_otherwise(tmp_path: Path) -> None:
    before = written(tmp_path / "a.jsonl")
    with pytest.raises(OptionError, match="exists already"):
        Journal(tmp_path / "a.jsonl", header())
    assert (tmp_path / "a.jsonl").read_bytes() == before
    assert len(written(tmp_path / "a.jsonl", [], overwrite=True)) < len(before)


@given(cut=st.integers(0, 2**20))
def test_a_file_cut_anywhere_goes_on_to_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("journal") / "a.jsonl"
    whole = written(path)
    part = whole[: cut % len(whole)]
    path.write_bytes(part)
    with Journal(path, header(), resume=True) as journal:
        assert journal.entries == max(0, part.count(b"\n") - 1)
        torn = b"\n" in part and not part.endswith(b"\n")
        assert journal.dropped == torn
        for entry in ENTRIES[journal.entries :]:
            journal.append(entry)
    assert path.read_bytes() == whole


@pytest.mark.parametrize("damage", [b"\0" * 5000, b"\0\0\n", b'{"image": "b\n', b"[]\n", b"\xff\n"])
def test_everything_from_a_damaged_line_on_is_done_again(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "a.jsonl"
    whole = written(path)
    path.write_bytes(whole + damage + b'{"image": "later"}\n')
    with pytest.raises(ResultFileError, match=f"line 5 of {path} is damaged: it is"):
        list(read_journal(path)[1])
    with Journal(path, header(), resume=True) as journal:
        assert journal.entries == 3
        assert journal.dropped == (damage + b"x").count(b"\n") + 1
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"options": {"conf": 0.3}}, r"\(conf was not recorded, now 0.3\)"),
        ({"names": ("person", "dog")}, r"names was \['person', 'traffic light'\], now"),
        ({"names": tuple("abcdefghijkl"), "category_ids": range(12)}, "other names"),
    ],
)
def test_other_settings_are_named_and_only_replaced_on_demand(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    before = written(tmp_path / "a.jsonl")
    other = header(**changes)
    with pytest.raises(OptionError, match=message):
        Journal(tmp_path / "a.jsonl", other, resume=True)
    assert (tmp_path / "a.jsonl").read_bytes() == before
    with Journal(tmp_path / "a.jsonl", other, resume=True, overwrite=True) as journal:
        assert journal.entries == 0
    assert lines(tmp_path / "a.jsonl") == [json.loads(json.dumps(other))]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"schema": 99}\n', "schema 99.* knows only 1"),
        (b'{"input": "a.jpg"}\n', "header line"),
        (b"x_min,y_min\n1,2\n", "header line"),
        (b"\x89PNG", "header line"),
    ],
)
def test_other_files_are_refused_and_kept(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(content)
    with pytest.raises(ResultFileError, match=message):
        read_journal(path)
    with pytest.raises(ResultFileError, match=message):
        Journal(path, header(), resume=True)
    assert path.read_bytes() == content


def test_a_journal_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ResultFileError, match="gone cannot be read: No such file"):
        read_journal(tmp_path / "gone")
    with pytest.raises(RdliteError, match="cannot be written: No such file"):
        Journal(tmp_path / "gone" / "a", header())
    with pytest.raises(RdliteError, match="cannot be read: Is a directory"):
        Journal(tmp_path, header(), resume=True)


def test_differences_of_headers() -> None:
    old = {"schema": 1, "options": {"conf": 0.25, "iou": 0.5}, "source": "a.mp4"}
    new = {"schema": 1, "options": {"conf": 0.3, "iou": 0.5}, "stride": 2, "source": "b" * 50}
    new |= {"video": {"crf": 23}}
    assert describe_difference(old, old) == ""
    expected = "conf was 0.25, now 0.3, other source, stride was not recorded, now 2, "
    expected += "crf was not recorded, now 23"
    assert describe_difference(old, new) == expected


KILLED = """
import itertools, sys
from rdlite.storage.journal import Journal
with Journal(sys.argv[1], {"schema": 1}, resume=True) as journal:
    print(flush=True)
    for number in itertools.count(journal.entries):
        journal.append({"number": number, "filler": "x" * 5000})
"""


def test_a_process_that_is_killed_loses_no_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, path], stdout=subprocess.PIPE
        )  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()
        while path.stat().st_size < 100_000:
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    with Journal(path, {"schema": 1}, resume=True) as journal:
        assert journal.dropped <= 1
    numbers = [entry["number"] for entry in read_journal(path)[1]]
    assert numbers == list(range(journal.entries))


def test_a_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    with Journal(tmp_path / "a.jsonl", header()) as journal:
        journal.append({"image": "a"})
        before = journal.path.read_bytes()
        with (
            small_disk(len(before) + 100),
            pytest.raises(RdliteError, match=r"a\.jsonl cannot be written: File too large"),
        ):
            journal.append({"image": "b" * 200})
        assert journal.path.read_bytes() == before
        journal.append({"image": "c"})
    assert [entry["image"] for entry in read_journal(journal.path)[1]] == ["a", "c"]


def test_a_disk_that_is_full_from_the_start_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with small_disk(10), pytest.raises(RdliteError, match="cannot be written: File too large"):
        Journal(path, header())
    assert len(written(path, resume=True).splitlines()) == 4
