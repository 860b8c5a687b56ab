"""One unit of work: a ROI, where it goes, and how."""

from __future__ import annotations

from dataclasses import dataclass

from converters.lock import Claim
from converters.source import RoiSource
from flairhub.modalities import Modality
from flairhub.store.access import Location


@dataclass(frozen=True)
class RoiJob:
    """One unit of work, sent to a worker process: a ROI, where it goes, and how.

    Parameters
    ----------
    source, source_name
        What to convert, and the name of its layout.
    root
        Where the stores lie.
    profile
        Of the codecs.
    modalities
        What to convert, of those that the ROI has files of.
    skip
        Leave out files that cannot be converted; else they stop the ROI.
    keep
        Modalities of the ROI that are in the store and stay as they are.
    replaced
        Those that are in the store and are made anew.
    hides
        Whether the ROI is out of sight until it is complete; one that only grows is not.
    claim
        The right to write the domain, looked at before anything that readers see is written.
    """

    source: RoiSource
    source_name: str
    root: str | Location
    profile: str
    modalities: tuple[Modality, ...]
    skip: bool = False
    keep: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    hides: bool = True
    claim: Claim | None = None

    def check_claim(self) -> None:
        """Return if the domain is still ours to write; else raise `ConversionError`."""
        if self.claim is not None:
            self.claim.check()
