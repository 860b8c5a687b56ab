"""The registry of published models: what each is, how large, how it scored, where its weights lie.

A figure stands here only if a document gives it, and names that document:

- `TABLE`: the model table of IGN's FLAIR-HUB README (commit 3d5693b): modalities, parameters in
  millions, overall accuracy and mean IoU;
- `CARD_LPIS_J`: the card of LPIS-J on the Hugging Face hub;
- `FLAIR_1`, `FLAIR_2`: READMEs of IGN's FLAIR-1 and FLAIR-2 code.

The exact parameter counts are of the network that IGN's public code builds: published files hold
the auxiliary decoders too, which is why the table's figure is the count with all of them and
without the fusion layers that a model of one modality never uses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from flairhub import ign
from flairhub.errors import UnknownNameError, did_you_mean
from flairhub.modalities import Kind, dataset_modalities, get_modality

TABLE = "IGNF/FLAIR-HUB README, model table (commit 3d5693b)"
CARD_LPIS_J = "card of IGNF/FLAIR-HUB_LPIS-J_swinbase-upernet"
FLAIR_1 = "IGNF/FLAIR-1 README"
FLAIR_2 = "IGNF/FLAIR-2 README"

SWIN_BASE = "swin_base_patch4_window12_384"
SWIN_TINY = "swin_tiny_patch4_window7_224"


@dataclass(frozen=True, slots=True)
class Score:
    """Published test scores of one model, in percent, and the document that gives them.

    Parameters
    ----------
    test_set
        What it was tested on.
    miou
        Mean over classes of the intersection over union, percent.
    oa
        Overall accuracy, percent; None where the source gives none.
    source
        Where the figures stand.
    setting
        What was done beside the plain model; empty for the model as such.
    spread
        Of `miou` over repeated trainings, percent points; None where not given.
    """

    test_set: str
    miou: float
    oa: float | None
    source: str
    setting: str = ""
    spread: float | None = None


@dataclass(frozen=True, slots=True)
class Parameters:
    """How large a model is.

    Parameters
    ----------
    published_millions
        As its source gives it; None where none does.
    all_no_aux
        All parameters without auxiliary decoders; None where not known exactly, as the next three.
    fusion_handler
        Parameters of the fusion layers, used or not.
    no_aux_without_fusion
        The first minus the second.
    all_aux_without_fusion
        With an auxiliary decoder a modality, without the fusion layers.
    """

    published_millions: float | None = None
    all_no_aux: int | None = None
    fusion_handler: int | None = None
    no_aux_without_fusion: int | None = None
    all_aux_without_fusion: int | None = None


@dataclass(frozen=True, slots=True)
class HubWeights:
    """A repository on the Hugging Face hub with weights of a model.

    Parameters
    ----------
    repository
        ``owner/name``.
    encoder
        The encoder of these weights: it may differ from the model's.
    bands
        Bands of single modalities that differ from the model's, by modality key.
    revision
        Commit that is loaded unless the user asks for another; None for the newest.
    sha256
        Digest of the weights file at `revision`, or None while nobody has noted it.
    """

    repository: str
    encoder: str = SWIN_BASE
    bands: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    revision: str | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class ModelCard:
    """One published model.

    Parameters
    ----------
    id
        IGN's name, such as ``LC-A``; ours where IGN gives none.
    family
        ``flair-hub``, ``flair-1`` or ``flair-2``: which kind of network it is.
    modalities
        Inputs, by key of `flairhub.modalities`, in the order in which the network encodes them.
    tasks
        Class sets that it predicts, by key of `flairhub.nomenclatures`.
    classes
        Number of classes that its head gives, in the order of `tasks`.
    bands
        Channels by modality, in the order that the network takes; see `BANDS`.
    encoder, decoder
        Names of the encoder (timm's, or smp's for ResNets) and of the decoder of images; None for
        models of series alone.
    parameters
        Published and exact sizes.
    scores
        Published scores; the first is the one that `oa` and `miou` give.
    series_widths, series_out_widths
        Widths of the levels of the series' encoder and of its last layers, where ``flair-hub``
        models take series; the last of them is the number of classes.
    weights
        Known repositories; the first is the default.
    notes
        What a user should know, as whole sentences: where sources disagree above all.
    licence
        SPDX-like name of the licence.
    metadata
        Whether it takes metadata of the image beside its pixels.
    """

    id: str
    family: str
    modalities: tuple[str, ...]
    tasks: tuple[str, ...]
    classes: tuple[int, ...]
    bands: Mapping[str, tuple[str, ...]]
    encoder: str | None
    decoder: str | None
    parameters: Parameters
    scores: tuple[Score, ...]
    series_widths: tuple[int, ...] = ()
    series_out_widths: tuple[int, ...] = ()
    weights: tuple[HubWeights, ...] = ()
    notes: tuple[str, ...] = ()
    licence: str = "etalab-2.0"
    metadata: bool = False

    @property
    def source_names(self) -> tuple[str, ...]:
        """IGN's names of the modalities: ``AERIAL_RGBI``."""
        return tuple(get_modality(key).source_name for key in self.modalities)

    @property
    def oa(self) -> float | None:
        """Published overall accuracy, percent."""
        return self.scores[0].oa

    @property
    def miou(self) -> float:
        """Published mean IoU, percent."""
        return self.scores[0].miou


_MSI = get_modality("sentinel2_ts").band_names

BANDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        m.key: ign.BANDS.get(m.key, ign.ELEVATIONS[0] if m.kind is Kind.ELEVATION else m.band_names)
        for m in dataset_modalities()
        if m.kind in (Kind.IMAGE, Kind.ELEVATION, Kind.SERIES)
    }
)
"""Channels of the FLAIR-HUB models in IGN's configuration, by modality; ``height`` is computed."""

_LETTERS = {
    "A": "aerial_rgbi",
    "H": "aerial_rlt_pan",
    "E": "dem_elev",
    "S": "spot_rgbi",
    "2": "sentinel2_ts",
    "U": "sentinel1_asc_ts",
    "D": "sentinel1_desc_ts",
}

# id, modalities, parameters (millions, all, fusion, without fusion, with auxiliary), OA, mIoU
_ROWS: tuple[tuple[str, str, tuple[float, int, int, int, int], float, float], ...] = (
    ("LC-A", "A", (89.4, 90816843, 1394560, 89422283, 91968030), 77.5, 64.1),
    ("LC-B", "AE", (181.4, 179083971, 2787200, 176296771, 181388265), 78.1, 65.1),
    ("LC-C", "AES", (270.6, 267176763, 4179840, 262996923, 270634164), 78.2, 65.2),
    ("LC-D", "A2", (93.9, 92877508, 1542016, 91335492, 93881619), 77.6, 64.7),
    ("LC-E", "AUD", (95.8, 94928957, 1689472, 93239485, 95785992), 77.7, 64.5),
    ("LC-F", "A2UD", (97.7, 96989622, 1836928, 95152694, 97699581), 77.7, 64.9),
    ("LC-G", "2", (0.9, 922487, 2, 922485, 922865), 57.8, 34.2),
    ("LC-H", "UD", (1.8, 1835376, 2, 1835374, 1836134), 54.5, 28.2),
    ("LC-I", "S", (89.2, 90640459, 1394560, 89245899, 91791646), 64.1, 43.5),
    ("LC-J", "E", (89.4, 90814795, 1394560, 89420235, 91965982), 67.4, 51.2),
    ("LC-K", "AH", (181.4, 179062467, 2787200, 176275267, 181366761), 77.6, 64.3),
    ("LC-L", "AES2UD", (276.4, 273349542, 4622208, 268727334, 276365715), 78.2, 65.8),
    ("LC-ALL", "AHES2UD", (365.8, 361595166, 6014848, 355580318, 365764446), 78.2, 65.6),
    ("LPIS-A", "A", (89.4, 90817103, 1394560, 89422543, 91968550), 86.6, 24.4),
    ("LPIS-B", "AS", (181.2, 178909895, 2787200, 176122695, 181214709), 87.1, 26.1),
    ("LPIS-C", "A2", (93.9, 92881770, 1542016, 91339754, 93886313), 87.5, 29.8),
    ("LPIS-D", "A2UD", (97.7, 97001888, 1836928, 95164960, 97712623), 88.0, 36.1),
    ("LPIS-E", "AS2", (183.1, 180974562, 2934656, 178039906, 183132472), 87.6, 30.3),
    ("LPIS-F", "2", (0.9, 926661, 2, 926659, 927211), 85.3, 23.8),
    ("LPIS-G", "UD", (1.8, 1843552, 2, 1843550, 1844654), 84.5, 18.1),
    ("LPIS-H", "2UD", (2.8, 2769659, 2, 2769657, 2771313), 84.9, 23.8),
    ("LPIS-I", "S2UD", (97.5, 96825504, 1836928, 94988576, 97536239), 87.2, 39.2),
    ("LPIS-J", "AS2UD", (186.9, 185094680, 3229568, 181865112, 186958782), 88.0, 35.4),
    ("LPIS-K", "S", (89.2, 90640719, 1394560, 89246159, 91792166), 84.5, 15.1),
)

_TASK_OF = {"LC": ("cosia", 19), "LPIS": ("lpis_1", 23)}

_WEIGHTS: Mapping[str, tuple[HubWeights, ...]] = {
    "LC-A": (
        HubWeights("IGNF/FLAIR-HUB_LC-A_IR_swinbase-upernet"),
        HubWeights(
            "IGNF/FLAIR-HUB_LC-A_RGB_swintiny-upernet",
            encoder=SWIN_TINY,
            bands=MappingProxyType({"aerial_rgbi": ("red", "green", "blue")}),
        ),
    ),
    "LPIS-J": (HubWeights("IGNF/FLAIR-HUB_LPIS-J_swinbase-upernet"),),
}

_SPOT_NOTE = (
    "Sources disagree on SPOT: cards give means and deviations in the order of the bands nir, red, "
    "green; IGN's configuration file lists red, green, blue, nir and applies them by position to "
    "nir, red, green. Check the statistics that weights were trained with."
)

_NOTES: Mapping[str, tuple[str, ...]] = {
    "LPIS-J": (
        "Sources disagree on the scores: the table gives OA 88.0 and mIoU 35.4, the model's card "
        "87.967 and 32.349, which is the mean of the 23 crop classes that it lists.",
        "The metadata of the card repeats IoUs under names of land-cover classes; they are not "
        "this model's.",
    ),
}


def _flair_hub(
    name: str, letters: str, sizes: tuple[float, int, int, int, int], oa: float, miou: float
) -> ModelCard:
    task, classes = _TASK_OF[name.partition("-")[0]]
    modalities = tuple(_LETTERS[letter] for letter in letters)
    images = any(not get_modality(key).temporal for key in modalities)
    series = any(get_modality(key).temporal for key in modalities)
    scores = [Score("FLAIR-HUB test", miou, oa, TABLE)]
    if name == "LPIS-J":
        scores.append(Score("FLAIR-HUB test", 32.349, 87.967, CARD_LPIS_J))
    return ModelCard(
        id=name,
        family="flair-hub",
        modalities=modalities,
        tasks=(task,),
        classes=(classes,),
        bands=MappingProxyType({key: BANDS[key] for key in modalities}),
        encoder=SWIN_BASE if images else None,
        decoder="upernet" if images else None,
        parameters=Parameters(*sizes),
        scores=tuple(scores),
        series_widths=((64, 64, 128, 128) if images else (64, 64, 64, 128)) if series else (),
        series_out_widths=((32, 19) if classes == 19 else (32, 19, classes)) if series else (),
        weights=_WEIGHTS.get(name, ()),
        notes=_NOTES.get(name, ()) + ((_SPOT_NOTE,) if "spot_rgbi" in modalities else ()),
    )


_FLAIR_AERIAL = {"flair_aerial": get_modality("flair_aerial").band_names}
_FLAIR_BOTH = {**_FLAIR_AERIAL, "flair_sentinel2_ts": _MSI}
_BASELINE_NOTE = (
    "13 classes: values 13 to 19 of the masks count as one, other; scores are means over the "
    "other twelve. The licence is the dataset's."
)
_INC_NOTE = (
    "IGN also publishes this network with 15 classes, trained on FLAIR-INC; its card gives "
    "OA 76.37 and mIoU 54.72."
)


def _baseline(
    name: str,
    family: str,
    bands: Mapping[str, tuple[str, ...]],
    scores: tuple[Score, ...],
    parameters: Parameters,
    *notes: str,
    metadata: bool = False,
) -> ModelCard:
    return ModelCard(
        id=name,
        family=family,
        modalities=tuple(bands),
        tasks=("flair",),
        classes=(13,),
        bands=MappingProxyType(dict(bands)),
        encoder="resnet34",
        decoder="unet",
        parameters=parameters,
        scores=scores,
        notes=(_BASELINE_NOTE, *notes),
        metadata=metadata,
    )


_BASELINES = (
    _baseline(
        "FLAIR1-UNET",
        "flair-1",
        _FLAIR_AERIAL,
        (
            Score("FLAIR#1 test", 54.43, None, FLAIR_1, spread=0.14),
            Score("FLAIR#2 test", 54.70, None, FLAIR_2),
        ),
        Parameters(24.4, all_no_aux=24444381),
        _INC_NOTE,
    ),
    _baseline(
        "FLAIR1-UNET-MTD",
        "flair-1",
        _FLAIR_AERIAL,
        (
            Score("FLAIR#1 test", 55.70, None, FLAIR_1, "with augmentation", 0.27),
            Score("FLAIR#2 test", 55.93, None, FLAIR_2, "with augmentation"),
        ),
        Parameters(all_no_aux=24449933),
        "Takes the metadata of the image beside its pixels: position, height, date, time, camera.",
        "Sources disagree on how: IGN's README says that they are concatenated to the encoder's "
        "output, its code adds them.",
        metadata=True,
    ),
    _baseline(
        "FLAIR2-UTT",
        "flair-2",
        _FLAIR_BOTH,
        (
            Score("FLAIR#2 test", 55.94, None, FLAIR_2),
            Score(
                "FLAIR#2 test",
                57.58,
                None,
                FLAIR_2,
                "with cloud filter, monthly averages and augmentation",
            ),
        ),
        Parameters(all_no_aux=27227007),
    ),
)

CARDS: Mapping[str, ModelCard] = MappingProxyType(
    {card.id: card for card in (*(_flair_hub(*row) for row in _ROWS), *_BASELINES)}
)
"""Every published model, by id."""


def get_card(name: str) -> ModelCard:
    """Return the card of a published model by id, in any case; raises `UnknownNameError`."""
    try:
        return CARDS[name.upper()]
    except KeyError:
        msg = f"Unknown model {name!r}. {did_you_mean(name.upper(), CARDS)}"
        raise UnknownNameError(msg) from None
