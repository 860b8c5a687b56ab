"""The 19 classes of FLAIR#1 and FLAIR#2, and what they are in COSIA."""

from __future__ import annotations

from flairhub.nomenclatures import FLAIR_BASELINE_OTHER, FLAIR_TO_COSIA, get_nomenclature

FLAIR, COSIA = get_nomenclature("flair"), get_nomenclature("cosia")


def test_values_are_those_of_the_masks() -> None:
    assert FLAIR.names[1] == "building"
    assert FLAIR.names[19] == "other"
    assert len(FLAIR) == 20  # 0 is no value of the masks


def test_every_value_has_the_cosia_class_of_its_name_and_colour() -> None:
    assert sorted(FLAIR_TO_COSIA) == list(range(1, 20))
    assert sorted(FLAIR_TO_COSIA.values()) == list(range(19))
    for value, code in FLAIR_TO_COSIA.items():
        mine, other = FLAIR.classes[value], COSIA.classes[code]
        assert mine.colour == other.colour
        if value == 19:
            assert (mine.name, other.name) == ("other", "undefined")
        else:
            assert (mine.name, mine.name_fr) == (other.name, other.name_fr)


def test_the_published_score_counts_the_classes_before_other() -> None:
    assert FLAIR.scored == tuple(range(1, FLAIR_BASELINE_OTHER))
    assert len(FLAIR.scored) == 12
