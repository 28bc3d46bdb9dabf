"""Files of results as tables of pandas and as data sets of COCO."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from rdlite import open_results
from rdlite.convert import convert
from rdlite.report import write_report
from rdlite.sinks import to_line
from tests.samples import found, header
from tests.test_resultfile import images_file, text_file, video_file


def test_one_table_of_all_objects(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    for path in (images_file(tmp_path / "a.jsonl", 5), video_file(tmp_path / "v.jsonl", [0, 1, 2])):
        results = open_results(path)
        table = results.to_pandas()
        convert(path, "csv", path.with_suffix(".csv"))
        written = pandas.read_csv(path.with_suffix(".csv"))
        assert list(table) == list(written)
        for column in table:
            wanted = written[column].to_numpy(dtype=object, na_value=None)
            given = table[column].to_numpy(dtype=object, na_value=None)
            if column in ("x_min", "confidence"):
                np.testing.assert_allclose(given.astype(float), wanted.astype(float))
            else:
                assert given.tolist() == wanted.tolist(), column
        pieces = list(results.pandas_chunks(rows=2))
        assert len(pieces) > 1
        pandas.testing.assert_frame_equal(pandas.concat(pieces, ignore_index=True), table)


def test_without_pandas_every_table_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    results = open_results(images_file(tmp_path / "a.jsonl"))
    tables = (found().to_pandas, results.to_pandas, lambda: next(results.pandas_chunks()))
    for table in tables:
        with pytest.raises(ImportError) as caught:
            table()
        assert str(caught.value) == "to_pandas needs pandas; run `pip install pandas`"


def test_a_table_of_nothing_has_the_columns(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    table = open_results(images_file(tmp_path / "a.jsonl", 1)).to_pandas()
    empty = open_results(images_file(tmp_path / "b.jsonl", 0)).to_pandas()
    assert len(table) == len(empty) == 0
    assert (
        list(table)
        == list(empty)
        == list(open_results(images_file(tmp_path / "c.jsonl")).to_pandas())
    )


def test_coco_in_memory_is_what_the_file_says(tmp_path: Path) -> None:
    for path in (images_file(tmp_path / "a.jsonl", 5), video_file(tmp_path / "v.jsonl", [0, 1])):
        convert(path, "coco", path.with_suffix(".json"))
        assert open_results(path).to_coco() == json.loads(path.with_suffix(".json").read_text())


def test_pycocotools_loads_results_as_detections(tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    content = open_results(images_file(tmp_path / "a.jsonl", 5)).to_coco()
    truth = coco.COCO()
    truth.dataset = content
    truth.createIndex()
    loaded = truth.loadRes(content["annotations"])
    assert len(loaded.anns) == len(content["annotations"]) == 4
    assert loaded.loadCats(10)[0]["name"] == "traffic light"


def test_names_that_are_not_utf8_are_in_tables_and_pages(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    video = "\udcff.mp4"
    head = header() | {"source": video, "source_size": 1, "mtime_ns": 1}
    path = text_file(tmp_path / "a.jsonl", to_line(found(), frame=0), head=head)
    (record,) = open_results(path)
    assert record.image == video
    assert open_results(path).to_pandas().image.tolist() == ["\\udcff.mp4"] * 2
    write_report(path, tmp_path / "a.html")
    assert "<title>\\xff.mp4: " in (tmp_path / "a.html").read_text()
