"""Metadata of an image, added to the deepest map of its encoder.

References
----------
Garioud et al. 2022, arXiv:2211.12979 (FLAIR#1).
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from flairhub.errors import GridError
from flairhub.models.flair.metadata import WIDTH

ROWS = 16
"""Rows of the deepest map of an image of 512 pixels."""

HIDDEN = (64, 32)
DROPOUT = 0.4


class MetadataBranch(nn.Module):
    """A small MLP from metadata to numbers that are added to a map.

    Sizes are those of IGN's code (IGNF/FLAIR-1, src/flair/model.py), which adds; its README says
    that it concatenates. In the form ``ign`` the MLP gives 16 numbers, never below 0, one a *row*
    of the map, the same in every channel and column: what an image's place and date are worth
    depends on how far south a pixel lies in it. Maps of other heights get them interpolated. The
    form ``own`` gives a number a channel, of either sign, the same in every pixel.

    Parameters
    ----------
    channels
        Of the map.
    form
        ``ign`` or ``own``.
    """

    def __init__(self, channels: int, form: Literal["ign", "own"]) -> None:
        super().__init__()
        self.by_row = form == "ign"
        last = ROWS if self.by_row else channels
        layers: list[nn.Module] = []
        for before, after in zip((WIDTH, *HIDDEN), (*HIDDEN, last), strict=True):
            layers += [nn.Linear(before, after), nn.Dropout(DROPOUT), nn.ReLU()]
        self.enc_mlp = nn.Sequential(*(layers if self.by_row else layers[:-2]))

    def forward(self, maps: Tensor, metadata: Tensor | None) -> Tensor:
        """Add metadata to a map.

        Parameters
        ----------
        maps : Tensor, shape (B, channels, H, W)
        metadata : Tensor, shape (B, 45), float32
            Of `flairhub.models.flair.metadata.encode_metadata`, in the same form.

        Returns
        -------
        Tensor, shape (B, channels, H, W)

        Raises
        ------
        GridError
            If there are no metadata, or they have another shape.
        """
        if metadata is None or metadata.shape != (maps.shape[0], WIDTH):
            found = "none" if metadata is None else f"the shape {tuple(metadata.shape)}"
            msg = f"This model takes metadata of the shape {(maps.shape[0], WIDTH)}; got {found}."
            raise GridError(msg)
        code: Tensor = self.enc_mlp(metadata)
        if not self.by_row:
            return maps + code[:, :, None, None]
        rows = code[:, None]
        if maps.shape[2] != ROWS:
            rows = F.interpolate(rows, size=maps.shape[2], mode="linear", align_corners=False)
        return maps + rows[..., None]
