"""Class sets of the label rasters: codes, names in two languages, colours, parents.

Codes, names and colours of COSIA and of LPIS level 1 are those of IGN's FLAIR-HUB README. Codes and
English names of LPIS levels 2 and 3 follow the class figure of IGN's FLAIR site; their French names
are translations, and their colours are those of their level-1 parent, since IGN publishes none.
Values, English names and colours of FLAIR#1 and FLAIR#2 are those of IGN's FLAIR-2 code; French
names are those of the same classes in COSIA.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from flairhub.errors import UnknownNameError, did_you_mean


@dataclass(frozen=True, slots=True)
class LandClass:
    """One class: pixel value, English and French name, ``#rrggbb`` colour, parent's value."""

    code: int
    name: str
    name_fr: str
    colour: str
    parent: int | None = None


@dataclass(frozen=True)
class Nomenclature:
    """A numbered set of classes; the code of a class is its position.

    Parameters
    ----------
    key
        Name in this registry: ``cosia``, ``lpis_1``, ``lpis_2``, ``lpis_3``, ``flair``.
    title
        Name for people.
    classes
        All classes, in the order of their codes.
    ignored
        Codes that IGN's training and scores leave out (weight 0).
    parent
        Key of the nomenclature that the classes' ``parent`` refers to.
    source
        Where the numbers come from.
    """

    key: str
    title: str
    classes: tuple[LandClass, ...]
    source: str
    ignored: tuple[int, ...] = ()
    parent: str | None = None

    def __post_init__(self) -> None:
        """Check that codes count up from 0, which makes a code an index."""
        codes = [c.code for c in self.classes]
        if codes != list(range(len(codes))):
            msg = f"Codes of {self.key} must count up from 0; got {codes}."
            raise ValueError(msg)

    def __len__(self) -> int:
        """Return the number of classes, ignored ones included."""
        return len(self.classes)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """English names in the order of the codes."""
        return tuple(c.name for c in self.classes)

    @cached_property
    def scored(self) -> tuple[int, ...]:
        """Codes that count in training and scores."""
        return tuple(c.code for c in self.classes if c.code not in self.ignored)

    @cached_property
    def palette(self) -> npt.NDArray[np.uint8]:
        """Colours, shape ``(classes, 3)``, red-green-blue."""
        return np.array([[*bytes.fromhex(c.colour[1:])] for c in self.classes], np.uint8)


def _classes(*rows: tuple[str, str, str]) -> tuple[LandClass, ...]:
    return tuple(LandClass(code, *row) for code, row in enumerate(rows))


_COSIA = _classes(
    ("building", "bâtiment", "#db0e9a"),
    ("greenhouse", "serre", "#9999ff"),
    ("swimming pool", "piscine", "#3de6eb"),
    ("impervious surface", "zone imperméable", "#f80c00"),
    ("pervious surface", "zone perméable", "#938e7b"),
    ("bare soil", "sol nu", "#a97101"),
    ("water", "eau", "#1553ae"),
    ("snow", "neige", "#ffffff"),
    ("herbaceous vegetation", "surface herbacée", "#55ff00"),
    ("agricultural land", "culture", "#fff30d"),
    ("plowed land", "terre labourée", "#e4df7c"),
    ("vineyard", "vigne", "#660082"),
    ("deciduous", "feuillu", "#46e483"),
    ("coniferous", "conifère", "#194a26"),
    ("brushwood", "broussaille", "#f3a60d"),
    ("clear cut", "coupe", "#8ab3a0"),
    ("ligneous", "ligneux", "#c5dc42"),
    ("mixed", "mixte", "#6b714f"),
    ("undefined", "indéterminé", "#000000"),
)

_LPIS_1 = _classes(
    ("grasses", "herbe prédominante", "#92d050"),
    ("wheat", "blé", "#d7e600"),
    ("barley", "orge", "#e0e000"),
    ("maize", "maïs", "#fff100"),
    ("other cereals", "autres céréales", "#ffff00"),
    ("rice", "riz", "#e8e8e8"),
    ("hemp/flax/tobacco", "lin/chanvre/tabac", "#dceaf7"),
    ("sunflower", "tournesol", "#d29ead"),
    ("rapeseed", "colza", "#d29ed0"),
    ("other oilseed crops", "autres oléagineux", "#ffbe99"),
    ("soy", "soja", "#ffc000"),
    ("other protein crops", "autres protéagineux", "#ff9000"),
    ("fodder legumes", "légumineuses fourragères", "#009999"),
    ("beetroots", "betterave", "#808000"),
    ("potatoes", "pomme de terre", "#a7a700"),
    ("other arable crops", "autres arables", "#89896d"),
    ("vineyard", "vigne", "#f2cfee"),
    ("olive groves", "oliveraie", "#6f6633"),
    ("fruit orchards", "verger fruits", "#ac8141"),
    ("nut orchards", "verger noix", "#996633"),
    ("other permanent crops", "autres pérennes", "#80c1d7"),
    ("mixed crops", "mélange", "#000000"),
    ("background", "autres", "#000000"),
)


def _children(parents: tuple[LandClass, ...], *rows: tuple[str, str, int]) -> tuple[LandClass, ...]:
    return tuple(
        LandClass(code, name, name_fr, parents[parent].colour, parent)
        for code, (name, name_fr, parent) in enumerate(rows)
    )


_LPIS_2 = _children(
    _LPIS_1,
    ("grasses", "herbe prédominante", 0),
    ("wheat", "blé", 1),
    ("barley", "orge", 2),
    ("maize", "maïs", 3),
    ("sorghum/millet", "sorgho/millet", 4),
    ("other winter cereals", "autres céréales d'hiver", 4),
    ("other spring cereals", "autres céréales de printemps", 4),
    ("other cereals", "autres céréales", 4),
    ("rice", "riz", 5),
    ("hemp/tobacco", "chanvre/tabac", 6),
    ("flax", "lin", 6),
    ("sunflower", "tournesol", 7),
    ("rapeseed", "colza", 8),
    ("other oilseed crops", "autres oléagineux", 9),
    ("soy", "soja", 10),
    ("other protein crops", "autres protéagineux", 11),
    ("alfalfa", "luzerne", 12),
    ("other fodder legumes", "autres légumineuses fourragères", 12),
    ("beetroots", "betterave", 13),
    ("potatoes", "pomme de terre", 14),
    ("fruits and vegetables", "fruits et légumes", 15),
    ("aromatic/medicinal plants", "plantes aromatiques/médicinales", 15),
    ("other arable crops", "autres arables", 15),
    ("vineyard", "vigne", 16),
    ("olive groves", "oliveraie", 17),
    ("fruit orchards", "verger fruits", 18),
    ("nut orchards", "verger noix", 19),
    ("lavandin", "lavandin", 20),
    ("other permanent crops", "autres pérennes", 20),
    ("mixed crops", "mélange", 21),
    ("background", "autres", 22),
)

_LPIS_3 = _children(
    _LPIS_2,
    ("grasses monoculture", "herbe prédominante pure", 0),
    ("grasses mixture", "herbe prédominante en mélange", 0),
    ("winter wheat", "blé d'hiver", 1),
    ("spring wheat", "blé de printemps", 1),
    ("winter barley", "orge d'hiver", 2),
    ("spring barley", "orge de printemps", 2),
    ("maize", "maïs", 3),
    ("sorghum", "sorgho", 4),
    ("millet/foxtail", "millet/moha", 4),
    ("winter durum wheat", "blé dur d'hiver", 5),
    ("winter triticale", "triticale d'hiver", 5),
    ("winter oat", "avoine d'hiver", 5),
    ("winter rye", "seigle d'hiver", 5),
    ("spring oat", "avoine de printemps", 6),
    ("other spring cereals", "autres céréales de printemps", 6),
    ("other cereals", "autres céréales", 7),
    ("rice", "riz", 8),
    ("hemp/tobacco", "chanvre/tabac", 9),
    ("fiber flax", "lin fibres", 10),
    ("other flax", "autre lin", 10),
    ("sunflower", "tournesol", 11),
    ("rapeseed", "colza", 12),
    ("mustard", "moutarde", 13),
    ("other oilseed crops", "autres oléagineux", 13),
    ("soy", "soja", 14),
    ("spring peas", "pois de printemps", 15),
    ("winter protein crops", "protéagineux d'hiver", 15),
    ("other protein crops", "autres protéagineux", 15),
    ("alfalfa", "luzerne", 16),
    ("clover", "trèfle", 17),
    ("other fodder legumes", "autres légumineuses fourragères", 17),
    ("beetroots", "betterave", 18),
    ("potatoes", "pomme de terre", 19),
    ("fruits and vegetables", "fruits et légumes", 20),
    ("aromatic/medicinal plants", "plantes aromatiques/médicinales", 21),
    ("buckwheat", "sarrasin", 22),
    ("other arable crops", "autres arables", 22),
    ("vineyard", "vigne", 23),
    ("olive groves", "oliveraie", 24),
    ("fruit orchards", "verger fruits", 25),
    ("nut orchards", "verger noix", 26),
    ("lavandin", "lavandin", 27),
    ("berries", "petits fruits", 28),
    ("other permanent crops", "autres pérennes", 28),
    ("mixed crops", "mélange", 29),
    ("background", "autres", 30),
)

# The masks begin at 1, and a code is an index: 0 is there so that the values stay as they are.
_FLAIR = _classes(
    ("unlabelled", "non annoté", "#000000"),
    ("building", "bâtiment", "#db0e9a"),
    ("pervious surface", "zone perméable", "#938e7b"),
    ("impervious surface", "zone imperméable", "#f80c00"),
    ("bare soil", "sol nu", "#a97101"),
    ("water", "eau", "#1553ae"),
    ("coniferous", "conifère", "#194a26"),
    ("deciduous", "feuillu", "#46e483"),
    ("brushwood", "broussaille", "#f3a60d"),
    ("vineyard", "vigne", "#660082"),
    ("herbaceous vegetation", "surface herbacée", "#55ff00"),
    ("agricultural land", "culture", "#fff30d"),
    ("plowed land", "terre labourée", "#e4df7c"),
    ("swimming pool", "piscine", "#3de6eb"),
    ("snow", "neige", "#ffffff"),
    ("clear cut", "coupe", "#8ab3a0"),
    ("mixed", "mixte", "#6b714f"),
    ("ligneous", "ligneux", "#c5dc42"),
    ("greenhouse", "serre", "#9999ff"),
    ("other", "autre", "#000000"),
)

FLAIR_BASELINE_OTHER = 13
"""In IGN's 13-class baselines of FLAIR#1 and FLAIR#2 values above 12 count as one, 13 other; the
published scores are means over the other twelve."""

FLAIR_TO_COSIA: Mapping[int, int] = MappingProxyType(
    {
        1: 0, 2: 4, 3: 3, 4: 5, 5: 6, 6: 13, 7: 12, 8: 14, 9: 11, 10: 8, 11: 9, 12: 10, 13: 2,
        14: 7, 15: 15, 16: 17, 17: 16, 18: 1, 19: 18,
    }
)  # fmt: skip
"""The COSIA code of each FLAIR#1 and FLAIR#2 value: the same 19 classes in another order, named
alike but for 19, ``other``, which is COSIA's ``undefined``."""

_README = "IGNF/FLAIR-HUB README, commit 3d5693b"
_FLAIR_2 = "IGNF/FLAIR-2, visualisation/data_display.py, commit 738a44d"
_FIGURE = "class figure NOM_lpis_en of IGN's FLAIR site; parents read from its colour groups"

NOMENCLATURES: Mapping[str, Nomenclature] = MappingProxyType(
    {
        n.key: n
        for n in (
            Nomenclature("cosia", "COSIA land cover", _COSIA, _README, ignored=(15, 16, 17, 18)),
            Nomenclature("lpis_1", "LPIS crops, level 1", _LPIS_1, _README),
            Nomenclature("lpis_2", "LPIS crops, level 2", _LPIS_2, _FIGURE, parent="lpis_1"),
            Nomenclature("lpis_3", "LPIS crops, level 3", _LPIS_3, _FIGURE, parent="lpis_2"),
            Nomenclature(
                "flair",
                "FLAIR#1 and FLAIR#2 land cover",
                _FLAIR,
                _FLAIR_2,
                ignored=(0, *range(FLAIR_BASELINE_OTHER, len(_FLAIR))),
            ),
        )
    }
)
"""Every class set, by key."""


def get_nomenclature(key: str) -> Nomenclature:
    """Return a class set by key; raises `UnknownNameError` naming the near match."""
    try:
        return NOMENCLATURES[key]
    except KeyError:
        msg = f"Unknown nomenclature {key!r}. {did_you_mean(key, NOMENCLATURES)}"
        raise UnknownNameError(msg) from None
