"""Which class of one list of names is which of another."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from rdlite.evaluate.dataset import DataError

SYNONYMS: Final = {
    "aeroplane": "airplane",
    "motorbike": "motorcycle",
    "sofa": "couch",
    "tvmonitor": "tv",
    "television": "tv",
    "mobilephone": "cellphone",
    "bike": "bicycle",
    "plane": "airplane",
    "human": "person",
    "pedestrian": "person",
}
"""What VOC and others call classes of COCO, letters and digits only."""


def match_classes(names: Sequence[str], known: Sequence[str]) -> list[int | None]:
    """Find each class in a list of known ones by its name.

    An exact name goes first. Else case, spaces and punctuation do not matter, and `SYNONYMS` are
    one name; a name without letters and digits is matched exactly or not at all. A known class is
    given once: to the exact name, else to the first that claims it.

    Args:
        names: The names to find.
        known: Where to find them.

    Returns:
        Index in `known` of each name, None where there is none.
    """
    free = {name: place for place, name in reversed(list(enumerate(known)))}
    rows = [free.pop(name, None) for name in names]
    spellings = {name: _letters(name) for name in (*names, *known)}
    for position, name in enumerate(names):
        wanted = spellings[name]
        if rows[position] is not None or not wanted:
            continue
        same = [other for other in free if _common(spellings[other]) == _common(wanted)]
        if same:
            # "Sofa" is rather "sofa" than "couch", where both are known.
            best = min(same, key=lambda other: (spellings[other] != wanted, free[other]))
            rows[position] = free.pop(best)
    return rows


def some(names: Sequence[str], *, most: int = 8) -> str:
    """Join names for a sentence, at most `most` of them and then how many there are."""
    text = ", ".join(names[:most])
    return text if len(names) <= most else f"{text}, ... ({len(names)} in all)"


class SharedClasses(NamedTuple):
    """Classes that a set annotates and a detector has.

    Attributes:
        names: The detector's names, in its order.
        numbers: Number of each by the set's category id: 1 for the first of `names`, and so on.
        unknown: Annotated classes that the detector does not have.
        renamed: "set's name = detector's name" where the two are spelled differently.
    """

    names: tuple[str, ...]
    numbers: Mapping[int, int]
    unknown: tuple[str, ...]
    renamed: tuple[str, ...]


def share_classes(
    content: Mapping[str, Any], known: Sequence[str], source: str | Path
) -> SharedClasses:
    """Match the annotated classes of a set with those of a detector, by name.

    Args:
        content: A COCO file's.
        known: The detector's names.
        source: Where the set came from, for the message.

    Raises:
        DataError: The set annotates nothing, or they share no class.
    """
    annotated = {annotation["category_id"] for annotation in content["annotations"]}
    categories = [c for c in content["categories"] if c["id"] in annotated]
    theirs = [str(category["name"]) for category in categories]
    if not annotated:
        raise DataError(f"{source} has no annotations; give a set with objects to find")
    rows = match_classes(theirs, known)
    counted = sorted(row for row in rows if row is not None)
    if not counted:
        raise DataError(
            f"{source} annotates none of the {len(known)} classes of the model: "
            f"it has {some(theirs, most=5)}, the model {some(known, most=5)}; "
            "give its categories the model's names"
        )
    matched = list(zip(categories, theirs, rows, strict=True))
    return SharedClasses(
        names=tuple(known[row] for row in counted),
        numbers={c["id"]: 1 + counted.index(row) for c, _, row in matched if row is not None},
        unknown=tuple(name for _, name, row in matched if row is None),
        renamed=tuple(
            f"{name} = {known[row]}"
            for _, name, row in matched
            if row is not None and name != known[row]
        ),
    )


def agree(shared: Sequence[SharedClasses], source: str | Path) -> list[SharedClasses]:
    """Keep the classes that several detectors have, under the same numbers for all of them.

    Args:
        shared: What `share_classes` returned for each detector.
        source: Where the set came from, for the message.

    Returns:
        One for each: `names` as this detector spells them, in the order of the first; `unknown`
        are the annotated classes that any of them does not have.

    Raises:
        DataError: There is no such class.
    """
    first = shared[0].numbers
    common = sorted(
        set(first).intersection(*(one.numbers for one in shared)), key=first.__getitem__
    )
    if not common:
        raise DataError(
            f"{source} annotates no class that all of the {len(shared)} models have; "
            "evaluate them one by one"
        )
    return [
        SharedClasses(
            names=tuple(one.names[one.numbers[category] - 1] for category in common),
            numbers={category: number for number, category in enumerate(common, start=1)},
            unknown=tuple(dict.fromkeys(name for other in shared for name in other.unknown)),
            renamed=one.renamed,
        )
        for one in shared
    ]


def _letters(name: str) -> str:
    # Marks (M) are parts of letters: without them words of Hindi or Thai would become one.
    composed = unicodedata.normalize("NFKC", name).casefold()
    return "".join(c for c in composed if unicodedata.category(c)[0] in "LMN")


def _common(letters: str) -> str:
    return SYNONYMS.get(letters, letters)
