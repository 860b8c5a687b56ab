"""Attributes that tell other software where and what the pixels are: CF-1.12 and GeoZarr.

GeoZarr's ``proj`` and ``spatial`` conventions (v0.1) are written and checked by zarr-cm; the CF
grid mapping comes from pyproj. Raw integers stay raw: there is no CF ``scale_factor``, which would
turn them into floats on opening.
"""

from __future__ import annotations

from functools import cache
from typing import Any, cast

import zarr_cm

from flairhub.errors import StoreLayoutError
from flairhub.grids import CRS, Grid
from flairhub.modalities import FLAIR, FLAIR_HUB, Modality
from flairhub.nomenclatures import Nomenclature

CF_VERSION = "CF-1.12"
GRID_MAPPING = "spatial_ref"
TIME_UNITS = "days since 1970-01-01"

LICENCES = {
    dataset: {
        "license": "etalab-2.0",
        "attribution": f"IGN {dataset}, Open Licence 2.0 / Licence Ouverte 2.0 (Etalab)",
        "references": references,
    }
    for dataset, references in (
        (FLAIR_HUB, "https://doi.org/10.48550/arXiv.2506.07080"),
        (
            FLAIR,
            "https://doi.org/10.48550/arXiv.2211.12979 https://doi.org/10.48550/arXiv.2310.13336",
        ),
    )
}
"""What attribution the data of a family ask for."""

LICENCE = LICENCES[FLAIR_HUB]


def geozarr_attributes(grid: Grid) -> dict[str, Any]:
    """Return the ``proj`` and ``spatial`` attributes of a group or array on `grid`.

    Raises
    ------
    StoreLayoutError
        If zarr-cm finds them invalid.
    """
    attributes = zarr_cm.create_many(
        {
            "proj": {"proj:code": CRS},
            "spatial": {
                "spatial:dimensions": ["y", "x"],
                "spatial:transform": list(grid.transform),
                "spatial:bbox": list(grid.extent.bbox),
                "spatial:shape": [grid.height, grid.width],
            },
        }
    )
    try:
        zarr_cm.validate_all(attributes)
    except ValueError as error:
        msg = f"GeoZarr attributes of {grid} are not valid: {error}"
        raise StoreLayoutError(msg) from error
    return cast("dict[str, Any]", attributes)


def grid_of(attributes: dict[str, Any], where: object) -> Grid:
    """Return the grid that GeoZarr attributes describe; raises `StoreLayoutError`.

    Parameters
    ----------
    attributes
        Of a modality group.
    where
        Names the group in the message.
    """
    try:
        height, width = attributes["spatial:shape"]
        return Grid.from_transform(tuple(attributes["spatial:transform"]), height, width)
    except KeyError as error:
        msg = f"{where} lacks the GeoZarr attribute {error}; it was not written by flairhub."
        raise StoreLayoutError(msg) from error


@cache
def _projection() -> dict[str, Any]:
    from pyproj import CRS as ProjCRS

    cf = ProjCRS.from_user_input(CRS).to_cf()
    return {**cf, "spatial_ref": cf["crs_wkt"]}


def grid_mapping_attributes(grid: Grid) -> dict[str, Any]:
    """Return the attributes of the scalar ``spatial_ref`` variable (CF and GDAL)."""
    a, b, c, d, e, f = grid.transform
    return {**_projection(), "GeoTransform": f"{c!r} {a!r} {b!r} {f!r} {d!r} {e!r}"}


def coordinate_attributes(axis: str) -> dict[str, Any]:
    """Return the attributes of a coordinate: ``x``, ``y``, ``time``, ``band`` or ``level``."""
    projected = {
        "standard_name": f"projection_{axis}_coordinate",
        "units": "m",
        "axis": axis.upper(),
    }
    return {
        "x": {**projected, "long_name": "easting, pixel centre"},
        "y": {**projected, "long_name": "northing, pixel centre"},
        "time": {
            "standard_name": "time",
            "long_name": "acquisition date",
            "units": TIME_UNITS,
            "calendar": "proleptic_gregorian",
            "axis": "T",
        },
        "band": {"long_name": "band"},
        "level": {"long_name": "nomenclature level, 1 coarsest"},
    }[axis]


def flag_attributes(nomenclature: Nomenclature) -> dict[str, Any]:
    """Return CF flag attributes of a class raster, with GDAL-style colours."""
    return {
        "flag_values": [c.code for c in nomenclature.classes],
        "flag_meanings": " ".join(_flag_word(c.name) for c in nomenclature.classes),
        "flag_colors": " ".join(c.colour for c in nomenclature.classes),
    }


def _flag_word(name: str) -> str:
    """CF wants words of letters, digits and ``_ - . + @``."""
    return "".join(ch if ch.isalnum() or ch in "_-.+@" else "_" for ch in name)


def variable_attributes(modality: Modality, bands: tuple[int, ...]) -> dict[str, Any]:
    """Return the CF attributes of a modality's variable.

    Parameters
    ----------
    modality
        From the registry.
    bands
        0-based bands that the variable holds (one of them for masks).
    """
    chosen = [modality.bands[i] for i in bands]
    whole = len(chosen) == len(modality.bands)
    attributes: dict[str, Any] = {
        "long_name": modality.long_name if whole else chosen[0].description,
        "units": modality.units,
        "grid_mapping": GRID_MAPPING,
        # makes the mapping a coordinate, where rioxarray looks, also without decode_coords="all"
        "coordinates": GRID_MAPPING,
        "source_name": modality.source_name,
    }
    if modality.standard_name:
        attributes["standard_name"] = modality.standard_name
    if modality.nodata is not None:
        attributes["nodata"] = modality.nodata
    if any(b.centre_um for b in chosen):
        attributes["wavelength_um"] = [b.centre_um for b in chosen]
    if whole:
        attributes["band_descriptions"] = [b.description for b in chosen]
    if len(modality.nomenclatures) == 1:
        attributes |= flag_attributes(modality.nomenclature())
    for level, _ in enumerate(modality.nomenclatures if len(modality.nomenclatures) > 1 else (), 1):
        flags = flag_attributes(modality.nomenclature(level))
        attributes |= {f"level_{level}_{name}": value for name, value in flags.items()}
    return attributes
