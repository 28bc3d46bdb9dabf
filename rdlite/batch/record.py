"""What a batch has done so far, on disk: the record that a later run goes on with."""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from rdlite.batch.images import source_identity
from rdlite.errors import OutputError, RdliteError
from rdlite.storage.journal import Journal
from rdlite.storage.jsonlines import parse_line
from rdlite.storage.outputs import Input
from rdlite.video.job import parts_folder
from rdlite.wording import count


class Record:
    """A journal with an entry for each finished input, which finds them again.

    In memory are nine bytes for each input; everything else is read from the file. Use it in a
    `with` statement, which removes the file if it ends without an error and there is nothing that
    another run could go on with.

    Args:
        path: The journal.
        header: What all entries depend on; see `rdlite.storage.journal.jsonl_header`.
        inputs: All inputs of the batch. They are named below by their number in it.
        resume: See `rdlite.storage.journal.Journal`.
        overwrite: See `rdlite.storage.journal.Journal`.

    Attributes:
        changed: Inputs recorded earlier whose files have changed since.
        published: Names in the output folder of what was made from the record.

    Raises:
        OptionError: The journal exists and may not be gone on with.
        RdliteError: It cannot be written.
    """

    def __init__(
        self,
        path: Path,
        header: Mapping[str, Any],
        inputs: Sequence[Input],
        *,
        resume: bool,
        overwrite: bool,
    ) -> None:
        self.changed = self._others = self._finished = 0
        self.published: set[str] = set()
        self._inputs = inputs
        self._offsets = array("q", [-1]) * len(inputs)
        self._owned = bytearray(len(inputs))
        self._journal = Journal(path, header, resume=resume, overwrite=overwrite)
        self._file = open(path, "rb")
        if self._journal.entries:
            self._index()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._file.close()
        self._journal.close()
        if kind is None and self.empty and not any(map(self._is_begun, self._begun())):
            self._journal.path.unlink(missing_ok=True)

    @property
    def empty(self) -> bool:
        """Whether no input is recorded as finished, and nothing was made from the record."""
        return not (self._finished or self.published)

    def begin(self, numbers: Iterable[int]) -> None:
        """Note that the outputs of these inputs, not there yet, are from now on this batch's."""
        self._append({"begun": [self._key(number) for number in numbers]})

    def publish(self, name: str) -> None:
        """Note that a file in the output folder, not there yet, will be made from the record."""
        if name not in self.published:
            self._append({"published": name})
            self.published.add(name)

    def leave_out(self, number: int) -> None:
        """Pass over the entry of an input for the rest of this run."""
        self._offsets[number] = -1

    def owns(self, number: int) -> bool:
        """Whether what is at the place of this input's output was made by this batch."""
        return bool(self._owned[number])

    def add(self, number: int, entry: Mapping[str, Any]) -> None:
        """Record a finished input.

        Args:
            number: The input.
            entry: What is to be known of it, with what `source_identity` said.

        Raises:
            RdliteError: The journal has vanished, or the disk is full.
        """
        path, output = self._key(number)
        self._finished += 1
        self._offsets[number] = self._append({"input": path, "output": output, **entry})

    def get(self, number: int) -> dict[str, Any] | None:
        """Return the entry of an input; None if there is none, or the input has changed since."""
        if self._offsets[number] < 0:
            return None
        entry = self._read(number)
        try:
            now = source_identity(self._inputs[number].path)
        except OSError:
            now = {"source_size": -1}
        if now.items() <= entry.items():
            return entry
        self.changed += 1
        self._offsets[number] = -1
        return None

    def entries(self) -> Iterator[dict[str, Any]]:
        """Yield the entries in the order of the inputs."""
        for number, offset in enumerate(self._offsets):
            if offset >= 0:
                yield self._read(number)

    def warnings(self) -> list[str]:
        """Return a sentence on each kind of entries in the journal that are left out."""
        others = count(self._others, "entry of the record is", "entries of the record are")
        dropped = count(self._journal.dropped, "damaged entry", "damaged entries")
        texts = {
            f"{others} about no input of this run: left out": self._others,
            f"{dropped} at the end of the record: dropped": self._journal.dropped,
        }
        return [text for text, applies in texts.items() if applies]

    def _begun(self) -> Iterator[str]:
        """Yield the places of outputs that were not there when work on them began."""
        with open(self._journal.path, "rb") as file:
            for line in file:
                for _, output in (parse_line(line) or {}).get("begun", ()):
                    yield output

    def _is_begun(self, output: str) -> bool:
        place = self._journal.path.parent.parent / output
        return os.path.lexists(place) or os.path.lexists(parts_folder(place))

    def _key(self, number: int) -> list[str]:
        one = self._inputs[number]
        return [one.path, one.output]

    def _read(self, number: int) -> dict[str, Any]:
        self._file.seek(self._offsets[number])
        entry: dict[str, Any] = json.loads(self._file.readline())
        return entry

    def _append(self, line: Mapping[str, Any]) -> int:
        """Append a line and return where it begins."""
        path = self._journal.path
        try:
            offset = os.stat(path).st_size
            if not os.path.samestat(os.stat(path), os.fstat(self._file.fileno())):
                raise FileNotFoundError
            self._journal.append(line)
        except OSError as error:
            raise OutputError(f"{path} has vanished: the output folder was removed") from error
        except RdliteError as error:
            raise OutputError(str(error)) from error
        return offset

    def _index(self) -> None:
        paths = {one.path: number for number, one in enumerate(self._inputs)}
        outputs = {one.output: number for number, one in enumerate(self._inputs)}
        offset = len(self._file.readline())
        for line in self._file:
            entry = json.loads(line)
            if "published" in entry:
                self.published.add(entry["published"])
            for _, output in entry.get("begun", ()):
                self._take_place(outputs.get(output))
            if "input" in entry:
                self._finished += 1
                number = outputs.get(entry["output"])
                self._take_place(number)
                if number is not None and number == paths.get(entry["input"]):
                    self._offsets[number] = offset
                else:
                    self._others += 1
            offset += len(line)

    def _take_place(self, number: int | None) -> None:
        # Whatever was made here before is not what lies here now, and may be another input's.
        if number is not None:
            self._owned[number] = 1
            self._offsets[number] = -1
