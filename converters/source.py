"""What a raw dataset must offer to be converted: a new layout is one new file that does this."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Protocol

from converters.files import SourceFile
from flairhub.grids import Grid, RoiGrid
from flairhub.ids import DomainId, PatchId, RoiId
from flairhub.modalities import Modality

if TYPE_CHECKING:
    from converters.receipts import Skipped

Files = Mapping[PatchId, Mapping[str, SourceFile]]
"""The raster of each modality (by registry key) of each patch."""


@dataclass(frozen=True)
class Area:
    """A raster of a whole ROI, which is not cut in patches, and the grid that it lies on."""

    file: SourceFile
    grid: Grid


@dataclass(frozen=True)
class RoiSource:
    """All that is known of a ROI before a raster is opened; plain data, sent to worker processes.

    Parameters
    ----------
    domain, roi
        Which ROI.
    files
        Rasters by patch and modality key.
    times
        Acquisition dates of each series, by modality key, in the order of the bands.
    dates
        Acquisition date of single images, by modality key and patch; None where unknown.
    folds
        Split of each patch, by table column.
    facts
        What else the layout tells of each patch, by name: ends up in a column of the patches table.
    areas
        Rasters of the whole ROI, by modality key.
    lattice
        Where the patches lie, if the source has read it from them.
    problem
        Why the ROI cannot be converted, if that is known already.
    left_out
        What of it is known already to be of no use, and is therefore not in `files`.
    """

    domain: DomainId
    roi: RoiId
    files: Files
    times: Mapping[str, Sequence[date]] = field(default_factory=dict)
    dates: Mapping[str, Mapping[PatchId, date | None]] = field(default_factory=dict)
    folds: Mapping[str, Mapping[PatchId, str]] = field(default_factory=dict)
    facts: Mapping[str, Mapping[PatchId, str]] = field(default_factory=dict)
    areas: Mapping[str, Area] = field(default_factory=dict)
    lattice: RoiGrid | None = None
    problem: str | None = None
    left_out: tuple[Skipped, ...] = ()

    @property
    def keys(self) -> set[str]:
        """The modalities that there is a file of."""
        return {key for by_key in self.files.values() for key in by_key} | set(self.areas)

    def area_grid(self, modality: Modality) -> Grid | None:
        """Return the grid of a modality that is not cut in patches; None for others."""
        return self.areas[modality.key].grid if modality.key in self.areas else None

    def grid(self, modality: Modality, lattice: RoiGrid) -> Grid:
        """Return the grid of a modality: of the ROI's patches on `lattice`, or its own."""
        if modality.is_area:
            return self.areas[modality.key].grid
        return lattice.grid(modality.resolution_m)

    @property
    def where(self) -> str:
        """The ROI's full name, for messages."""
        return f"{self.domain} {self.roi}"


class Source(Protocol):
    """A raw dataset: finds ROIs by name, without opening rasters."""

    @property
    def name(self) -> str:
        """Where the data come from, for the store's attributes and for messages."""

    @property
    def root(self) -> str:
        """Folder or URL that it lies in, which no store keeps: it would differ by machine."""

    @property
    def requests(self) -> int:
        """How many requests were made since it was opened, were it on object storage."""

    @property
    def modalities(self) -> Sequence[Modality]:
        """What the layout can hold, in registry order."""

    @property
    def notes(self) -> Sequence[str]:
        """Oddities met while looking, such as listed patches that are not there."""

    def domains(self) -> list[DomainId]:
        """Return the domains, sorted."""

    def rois(self, domain: DomainId, modalities: Sequence[Modality]) -> list[RoiSource]:
        """Return the ROIs of a domain, sorted, with the files of the chosen modalities."""

    def left_out(self, domain: DomainId) -> Sequence[Skipped]:
        """Return what `rois` met in a domain that is of no use, beyond what its ROIs tell."""
