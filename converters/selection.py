"""What of a raw dataset is to be converted or verified."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from converters.source import RoiSource, Source
from flairhub.errors import UnknownNameError, did_you_mean
from flairhub.ids import DomainId
from flairhub.modalities import Kind, Modality, get_modality
from flairhub.store.tables import SPLITS


@dataclass(frozen=True)
class Selection:
    """A part of a dataset; everything where a field is None.

    Parameters
    ----------
    domains
        Such as ``D012-2019``.
    years
        Of the domains.
    rois
        Names such as ``AF-S1-27``, of whatever domain, or ``D012-2019/AF-S1-27``.
    modalities
        By registry key or IGN's name; a mask brings the series it belongs to.
    splits
        ROIs with a patch in one of them; a ROI is never cut.
    """

    domains: Sequence[str] | None = None
    years: Sequence[int] | None = None
    rois: Sequence[str] | None = None
    modalities: Sequence[str] | None = None
    splits: Sequence[str] | None = None

    def choose_domains(self, source: Source) -> list[DomainId]:
        """Return the wanted domains of a source; raises `UnknownNameError` for one it lacks."""
        known = source.domains()
        texts = [str(d) for d in known]
        for name in self.domains or ():
            if name not in texts:
                msg = f"{source.name} has no domain {name!r} here. {did_you_mean(name, texts)}"
                raise UnknownNameError(msg)
        of_rois = {r.partition("/")[0] for r in self.rois or () if "/" in r}
        if self.rois and len(of_rois) < len(self.rois):
            of_rois = set()  # a name alone may be of any domain
        years = sorted({d.year for d in known})
        for year in self.years or ():
            if year not in years:
                msg = f"{source.name} has no domain of {year} here; it has {years}."
                raise UnknownNameError(msg)
        return [
            domain
            for domain in known
            if (self.domains is None or str(domain) in self.domains)
            and (self.years is None or domain.year in self.years)
            and (not of_rois or str(domain) in of_rois)
        ]

    def choose_modalities(self, source: Source) -> tuple[Modality, ...]:
        """Return the wanted modalities in registry order; raises `UnknownNameError`."""
        offered = tuple(source.modalities)
        if self.modalities is None:
            return offered
        keys = {get_modality(name).key for name in self.modalities}
        for key in keys - {m.key for m in offered}:
            msg = f"{source.name} has no {key}. {did_you_mean(key, [m.key for m in offered])}"
            raise UnknownNameError(msg)
        keys |= {m.group for m in offered if m.kind is Kind.MASK and m.key in keys}
        return tuple(m for m in offered if m.key in keys)

    def choose_rois(self, rois: Sequence[RoiSource]) -> list[RoiSource]:
        """Return the wanted ROIs of a domain; raises `UnknownNameError` for an unknown split."""
        for split in self.splits or ():
            if split not in SPLITS:
                msg = f"There is no split {split!r}. {did_you_mean(split, SPLITS)}"
                raise UnknownNameError(msg)
        return [
            roi
            for roi in rois
            if (
                self.rois is None
                or str(roi.roi) in self.rois
                or f"{roi.domain}/{roi.roi}" in self.rois
            )
            and (
                self.splits is None
                or any(split in self.splits for split in roi.folds.get("split", {}).values())
            )
        ]

    def check_rois(self, found: Sequence[str]) -> None:
        """Refuse names of ROIs that none of the chosen domains has; raises `UnknownNameError`."""
        known = {name for full in found for name in (full, full.partition("/")[2])}
        for name in self.rois or ():
            if name not in known:
                msg = f"No chosen domain has a ROI {name!r}. {did_you_mean(name, sorted(known))}"
                raise UnknownNameError(msg)
