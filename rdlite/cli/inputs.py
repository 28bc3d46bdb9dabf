"""Which files a command line means, and what their outputs are called."""

from __future__ import annotations

import functools
import glob
import itertools
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rdlite.batch.feed import ERRORS, WORK
from rdlite.errors import OptionError
from rdlite.sinks import FORMATS
from rdlite.storage.outputs import Input
from rdlite.wording import count

IMAGES: Final = {
    **dict.fromkeys((".bmp", ".gif", ".tif", ".tiff"), ".png"),
    **{suffix: suffix for suffix in (".jpg", ".jpeg", ".png", ".webp")},
}
"""What the names of images end in, and what those of their annotated copies do."""

VIDEOS: Final = frozenset(
    ".mp4 .m4v .mov .mkv .webm .avi .ts .mts .m2ts .mpg .mpeg .flv .wmv".split()
)
"""What the names of videos end in."""

_RESULTS: Final = {ERRORS, *(f"detections{kind.ending}" for kind in FORMATS.values())}


@dataclass(slots=True)
class Found:
    """What the arguments of a command line name.

    Attributes:
        files: The files, each once, in the order of the arguments.
        failed: (argument or folder, reason) of what names no file or cannot be listed.
        skipped: How many files of folders were passed over, by ending.
        links: Folders that were not entered because they are links, which may lead in a circle.
        outputs: What was left out because a run with this output writes it.
    """

    files: list[Input] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    links: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)

    def skipped_note(self) -> str:
        """Return a sentence on what was passed over, empty if there was nothing."""
        kinds = ", ".join(f"{n} {suffix or 'without one'}" for suffix, n in self.skipped.items())
        total = self.skipped.total()
        files = count(
            total, "file passed over for its ending", "files passed over for their endings"
        )
        notes = [f"{files}: {kinds}"] if total else []
        if self.links:
            links = ", ".join(self.links)
            notes.append(f"linked folders not entered: {links}; name them to have them")
        if self.outputs:
            number = count(len(self.outputs), "output")
            notes.append(f"{number} of rdlite left out; the first is {self.outputs[0]}")
        return "; ".join(notes)


def find(
    sources: Sequence[str],
    *,
    images: bool,
    video_ending: str,
    outside: Path,
    copies: bool = True,
    reserved: Iterable[str] = (),
) -> Found:
    """List the files that arguments name.

    A file is taken whatever it is called; of a folder, all files below it with a fitting ending,
    except hidden ones; anything else is tried as a pattern (`**` for any depth) for files and
    folders.

    Args:
        sources: Arguments of the command line.
        images: Images are wanted as well as videos. A file that is named is then a video if it
            ends like one, otherwise it is always one.
        video_ending: What the name of a video's output ends in.
        outside: Where the output goes. What lies in it is not taken from a folder or pattern
            that reaches above it, so that a second run does not work on the output of the first.
        copies: Copies of images are written there.
        reserved: Names in the output folder that no output of an input may have.

    Raises:
        OptionError: The output goes where a folder or pattern would find it, or each file would
            be its own output.
    """
    endings = {**(IMAGES if images else {}), **dict.fromkeys(VIDEOS, video_ending)}
    other = next(iter(endings.values()))
    again = {end for end in endings.values() if end in endings and (copies or end in VIDEOS)}

    def comes_back(place: str, wanted: str) -> bool:
        """Whether the output of a file there is looked for where this ending, or "", is wanted."""
        ending = endings.get(_suffix(place), other)
        return ending in again and (wanted not in endings or wanted == ending)

    found = Found()
    places: dict[str, str] = {}
    folders = _Folders()
    top, begun = os.path.realpath(outside), any((outside / one).exists() for one in (WORK, ERRORS))

    def is_result(path: str) -> bool:
        """Whether an earlier run has left this file or folder in the output folder."""
        folder, name = os.path.split(path.rstrip("/" + os.sep))
        return begun and name in _RESULTS and folders.real(folder) == top

    for source in sources:
        # Of arguments that a shell made of dir/*, some are outputs from the second run on.
        several = len(sources) > 1 and source != ""
        whole = several and os.path.realpath(source) == top
        if (whole and begun and again) or (several and is_result(source)):
            found.outputs.append(source)
            continue
        matches, reason = _matches(source, endings, outside, comes_back, found)
        if not matches and whole:
            found.outputs.append(source)
        elif not matches:
            found.failed.append((source, f"{source or 'an empty argument'}: {reason}"))
        for path, place in matches.items():
            folder, name = os.path.split(path)
            if len(matches) > 1 and is_result(path):
                found.outputs.append(path)
            else:
                places.setdefault(os.path.join(folders.first_name(folder), name), place)
    names = _Names(reserved)
    outputs: dict[str, str] = {}
    for renamed in (False, True):  # of clip.mov and clip.mp4, the second is to keep its name
        for path, place in places.items():
            ending = endings.get(_suffix(place), other)
            if place.endswith(ending) != renamed:
                outputs[path] = names.free(place, ending)
    for path, place in places.items():
        video = _suffix(place) in VIDEOS or not images
        found.files.append(Input(path, outputs[path], video))
    if found.files and all(one.video or copies for one in found.files):
        where = ((os.path.split(one.path), one.output) for one in found.files)
        if all(name == output and folders.real(at) == top for (at, name), output in where):
            first = found.files[0].path
            raise OptionError(f"{first} lies where its own output would go; use another -o")
    if not (found.files or found.failed):
        found.failed = [(one, f"{one}: is an output of rdlite itself") for one in found.outputs]
    return found


# Names are strings here: a million of them are a quarter of what as many `Path` objects take.


def _matches(
    source: str,
    suffixes: Container[str],
    outside: Path,
    comes_back: Callable[[str, str], bool],
    found: Found,
) -> tuple[dict[str, str], str]:
    """Return files with their places, and the sentence for when there are none."""
    path = Path(source)
    if source and path.is_dir():
        places = _places(_below(path, suffixes, found), path, outside)
        _check_apart(source, path, outside, places, lambda place: comes_back(place, ""))
        return places, "no file in this folder has a fitting ending"
    if source and path.exists():
        return {str(path): path.name}, ""
    if not glob.has_magic(source):
        return {}, "no such file or folder"
    root = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parts))
    matches = map(Path, _own_places(sorted(glob.glob(source, recursive=True)), found))
    files = itertools.chain.from_iterable(
        _below(match, suffixes, found) if match.is_dir() else [str(match)] for match in matches
    )
    places = _places(files, root, outside)
    _check_apart(source, root, outside, places, lambda at: comes_back(at, _suffix(source)))
    return places, "no file matches this pattern"


def _below(folder: Path, suffixes: Container[str], found: Found) -> Iterator[str]:
    def unreadable(error: OSError) -> None:
        found.failed.append(
            (error.filename, f"{error.filename}: cannot be listed ({error.strerror})")
        )

    for directory, folders, names in os.walk(folder, onerror=unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        above = _prefix(Path(directory))
        found.links += [above + name for name in folders if os.path.islink(above + name)]
        for name in sorted(names):
            ending = _suffix(name)
            if not name.startswith(".") and ending in suffixes:
                yield above + name
            elif not name.startswith("."):
                found.skipped[ending] += 1


def _places(files: Iterator[str], root: Path, outside: Path) -> dict[str, str]:
    """Return files with their paths from `root`, without those of an output folder below it."""
    above = len(_prefix(root))
    places = {path: path[above:] for path in files}
    top, output = Path(os.path.realpath(root)), Path(os.path.realpath(outside))
    # In the output folder itself lie the files that were named; what is elsewhere is in no way.
    if output == top or not output.is_relative_to(top):
        return places
    skipped = str(output.relative_to(top))
    below = skipped + os.sep
    return {p: at for p, at in places.items() if at != skipped and not at.startswith(below)}


def _check_apart(
    source: str,
    root: Path,
    outside: Path,
    places: Mapping[str, str],
    comes_back: Callable[[str], bool],
) -> None:
    """Raise if the next run would find the outputs of this one where it looks for inputs."""
    top, output = Path(os.path.realpath(root)), Path(os.path.realpath(outside))
    if not top.is_relative_to(output):
        return
    below = _prefix(top.relative_to(output))
    if any(place.startswith(below) and comes_back(place) for place in places.values()):
        raise OptionError(
            f"outputs in {outside} would lie where inputs are looked for ({source}), and the next "
            "run would take them for such; use another -o"
        )


def _prefix(folder: Path) -> str:
    """Return what the names of files in a folder begin with."""
    return os.path.join("" if folder == Path() else folder, "")


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _own_places(matches: list[str], found: Found) -> Iterator[str]:
    """Leave out what a pattern finds again through a folder that is a link."""
    folders = _Folders()
    for match in matches:
        folder = os.path.dirname(match)
        if folders.first_name(folder) == folder:
            yield match
        elif folder not in found.links:
            found.links.append(folder)


class _Folders:
    """Gives every folder one name, though it is also named through a link, or from elsewhere."""

    def __init__(self) -> None:
        self.real = functools.lru_cache(1000)(os.path.realpath)
        self._names: dict[str, str] = {}

    def first_name(self, folder: str) -> str:
        """Return the name under which a folder came first."""
        return self._names.setdefault(self.real(folder), folder)


class _Names:
    """Gives every output a name of its own, also where case or Unicode form make no difference.

    Windows and macOS would take Clip.jpg and clip.jpg for one file; names are the same everywhere,
    so that results can be copied there.
    """

    def __init__(self, reserved: Iterable[str]) -> None:
        self._reserved = frozenset(reserved)
        self._taken = set(self._reserved)
        self._numbers: dict[str, int] = {}  # the last one given to a name

    def free(self, place: str, ending: str) -> str:
        """Return the place with another ending, numbered where another output has it: x-2.jpg."""
        top, *rest = place.split(os.sep)
        if rest and _alike(top) in self._reserved:  # a folder with the name of a file of results
            place = os.sep.join([f"{top}-2", *rest])
        stem = os.path.splitext(place)[0]
        wanted = output = stem + ending
        while _alike(output) in self._taken:
            key = _alike(wanted)
            self._numbers[key] = number = self._numbers.get(key, 1) + 1
            output = f"{stem}-{number}{ending}"
        self._taken.add(_alike(output))
        return output


def _alike(name: str) -> str:
    """Return what is equal of two names that some file system takes for one."""
    return unicodedata.normalize("NFC", name).casefold()
