"""Parquet, read back by pyarrow and pandas."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from rdlite.errors import OptionError
from rdlite.sinks import ParquetSink
from tests.samples import found, header

pytest.importorskip("pyarrow")


def test_pyarrow_reads_one_row_for_each_object(tmp_path: Path) -> None:
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    with ParquetSink(path, header(options={"conf": 0.3})) as sink:
        sink.write(found(), image="ß/漢 字\n.jpg")
        sink.write(found(0), image="empty.jpg")
        sink.write(found(1), image="\udcff.mp4", frame=12, time=0.48)
    table = parquet.read_table(path)
    assert table.num_rows == 3
    assert table.slice(1).to_pylist() == [
        {
            "x_min": 0.0,
            "y_min": 0.0,
            "x_max": 5.0,
            "y_max": 5.0,
            "class_id": 0,
            "class_name": "person",
            "confidence": 0.5,
            "image": "ß/漢 字\n.jpg",
            "frame": None,
            "time": None,
        },
        {
            "x_min": 10.0,
            "y_min": 20.0,
            "x_max": 30.5,
            "y_max": 60.0,
            "class_id": 1,
            "class_name": "traffic light",
            "confidence": 0.75,
            "image": "\\udcff.mp4",
            "frame": 12,
            "time": 0.48,
        },
    ]
    assert json.loads(table.schema.metadata[b"rdlite"])["options"] == {"conf": 0.3}


def test_pandas_reads_the_columns_of_to_pandas(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    with ParquetSink(tmp_path / "a.parquet", header()) as sink:
        sink.write(found(), image="a.jpg")
    frame = pandas.read_parquet(tmp_path / "a.parquet")
    expected = found().to_pandas()
    pandas.testing.assert_frame_equal(frame[expected.columns], expected, check_dtype=False)
    assert frame["x_min"].dtype == frame["confidence"].dtype == "float32"


@pytest.mark.parametrize("images", [0, 1, 5, 6, 7])
def test_row_groups_hold_every_row(
    images: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyarrow import parquet

    monkeypatch.setattr("rdlite.sinks.parquet._ROW_GROUP", 5)
    with ParquetSink(tmp_path / "a.parquet", header()) as sink:
        for number in range(images):
            sink.write(found(), image=f"{number}.jpg")
    file = parquet.ParquetFile(tmp_path / "a.parquet")
    assert file.metadata.num_rows == 2 * images
    assert file.num_row_groups == (images + 2) // 3
    assert file.read()["image"].to_pylist() == [f"{n // 2}.jpg" for n in range(2 * images)]


def test_without_pyarrow_the_command_that_installs_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(OptionError, match=r"pip install pyarrow"):
        ParquetSink(tmp_path / "a.parquet", header())
    assert list(tmp_path.iterdir()) == []
