"""A series of small images and their dates to one map: attention over time."""

from __future__ import annotations

from torch import Tensor, nn

from flairhub.models.dates import DateAttention, TrueDates, merge_dates
from flairhub.models.encoder import MapEncoder


class LTAE(MapEncoder):
    """Embed every date by convolutions, tell it the season, and let attention choose among dates.

    Only true dates are ever touched, so a result does not depend on how far the batch was padded.

    Parameters
    ----------
    bands
        Channels of one date.
    channels
        Channels of the resulting map; a multiple of `heads`.
    heads
        Heads of the attention.
    max_reduction
        Of no effect: there is one map.

    References
    ----------
    Garnot and Landrieu 2020, arXiv:2007.00586 (L-TAE).
    """

    def __init__(self, bands: int, channels: int, heads: int, *, max_reduction: float = 1) -> None:
        super().__init__()
        del max_reduction
        self.reductions, self.channels = (1,), (channels,)
        self.embed = nn.Sequential(
            nn.Conv2d(bands, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels, affine=False),  # what follows is linear
        )
        self.attention = DateAttention(channels, heads)
        self.project = nn.Sequential(
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        )

    def forward(self, series: Tensor, days: Tensor, lengths: Tensor | None = None) -> list[Tensor]:
        """Encode a batch of series.

        Parameters
        ----------
        series : Tensor, shape (B, T, bands, h, w), float32
            Padded at the end of T.
        days : Tensor, shape (B, T), int64
            Days since 1970-01-01; anything where padded.
        lengths : Tensor, shape (B,), int64, or None
            True number of dates, at least 1; None where all are true.

        Returns
        -------
        list of one Tensor, shape (B, channels, h, w), float32
        """
        dates = TrueDates(lengths, *days.shape, training=self.training)
        maps = self.embed(dates.pack(series))
        maps, weights = self.attention(maps, dates.pack(days), dates)
        return [self.project(merge_dates(dates.unpack(maps, 0.0), weights))]
