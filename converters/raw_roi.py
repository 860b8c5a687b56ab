"""The raw files of a ROI: where its patches lie, and each file checked against that."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from converters.files import SourceFile
from converters.geometry import check_place, roi_grid
from converters.npy import read_area
from converters.rasters import Raster, read_raster
from converters.rows import class_counts
from converters.source import RoiSource
from flairhub.errors import SourceDataError
from flairhub.grids import PATCH_SIDE_M, Grid, RoiGrid
from flairhub.ids import PatchId
from flairhub.modalities import Modality, get_modality


class RawRoi:
    """Reads the files of a ROI.

    Parameters
    ----------
    source
        The ROI.
    patches
        All that it has, in the source and in the store.
    modalities
        Those that are converted; their files may tell where it lies.
    skip
        Whether a file that cannot be read is left out, so that another one must tell.
    stored
        Where it lies, if it is in the store and a part of it stays there.

    Attributes
    ----------
    grid : RoiGrid
        Its lattice.

    Raises
    ------
    SourceDataError
        If no file can be read.
    """

    def __init__(
        self,
        source: RoiSource,
        patches: Collection[PatchId],
        modalities: Sequence[Modality],
        *,
        skip: bool = False,
        stored: RoiGrid | None = None,
    ) -> None:
        self.source = source
        self._reference: object = "what the store holds of the ROI"
        self.grid = stored or self._lattice(patches, modalities, skip=skip)

    def files(self, modality: Modality) -> dict[PatchId, SourceFile]:
        """Return the files of a modality that is cut in patches."""
        files = self.source.files
        return {patch: by[modality.key] for patch, by in files.items() if modality.key in by}

    def raster(self, patch: PatchId, file: SourceFile, modality: Modality) -> Raster:
        """Return a file's pixels; raises `SourceDataError` where they are not the patch's."""
        found = read_raster(file, modality)
        dates = len(self.source.times.get(modality.key, ()))
        check_place(patch, found.grid, self.grid, file, self._reference)
        if modality.temporal and len(found.pixels) != dates:
            msg = (
                f"{file}: {len(found.pixels)} images, but {dates} dates are listed for "
                f"{self.source.where} {modality.source_name}; every image needs one date."
            )
            raise SourceDataError(msg)
        return found

    def area(self, modality: Modality) -> Raster:
        """Return the pixels of a modality that is a raster of the whole ROI."""
        area = self.source.areas[modality.key]
        return read_area(area.file, modality, len(self.source.times[modality.key]), area.grid)

    def check(self, replaced: Iterable[str], left_out: Collection[tuple[str, str]]) -> None:
        """Read what is to take the place of pixels in the store, before those are given up.

        Parameters
        ----------
        replaced
            Modalities, by key.
        left_out
            Patch or ROI, and modality, of which the store has no pixels: they may be unreadable.

        Raises
        ------
        SourceDataError
            If a file cannot be read.
        """
        for modality in map(get_modality, replaced):
            wanted: dict[str, tuple[PatchId | None, SourceFile]] = {
                str(patch): (patch, file) for patch, file in self.files(modality).items()
            }
            if modality.key in self.source.areas:
                wanted[self.source.where] = None, self.source.areas[modality.key].file
            for where, (patch, file) in wanted.items():
                if (where, modality.key) in left_out:
                    continue
                try:
                    if patch is None:
                        self.area(modality)
                    else:
                        class_counts(self.raster(patch, file, modality).pixels, modality, file)
                except SourceDataError as error:
                    msg = f"{error} What the store holds of it was left as it is."
                    raise SourceDataError(msg) from error

    def _lattice(
        self, patches: Collection[PatchId], modalities: Sequence[Modality], *, skip: bool
    ) -> RoiGrid:
        """Return the lattice from the first file that can be read."""
        problem: SourceDataError | None = None
        if self.source.lattice is not None:
            patch = next(iter(self.source.files))
            place = self.source.lattice.patch_extent(patch.row, patch.column)
            self._reference = "the lattice of its patches"
            return roi_grid(patches, patch, Grid(place.left, place.top, PATCH_SIDE_M, 1, 1))
        for patch, by_key in self.source.files.items():
            for modality in sorted(modalities, key=lambda m: m.patch_px):
                if modality.key not in by_key:
                    continue
                try:
                    raster = read_raster(by_key[modality.key], modality)
                except SourceDataError as error:
                    if not skip:
                        raise
                    problem = error
                    continue
                self._reference = by_key[modality.key]
                return roi_grid(patches, patch, raster.grid)
        msg = f"{self.source.where}: no file of it can be read; the last one said: {problem}"
        raise SourceDataError(msg)
