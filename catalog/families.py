"""What the catalogue says of each family of datasets: names, words, papers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from flairhub.errors import CatalogError
from flairhub.modalities import FLAIR, FLAIR_HUB, MODALITIES


@dataclass(frozen=True, slots=True)
class Family:
    """How a family of datasets is presented.

    Parameters
    ----------
    key
        Begins the ids of its collection and catalogue.
    title
        Its name.
    description
        Of the collection.
    keywords
        To be searched by.
    papers
        DOI and citation of the papers that describe it, the one to cite first.
    """

    key: str
    title: str
    description: str
    keywords: tuple[str, ...]
    papers: tuple[tuple[str, str], ...]

    @property
    def catalog_id(self) -> str:
        """Id of the root catalogue."""
        return f"{self.key}-catalog"


_FIELDS = """\

Fields of the prefix `flairhub`: `patches` counts the 102.4 m squares present, `splits` counts them
by fold and split, `classes` gives the percentage of labelled pixels by class, `cloud_percent` and
`snow_percent` the mean Sentinel-2 probabilities over dates and patches, `clear_dates` the number of
dates with a mean cloud probability under 10 %, `acquisitions` the length of each series."""

FAMILIES: Mapping[str, Family] = {
    FLAIR_HUB: Family(
        "flair-hub",
        "FLAIR-HUB",
        """\
FLAIR-HUB as Zarr datacubes: aerial and historical images, elevation, SPOT, Sentinel-1 and
Sentinel-2 series, land-cover and crop labels of regions of interest (ROIs) all over France.

One item is one ROI. Its assets are groups of the store of its domain (one department in one year),
one a modality; `roi` is all of them as one tree. The range of an item spans all acquisitions but
the historical images of 1947-1965, whose dates are on their asset; `datetime` is that of the aerial
image. Days begin at midnight UTC, since no times are published.
"""
        + _FIELDS,
        (
            "FLAIR-HUB", "IGN", "France", "land cover", "crops", "aerial", "elevation", "SPOT",
            "Sentinel-1", "Sentinel-2", "time series", "zarr", "datacube", "semantic segmentation",
        ),
        (
            (
                "10.48550/arXiv.2506.07080",
                "Garioud, A., Giordano, S., David, N., Gonthier, N. (2025). FLAIR-HUB: Large-scale "
                "Multimodal Dataset for Land Cover and Crop Mapping. arXiv:2506.07080.",
            ),
        ),
    ),
    FLAIR: Family(
        "flair",
        "FLAIR#1 and FLAIR#2",
        """\
FLAIR#1 and FLAIR#2 as Zarr datacubes: aerial images with height above ground, land-cover labels
and, of FLAIR#2, Sentinel-2 series of zones all over France.

One item is one ROI: a zone, or the part of a zone whose patches share a lattice. Its assets are
groups of the store of its domain (one department in one year), one a modality; `roi` is all of
them as one tree. A Sentinel-2 series covers the super-area around its zone, on a grid of its own
that reaches beyond the item's geometry. The range of an item spans all acquisitions; `datetime` is
that of the aerial image. Days begin at midnight UTC.
"""
        + _FIELDS,
        (
            "FLAIR", "FLAIR#1", "FLAIR#2", "IGN", "France", "land cover", "aerial", "elevation",
            "Sentinel-2", "time series", "zarr", "datacube", "semantic segmentation",
        ),
        (
            (
                "10.48550/arXiv.2310.13336",
                "Garioud, A., Gonthier, N., Landrieu, L., De Wit, A., Valette, M., Poupée, M., "
                "Giordano, S., Wattrelos, B. (2023). FLAIR: a Country-Scale Land Cover Semantic "
                "Segmentation Dataset From Multi-Source Optical Imagery. arXiv:2310.13336.",
            ),
            (
                "10.48550/arXiv.2211.12979",
                "Garioud, A., Peillet, S., Bookjans, E., Giordano, S., Wattrelos, B. (2022). "
                "FLAIR #1: semantic segmentation and domain adaptation dataset. arXiv:2211.12979.",
            ),
        ),
    ),
}  # fmt: skip


def family_of(modalities: Iterable[str]) -> Family:
    """Return the family that some modalities belong to.

    Raises
    ------
    CatalogError
        If they belong to more than one: each needs a folder, and a catalogue, of its own.
    """
    datasets = {MODALITIES[key].dataset for key in modalities}
    if len(datasets) != 1:
        names = " and ".join(sorted(datasets)) or "nothing"
        msg = f"The stores hold {names}; a catalogue describes one family. Keep each in a folder."
        raise CatalogError(msg)
    return FAMILIES[datasets.pop()]
