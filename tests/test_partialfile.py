"""Files and folders that are whole or not there at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rdlite.errors import OptionError, RdliteError, VideoError
from rdlite.storage.partial import PartialFile, PartialFolder, remove_leftovers


def tree(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


def folder_of(path: Path, text: str, **options: bool) -> PartialFolder:
    made = PartialFolder(path, endings=(".txt",), **options)
    (made.partial / "a.txt").write_text(text)
    return made


def test_a_file_has_its_name_only_after_commit(tmp_path: Path) -> None:
    target = PartialFile(tmp_path / "a.mp4")
    target.partial.write_text("new")
    assert target.partial.parent == tmp_path and target.partial.suffix == ".mp4"
    assert not target.path.exists()
    target.commit()
    assert tree(tmp_path) == {"a.mp4": "new"}


def test_two_writers_of_one_name_do_not_share_a_file(tmp_path: Path) -> None:
    targets = [PartialFile(tmp_path / "a"), PartialFile(tmp_path / "a")]
    assert targets[0].partial != targets[1].partial


@pytest.mark.parametrize("name", ["漢" * 83 + ".jsonl", "a" * 249 + ".jsonl"])
def test_the_longest_names_work(tmp_path: Path, name: str) -> None:
    target = PartialFile(tmp_path / name)
    target.partial.write_text("new")
    target.commit()
    assert tree(tmp_path) == {name: "new"}


def test_a_link_that_leads_nowhere_counts_as_an_existing_file(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("gone")
    with pytest.raises(VideoError, match="exists already"):
        PartialFile(tmp_path / "a", error=VideoError)


def test_a_file_that_cannot_be_committed_is_one_sentence(tmp_path: Path) -> None:
    target = PartialFile(tmp_path / "a")
    with pytest.raises(OptionError, match="a cannot be written: No such file"):
        target.commit()


def test_a_folder_has_its_name_only_after_commit(tmp_path: Path) -> None:
    target = folder_of(tmp_path / "labels", "new")
    assert os.listdir(tmp_path) == [target.partial.name]
    target.commit()
    assert tree(tmp_path) == {"labels/a.txt": "new"}


def test_a_discarded_folder_leaves_nothing(tmp_path: Path) -> None:
    folder_of(tmp_path / "labels", "new").discard()
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_replaced_on_demand_and_only_at_the_end(tmp_path: Path) -> None:
    folder_of(tmp_path / "labels", "old").commit()
    (tmp_path / "labels" / "more").mkdir()
    (tmp_path / "labels" / "more" / "b.txt").write_text("old")
    with pytest.raises(OptionError, match="exists already"):
        PartialFolder(tmp_path / "labels", endings=(".txt",))
    target = folder_of(tmp_path / "labels", "new", overwrite=True)
    assert tree(tmp_path / "labels") == {"a.txt": "old", "more/b.txt": "old"}
    target.commit()
    assert tree(tmp_path) == {"labels/a.txt": "new"}


@pytest.mark.parametrize("late", [False, True])
def test_a_folder_of_other_files_is_never_replaced(tmp_path: Path, late: bool) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    target = PartialFolder(photos, endings=(".txt",), overwrite=True) if late else None
    (photos / "a.jpg").write_text("mine")
    with pytest.raises(OptionError, match=r"another kind, such as .*photos/a\.jpg"):
        target.commit() if target else PartialFolder(photos, endings=(".txt",), overwrite=True)
    assert (photos / "a.jpg").read_text() == "mine"


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_is_no_folder_is_never_replaced(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "labels"
    path.symlink_to(tmp_path) if kind == "link" else path.write_text("mine")
    with pytest.raises(OptionError, match="is no folder"):
        PartialFolder(path, endings=(".txt",), overwrite=True)
    assert path.exists()


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="nowhere does not exist"):
        PartialFolder(tmp_path / "nowhere" / "labels", endings=(".txt",))


def test_the_old_folder_is_back_when_the_new_one_cannot_take_its_place(tmp_path: Path) -> None:
    folder_of(tmp_path / "labels", "old").commit()
    target = folder_of(tmp_path / "labels", "new", overwrite=True)
    target.discard()  # as if somebody else had removed it
    with pytest.raises(RdliteError, match="labels cannot be written"):
        target.commit()
    assert tree(tmp_path) == {"labels/a.txt": "old"}


@pytest.mark.parametrize("name", ["a.mp4", "a" * 60 + ".mp4"])
def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path: Path, name: str) -> None:
    PartialFile(tmp_path / name).partial.write_text("left")
    folder_of(tmp_path / name, "left")
    other = PartialFile(tmp_path / f"{name}.jsonl").partial
    other.write_text("in use")
    remove_leftovers(tmp_path / name)
    assert list(tmp_path.iterdir()) == [other]
