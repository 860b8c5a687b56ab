"""Pictures of what the store and the models hold: aerial images, class maps, comparisons.

Every function returns a `matplotlib.figure.Figure` of its own and touches no global state, so that
it works in a notebook, in a thread and without a display. Arrays come in, nothing is read here.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from flairhub.nomenclatures import Nomenclature

_INK: Final = "#1f2430"
_MUTED: Final = "#697180"
_PAPER: Final = "#ffffff"
_WRONG: Final = "#e4002b"
_PANEL_IN: Final = 4.33
_GAP_IN: Final = 0.14
_HEADER_IN: Final = 1.25
_LEGEND_COLUMNS: Final = 6
_TITLE: Final[dict[str, Any]] = {"fontsize": 22, "weight": "bold", "color": _INK}
_SUBTITLE: Final[dict[str, Any]] = {"fontsize": 14, "color": _MUTED}
_ROUND_LENGTHS_M: Final = (10, 20, 50, 100, 200, 500, 1000, 2000)

Classes = npt.NDArray[np.uint8]
"""Class codes, shape ``(y, x)``; codes beyond the nomenclature mean no data."""


def stretch(
    bands: npt.NDArray[Any], *, low: float = 1, high: float = 99
) -> npt.NDArray[np.float64]:
    """Return an image for display: cut at two percentiles of all bands and scaled to 0..1.

    The bands share the bounds, so that colours keep their hue.

    Parameters
    ----------
    bands
        Shape ``(3, y, x)``, any number type; NaN is shown black.
    low, high
        Percentiles that become 0 and 1.

    Returns
    -------
    ndarray
        Shape ``(y, x, 3)``.
    """
    values = bands.astype(np.float64)
    darkest, brightest = np.nanpercentile(values, (low, high))
    scaled = (values - darkest) / max(brightest - darkest, 1e-9)
    return np.moveaxis(np.nan_to_num(np.clip(scaled, 0, 1)), 0, -1)


def colourise(codes: Classes, nomenclature: Nomenclature) -> npt.NDArray[np.uint8]:
    """Return class codes as colours, shape ``(y, x, 3)``; no data becomes white."""
    table = np.full((256, 3), 255, np.uint8)
    table[: len(nomenclature)] = nomenclature.palette
    return table[codes]


def occurring(nomenclature: Nomenclature, *rasters: Classes) -> tuple[int, ...]:
    """Return the codes that occur in any of the rasters, sorted."""
    seen = np.unique(np.concatenate([np.unique(r) for r in rasters]))
    return tuple(int(c) for c in seen if c < len(nomenclature))


def aerial_figure(
    bands: npt.NDArray[Any], *, resolution_m: float, title: str = "Aerial image"
) -> Figure:
    """Draw a three-band image with a scale bar.

    Parameters
    ----------
    bands
        Shape ``(3, y, x)``: red, green, blue.
    resolution_m
        Pixel side, metres.
    title
        Above the picture.
    """
    figure = Figure(figsize=(6, 6), dpi=120, facecolor=_PAPER, layout="constrained")
    axes = figure.add_subplot()
    _show(axes, stretch(bands), title)
    _scale_bar(axes, bands.shape[-1], resolution_m)
    return figure


def class_figure(
    codes: Classes, nomenclature: Nomenclature, *, resolution_m: float, title: str | None = None
) -> Figure:
    """Draw a class map with IGN's colours, a scale bar, and a legend of the classes that occur.

    Parameters
    ----------
    codes
        Class codes, shape ``(y, x)``.
    nomenclature
        What the codes mean.
    resolution_m
        Pixel side, metres.
    title
        Above the picture; the nomenclature's own where absent.
    """
    figure = Figure(figsize=(8, 6), dpi=120, facecolor=_PAPER, layout="constrained")
    axes = figure.add_subplot()
    _show(axes, colourise(codes, nomenclature), title or nomenclature.title)
    _scale_bar(axes, codes.shape[-1], resolution_m)
    figure.legend(
        handles=_swatches(nomenclature, occurring(nomenclature, codes)),
        loc="outside right center",
        **_LEGEND_STYLE,
    )
    return figure


def comparison_figure(
    aerial: npt.NDArray[Any],
    label: Classes,
    prediction: Classes,
    nomenclature: Nomenclature,
    *,
    resolution_m: float,
    title: str,
    subtitle: str = "",
) -> Figure:
    """Draw aerial image, label, prediction and difference side by side, with a legend.

    Parameters
    ----------
    aerial
        Shape ``(3, y, x)``: red, green, blue.
    label, prediction
        Class codes, shape ``(y, x)``, on the same grid as `aerial`.
    nomenclature
        What the codes mean; pixels labelled with an ignored class are not scored.
    resolution_m
        Pixel side, metres.
    title, subtitle
        Above the pictures.
    """
    height, width = label.shape
    codes = occurring(nomenclature, label, prediction)
    picture_in = _PANEL_IN * height / width
    footer_in = 0.3 + 0.26 * ceil(len(codes) / _LEGEND_COLUMNS)
    size = (4 * (_PANEL_IN + _GAP_IN) + _GAP_IN, _HEADER_IN + picture_in + footer_in)
    figure = Figure(figsize=size, dpi=96, facecolor=_PAPER)
    image = stretch(aerial)
    scored = np.isin(label, nomenclature.scored) & (prediction < len(nomenclature))
    panels: tuple[tuple[str, npt.NDArray[Any]], ...] = (
        ("Aerial image", image),
        ("Label", colourise(label, nomenclature)),
        ("Prediction", colourise(prediction, nomenclature)),
        ("Difference", difference(image, label, prediction, scored)),
    )
    lefts = [(_GAP_IN + i * (_PANEL_IN + _GAP_IN)) / size[0] for i in range(4)]
    bottom = footer_in / size[1]
    for left, (name, picture) in zip(lefts, panels, strict=True):
        box = (left, bottom, _PANEL_IN / size[0], picture_in / size[1])
        _show(figure.add_axes(box), picture, name)
    _scale_bar(figure.axes[0], width, resolution_m)
    for text, from_top_in, style in ((title, 0.16, _TITLE), (subtitle, 0.6, _SUBTITLE)):
        figure.text(lefts[0], 1 - from_top_in / size[1], text, va="top", **style)
    below = bottom - 0.12 / size[1]
    _legend(figure, _swatches(nomenclature, codes), (lefts[0], below), _LEGEND_COLUMNS)
    verdicts = [_swatch("#c8c8c8", "right"), _swatch(_WRONG, "wrong")]
    if not scored.all():
        verdicts.append(_swatch("#ffffff", "not scored"))
    _legend(figure, verdicts, (lefts[3], below), len(verdicts))
    return figure


def difference(
    image: npt.NDArray[np.float64],
    label: Classes,
    prediction: Classes,
    scored: npt.NDArray[np.bool_],
) -> npt.NDArray[np.float64]:
    """Return the picture of right and wrong pixels, shape ``(y, x, 3)``.

    Right pixels show the image pale and without colour, wrong ones are red with its relief, pixels
    that are not scored are white.
    """
    grey = image.mean(axis=-1, keepdims=True)
    right = np.broadcast_to(0.55 + 0.4 * grey, image.shape)
    red = np.array([int(_WRONG[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    wrong = red * (0.7 + 0.3 * grey)
    picture = np.where((label == prediction)[..., None], right, wrong)
    return np.where(scored[..., None], picture, 1.0)


def _show(axes: Axes, picture: npt.NDArray[Any], title: str) -> None:
    axes.imshow(picture, interpolation="antialiased", aspect="equal", vmin=0, vmax=1)
    axes.set_title(title, fontsize=14.5, color=_INK, loc="left", pad=7)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(color="#c9ced6", linewidth=0.8)


def _scale_bar(axes: Axes, width_px: int, resolution_m: float) -> None:
    """Draw a bar of a round length, a quarter of the width at most, at the bottom left."""
    fitting = [n for n in _ROUND_LENGTHS_M if n <= width_px * resolution_m / 4]
    length_m = fitting[-1] if fitting else _ROUND_LENGTHS_M[0]
    share = length_m / (width_px * resolution_m)
    frame = Rectangle((0.025, 0.025), share + 0.05, 0.085, transform=axes.transAxes)
    frame.set(facecolor="black", alpha=0.55, linewidth=0)
    bar = Rectangle((0.05, 0.042), share, 0.011, transform=axes.transAxes)
    bar.set(facecolor="white", linewidth=0)
    axes.add_patch(frame)
    axes.add_patch(bar)
    axes.text(
        0.05 + share / 2, 0.062, f"{length_m} m",
        transform=axes.transAxes, color="white", fontsize=11, ha="center", va="bottom",
    )  # fmt: skip


_LEGEND_STYLE: dict[str, Any] = {
    "frameon": False,
    "fontsize": 12,
    "labelcolor": _INK,
    "handlelength": 1.3,
    "handleheight": 1.1,
    "handletextpad": 0.6,
}


def _swatch(colour: str, name: str) -> Patch:
    return Patch(facecolor=colour, edgecolor="#8b93a1", linewidth=0.5, label=name)


def _swatches(nomenclature: Nomenclature, codes: Sequence[int]) -> list[Patch]:
    return [_swatch(c.colour, c.name) for c in nomenclature.classes if c.code in codes]


def _legend(
    figure: Figure, handles: list[Patch], corner: tuple[float, float], columns: int
) -> None:
    """Put a legend with its upper left corner at `corner`, in shares of the figure."""
    figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=corner, ncols=columns,
        borderpad=0, borderaxespad=0, columnspacing=1.8, **_LEGEND_STYLE,
    )  # fmt: skip
