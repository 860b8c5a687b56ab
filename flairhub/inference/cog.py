"""The map as a Cloud Optimized GeoTIFF, with the colours and names of its classes.

DEFLATE is chosen over Zstandard because every reader has it; on class maps the difference in size
is a few per cent. GDAL keeps category names in ``<name>.tif.aux.xml``; QGIS takes names and colours
from the style ``<name>.qml`` beside the file.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as Xml

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.io import MemoryFile
from rasterio.shutil import copy

from flairhub.grids import CRS, Grid
from flairhub.inference.atomic import replacing
from flairhub.inference.blending import NODATA
from flairhub.nomenclatures import Nomenclature

BLOCK_PX = 512

_COG_OPTIONS = {
    "BLOCKSIZE": str(BLOCK_PX),
    "COMPRESS": "DEFLATE",
    "LEVEL": "9",
    "OVERVIEW_COMPRESS": "DEFLATE",
    "OVERVIEW_RESAMPLING": "MODE",  # the class that covers most; averages of codes mean nothing
    "BIGTIFF": "IF_SAFER",
}


def write_cog(
    path: Path, classes: npt.NDArray[np.uint8], grid: Grid, nomenclature: Nomenclature
) -> Path:
    """Write a class map with overviews, colour table, names and style; replaces what stood there.

    Parameters
    ----------
    path
        Of the ``.tif``; ``.tif.aux.xml`` and ``.qml`` are written beside it.
    classes
        Shape ``(y, x)``, row 0 north; 255 where there is no prediction.
    grid
        Where the pixels lie.
    nomenclature
        What the codes mean.
    """
    with replacing(path.with_name(f"{path.name}.aux.xml")) as partial:
        partial.write_text(_xml(_category_names(nomenclature)), encoding="utf-8")
    with replacing(path.with_suffix(".qml")) as partial:
        partial.write_text(_xml(_qgis_style(nomenclature), _QGIS_HEADER), encoding="utf-8")
    with replacing(path) as partial, MemoryFile() as memory:
        with memory.open(**_profile(grid)) as target:
            target.write(classes, 1)
            target.write_colormap(1, _colour_table(nomenclature))
            target.set_band_description(1, nomenclature.title)
        with rasterio.Env(GDAL_PAM_ENABLED=False), memory.open() as source:
            copy(source, partial, driver="COG", **_COG_OPTIONS)
    return path


def _profile(grid: Grid) -> dict[str, object]:
    return {
        "driver": "GTiff",
        "dtype": "uint8",
        "count": 1,
        "height": grid.height,
        "width": grid.width,
        "crs": CRS,
        "transform": rasterio.Affine(*grid.transform),
        "nodata": NODATA,
        "photometric": "palette",
    }


def _colour_table(nomenclature: Nomenclature) -> dict[int, tuple[int, int, int, int]]:
    opaque = {
        code: (int(r), int(g), int(b), 255) for code, (r, g, b) in enumerate(nomenclature.palette)
    }
    return opaque | {NODATA: (0, 0, 0, 0)}


def _category_names(nomenclature: Nomenclature) -> Xml.Element:
    root = Xml.Element("PAMDataset")
    names = Xml.SubElement(Xml.SubElement(root, "PAMRasterBand", band="1"), "CategoryNames")
    for name in nomenclature.names:
        Xml.SubElement(names, "Category").text = name
    return root


_QGIS_HEADER = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"


def _qgis_style(nomenclature: Nomenclature) -> Xml.Element:
    root = Xml.Element("qgis", version="3.34", styleCategories="AllStyleCategories")
    renderer = Xml.SubElement(
        Xml.SubElement(root, "pipe"),
        "rasterrenderer",
        {"type": "paletted", "band": "1", "opacity": "1", "alphaBand": "-1", "nodataColor": ""},
    )
    Xml.SubElement(renderer, "rasterTransparency")
    palette = Xml.SubElement(renderer, "colorPalette")
    for c in nomenclature.classes:
        entry = {"value": str(c.code), "color": c.colour, "alpha": "255", "label": c.name}
        Xml.SubElement(palette, "paletteEntry", entry)
    return root


def _xml(root: Xml.Element, header: str = "") -> str:
    Xml.indent(root)
    return f"{header}{Xml.tostring(root, encoding='unicode')}\n"
