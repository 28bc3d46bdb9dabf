"""Detections as a Parquet file."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from typing import Any

from rdlite.errors import OptionError
from rdlite.results import Detections
from rdlite.sinks.base import STDOUT, Sink, Where, as_utf8
from rdlite.sinks.text import COLUMNS
from rdlite.storage.partial import PartialFile

_TYPES = ("float32",) * 4 + ("int32", "string", "float32", "string", "int64", "float64")
_ROW_GROUP = 65_536  # rows; as many are held in memory


class ParquetSink(Sink):
    r"""Parquet with one row per object and the columns of CSV, in row groups of 65,536 rows.

    Box and score are float32, `frame` int64 and `time` float64, null where they do not apply.
    An image without objects has no row. A file name that is not valid UTF-8 has its other bytes
    as escapes such as `\udcff`. The header is in the file's metadata as JSON, under "rdlite".

    Args:
        path: File to write.
        header: What the detections depend on; see `jsonl_header`.
        overwrite: Replace an existing file.

    Raises:
        OptionError: pyarrow is not installed, the file exists already, or its directory is
            missing.
        RdliteError: The file cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        header: Mapping[str, Any],
        *,
        overwrite: bool = False,
    ) -> None:
        super().__init__(path)
        if path == STDOUT:
            raise OptionError("Parquet cannot go to standard output; name a file for it")
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise OptionError("Parquet needs pyarrow; run `pip install pyarrow`") from error
        columns = zip(COLUMNS, map(pyarrow.type_for_alias, _TYPES), strict=True)
        self._schema = pyarrow.schema(list(columns), metadata={"rdlite": json.dumps(header)})
        self._rows: list[tuple[Any, ...]] = []
        self._target = PartialFile(path, overwrite=overwrite)
        with self._naming_errors():
            self._file = open(self._target.partial, "wb")
        try:
            with self._naming_errors():
                self._writer = pyarrow.parquet.ParquetWriter(self._file, self._schema)
        except BaseException:
            self._discard()
            raise

    def _add(self, found: Detections, where: Where) -> None:
        source = (as_utf8(where.image), where.frame, where.time)
        self._rows += (
            (*one["xyxy"], one["class_id"], one["class_name"], one["confidence"], *source)
            for one in found.to_dict()["detections"]
        )
        if len(self._rows) >= _ROW_GROUP:
            self._write_rows()

    def _write_rows(self) -> None:
        import pyarrow

        columns = zip(*self._rows, strict=True)
        arrays = [pyarrow.array(c, t) for c, t in zip(columns, self._schema.types, strict=True)]
        with self._naming_errors():
            self._writer.write_table(pyarrow.Table.from_arrays(arrays, schema=self._schema))
        self._rows.clear()

    def close(self) -> None:
        """Finish the file and give it its final name.

        Raises:
            RdliteError: The file cannot be written.
        """
        if self._rows:
            self._write_rows()
        with self._naming_errors():
            self._writer.close()
            self._file.close()
        self._target.commit()

    def abort(self) -> None:
        """Remove the unfinished file."""
        with contextlib.suppress(OSError):  # closing writes, and fails again on a full disk
            self._writer.close()
        self._discard()

    def _discard(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
        self._target.discard()
