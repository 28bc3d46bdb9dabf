import pytest

from rdlite.evaluate.classnames import SYNONYMS, match_classes, some


def test_case_spaces_punctuation_and_dialect_do_not_matter() -> None:
    known = ["person", "airplane", "dining table", "tv", "couch", "cell phone"]
    names = ["Dining_Table", "aeroplane", "TV-monitor", "sofa", "gizmo", "cellphone", "Person"]
    assert match_classes(names, known) == [2, 1, 3, 4, None, 5, 0]


@pytest.mark.parametrize(
    ("names", "known", "rows"),
    [
        (["Sofa", "sofa", "couch"], ["couch"], [None, None, 0]),  # the exact one, not the first
        (["Sofa", "Couch"], ["couch"], [0, None]),  # the first
        (["a", "a"], ["a"], [0, None]),
        (["sofa", "couch"], ["couch", "sofa"], [1, 0]),
        (["Sofa"], ["couch", "sofa"], [1]),  # case is nearer than another word
        (["tvmonitor"], ["television", "tv"], [0]),
        (["couch"], ["Sofa"], [0]),
    ],
)
def test_a_known_class_goes_to_one_name(
    names: list[str], known: list[str], rows: list[int | None]
) -> None:
    assert match_classes(names, known) == rows


def test_names_without_letters_match_only_exactly() -> None:
    assert match_classes(["+", "-", "?"], ["-", "*", "+"]) == [2, 0, None]


def test_names_of_other_scripts_are_told_apart_by_all_their_marks() -> None:
    assert match_classes(["Hu\u0308nd", "hund"], ["h\u00fcnd"]) == [0, None]
    assert match_classes(["कि"], ["का"]) == [None]


def test_synonyms_lead_to_a_name_that_has_none() -> None:
    assert not set(SYNONYMS.values()) & set(SYNONYMS)


def test_long_lists_are_cut_and_counted() -> None:
    assert some(["a", "b"]) == "a, b"
    assert some(["a", "b", "c"], most=2) == "a, b, ... (3 in all)"
