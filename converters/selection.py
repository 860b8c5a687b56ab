"""What of a raw dataset is to be converted or verified."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields

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

    Raises
    ------
    UnknownNameError
        If a field is empty: that is nothing, not everything.
    """

    domains: Sequence[str] | None = None
    years: Sequence[int] | None = None
    rois: Sequence[str] | None = None
    modalities: Sequence[str] | None = None
    splits: Sequence[str] | None = None

    def __post_init__(self) -> None:
        """Refuse what would choose nothing whatever there is."""
        for name in self._given:
            if len(getattr(self, name)) == 0:
                msg = f"The choice of {name} names nothing; leave it out for all."
                raise UnknownNameError(msg)

    @property
    def _given(self) -> list[str]:
        return [one.name for one in fields(self) if getattr(self, one.name) is not None]

    def __str__(self) -> str:
        """Return the choice for messages, such as ``years 2019, splits train and valid``."""
        texts = [(name, " and ".join(map(str, getattr(self, name)))) for name in self._given]
        return ", ".join(f"{name} {text}" for name, text in texts) or "everything"

    def choose_domains(self, source: Source) -> list[DomainId]:
        """Return the wanted domains of a source; raises `UnknownNameError` as `domains_of`."""
        return self.domains_of(source.domains(), source.name)

    def domains_of(self, known: Sequence[DomainId], holder: str) -> list[DomainId]:
        """Return the wanted ones of the domains that `holder`, named in messages, has.

        Raises
        ------
        UnknownNameError
            If a domain or year does not exist there, or none is left.
        """
        texts = [str(d) for d in known]
        for name in self.domains or ():
            if name not in texts:
                msg = f"{holder} has no domain {name!r} here. {did_you_mean(name, texts)}"
                raise UnknownNameError(msg)
        of_rois = {r.partition("/")[0] for r in self.rois or () if "/" in r}
        if self.rois and len(of_rois) < len(self.rois):
            of_rois = set()  # a name alone may be of any domain
        years = sorted({d.year for d in known})
        for year in self.years or ():
            if year not in years:
                msg = f"{holder} has no domain of {year} here; it has {', '.join(map(str, years))}."
                raise UnknownNameError(msg)
        chosen = [
            domain
            for domain in known
            if (self.domains is None or str(domain) in self.domains)
            and (self.years is None or domain.year in self.years)
            and (not of_rois or str(domain) in of_rois)
        ]
        if not chosen:
            msg = f"Of {len(known)} domains of {holder} none is chosen by {self}."
            raise UnknownNameError(msg)
        return chosen

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
        return [
            roi
            for roi in rois
            if self.wants(roi.domain, str(roi.roi), set(roi.folds.get("split", {}).values()))
        ]

    def wants(self, domain: DomainId, roi: str, splits: Collection[str]) -> bool:
        """Tell whether a ROI with patches in `splits` is wanted, where its domain is.

        Raises
        ------
        UnknownNameError
            If the choice names a split that does not exist.
        """
        for split in self.splits or ():
            if split not in SPLITS:
                msg = f"There is no split {split!r}. {did_you_mean(split, SPLITS)}"
                raise UnknownNameError(msg)
        named = self.rois is None or roi in self.rois or f"{domain}/{roi}" in self.rois
        return named and (self.splits is None or any(split in splits for split in self.splits))

    def check_rois(self, found: Sequence[str], chosen: int) -> None:
        """Refuse names of ROIs that are not among those found, and a choice of none.

        Parameters
        ----------
        found
            Full names of all ROIs of the chosen domains, such as ``D012-2019/AF-S1-27``.
        chosen
            How many of them were wanted.

        Raises
        ------
        UnknownNameError
            If a name of the choice is none of them, or `chosen` is 0.
        """
        known = {name for full in found for name in (full, full.partition("/")[2])}
        for name in self.rois or ():
            if name not in known:
                msg = f"No chosen domain has a ROI {name!r}. {did_you_mean(name, sorted(known))}"
                raise UnknownNameError(msg)
        if not chosen:
            msg = f"Of {len(found)} ROIs of the chosen domains none is chosen by {self}."
            if self.splits:
                msg += " Which patch is in which split, the CSVs beside the rasters say."
            raise UnknownNameError(msg)
