"""The network of FLAIR-HUB as its description reads, step by step: the peer of `models`.

Every block does what the description says, in that order: encoders of images are timm's; blocks
over dates run on zeros once to learn a shape; every map is resized before it is concatenated;
scores of series and auxiliary heads are computed and brought to full size whether anybody uses them
or not.
Parameters have the names of IGN's weights, so that the state dict of ours fits.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

Maps = list[Tensor]


def resize(maps: Tensor, size: int) -> Tensor:
    """Bilinear, edges aligned."""
    return F.interpolate(maps, size=(size, size), mode="bilinear", align_corners=False)


def block(before: int, after: int, side: int = 1) -> nn.Sequential:
    """Convolution without bias, batch norm, ReLU."""
    conv = nn.Conv2d(before, after, side, padding=side // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(after), nn.ReLU(inplace=True))


class Image(nn.Module):
    """A Swin of timm and the maps that segmentation-models-pytorch makes of its output."""

    def __init__(self, name: str, bands: int, side: int) -> None:
        super().__init__()
        self.seg_model: Any = nn.Module()
        network: Any = timm.create_model(
            name, features_only=True, out_indices=(0, 1, 2, 3), in_chans=bands, img_size=side
        )
        self.seg_model.model = network
        self.channels: list[int] = network.feature_info.channels()

    def forward(self, image: Tensor) -> Maps:
        """(B, bands, H, W) to the image, an empty map and four of the network."""
        found = [m.permute(0, 3, 1, 2).contiguous() for m in self.seg_model.model(image)]
        empty = image.new_empty(len(image), 0, image.shape[-2] // 2, image.shape[-1] // 2)
        return [image, empty, *found]


class Pooling(nn.Module):
    """Pyramid pooling."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(s), block(channels, channels // 4))
            for s in (1, 2, 3, 6)
        )
        self.out_conv = block(2 * channels, 256)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, channels, H, W) to (B, 256, H, W)."""
        pooled = [resize(b(maps), maps.shape[-1]) for b in self.blocks]
        found: Tensor = self.out_conv(torch.cat([maps, *pooled], dim=1))
        return found


class Level(nn.Module):
    """A level of the feature pyramid, if the encoder has a map for it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.skip_conv = block(channels, 256)


class UPerNet(nn.Module):
    """The form of segmentation-models-pytorch 0.4.0."""

    def __init__(self, channels: Sequence[int], classes: int) -> None:
        super().__init__()
        self.seg_model: Any = nn.Module()
        decoder = self.seg_model.decoder = nn.Module()
        decoder.psp = Pooling(channels[3])
        finer = [Level(n) for n in reversed(channels[:3])]
        decoder.fpn_stages = nn.ModuleList([*finer, nn.Identity(), Level(1)])
        decoder.fpn_bottleneck = block(5 * 256, 64, 3)
        self.seg_model.segmentation_head = nn.Sequential(nn.Conv2d(64, classes, 1))

    def forward(self, maps: Maps) -> Tensor:
        """Six maps to (B, classes, H, W)."""
        image, empty, *found = maps
        decoder = self.seg_model.decoder
        levels = [decoder.psp(found[3])]
        for stage, one in zip(decoder.fpn_stages, reversed(found[:3]), strict=False):
            levels.append(resize(levels[-1], one.shape[-1]) + stage.skip_conv(one))
        levels.append(resize(levels[-1], empty.shape[-1]))
        side = image.shape[-1] // 4
        stacked = torch.cat([resize(level, side) for level in levels], dim=1)
        logits = self.seg_model.segmentation_head(decoder.fpn_bottleneck(stacked))
        return F.interpolate(logits, scale_factor=4, mode="bilinear", align_corners=True)


class Layer(nn.Module):
    """Steps of convolution, norm and ReLU."""

    def __init__(self, widths: Sequence[int], *, grouped: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            conv = nn.Conv2d(before, after, 3, padding=1, padding_mode="reflect")
            norm = nn.GroupNorm(4, after) if grouped else nn.BatchNorm2d(after)
            layers += [conv, norm, nn.ReLU()]
        self.conv = nn.Sequential(*layers)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, widths[0], H, W) to (N, widths[-1], H, W)."""
        found: Tensor = self.conv(maps)
        return found


class Wrapped(nn.Module):
    """A `Layer` one name deeper."""

    def __init__(self, widths: Sequence[int], *, grouped: bool) -> None:
        super().__init__()
        self.conv = Layer(widths, grouped=grouped)

    def forward(self, maps: Tensor) -> Tensor:
        """See `Layer`."""
        found: Tensor = self.conv(maps)
        return found


class Down(nn.Module):
    """A level of the encoder of a series."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.down = Layer((before, before), grouped=True)
        self.conv1 = Layer((before, after), grouped=True)
        self.conv2 = Layer((after, after), grouped=True)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, before, H, W) to (N, after, H, W)."""
        found: Tensor = self.conv1(self.down(maps))
        more: Tensor = self.conv2(found)
        return found + more


class Up(nn.Module):
    """A level of the decoder of a series."""

    def __init__(self, before: int, after: int, skip: int) -> None:
        super().__init__()
        up = nn.ConvTranspose2d(before, after, 3, padding=1)
        self.up = nn.Sequential(up, nn.BatchNorm2d(after), nn.ReLU())
        conv = nn.Conv2d(skip, skip, 1)
        self.skip_conv = nn.Sequential(conv, nn.BatchNorm2d(skip), nn.ReLU())
        self.conv1 = Layer((after + skip, after), grouped=False)
        self.conv2 = Layer((after, after), grouped=False)

    def forward(self, deeper: Tensor, skip: Tensor) -> Tensor:
        """To (B, after, H, W)."""
        found: Tensor = self.conv1(torch.cat([self.up(deeper), self.skip_conv(skip)], dim=1))
        more: Tensor = self.conv2(found)
        return found + more


class Attention(nn.Module):
    """Master queries."""

    def __init__(self) -> None:
        super().__init__()
        self.Q = nn.Parameter(torch.empty(16, 4))
        self.fc1_k = nn.Linear(256, 64)

    def forward(self, values: Tensor, padding: Tensor) -> tuple[Tensor, Tensor]:
        """(N, T, 256) to heads, (16, N, 16), and their weights, (16, N, T)."""
        keys = self.fc1_k(values).view(*values.shape[:2], 16, 4).permute(2, 0, 1, 3)
        queries = self.Q[:, None, None].expand(-1, len(values), -1, -1)
        scores = (queries @ keys.transpose(-2, -1) / 2)[:, :, 0]
        weights = F.dropout(
            scores.masked_fill(padding, -1000).softmax(-1), 0.1, training=self.training
        )
        chunks = torch.stack(torch.split(values, 16, dim=-1))
        return (weights[:, :, None] @ chunks)[:, :, 0], weights


class Temporal(nn.Module):
    """Lightweight temporal attention."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.in_norm, self.out_norm = nn.GroupNorm(16, channels), nn.GroupNorm(16, channels)
        self.inconv = nn.Conv1d(channels, 256, 1)
        self.attention_heads = Attention()
        self.mlp = nn.Sequential(nn.Linear(256, channels), nn.BatchNorm1d(channels), nn.ReLU())

    def forward(self, maps: Tensor, days: Tensor, padding: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, C, H, W) to (B, C, H, W) and weights (16, B, T, H, W)."""
        batch, dates, channels, height, width = maps.shape
        pixels = maps.permute(0, 3, 4, 2, 1).reshape(-1, channels, dates)
        values = self.inconv(self.in_norm(pixels)).transpose(1, 2)
        every = days[:, None].expand(-1, height * width, -1).reshape(-1, dates)
        angles = every[..., None] / 1000 ** (2 * (torch.arange(16) // 2) / 16)
        code = torch.empty_like(angles)
        code[..., 0::2], code[..., 1::2] = angles[..., 0::2].sin(), angles[..., 1::2].cos()
        values = values + code.repeat(1, 1, 16)
        outside = padding[:, None].expand(-1, height * width, -1).reshape(-1, dates)
        heads, weights = self.attention_heads(values, outside)
        merged = self.mlp(heads.transpose(0, 1).reshape(len(values), -1))
        merged = self.out_norm(F.dropout(merged, 0.2, training=self.training))
        place = (batch, height, width)
        return (
            merged.view(*place, channels).permute(0, 3, 1, 2),
            weights.view(16, *place, dates).permute(0, 1, 4, 2, 3),
        )


class Series(nn.Module):
    """U-TAE."""

    def __init__(
        self, bands: int, widths: Sequence[int], decoder: Sequence[int], out: Sequence[int]
    ) -> None:
        super().__init__()
        self.channels = list(reversed(decoder))
        self.in_conv = Wrapped((bands, widths[0], widths[0]), grouped=True)
        pairs = pairwise(widths)
        self.down_blocks = nn.ModuleList(Down(*pair) for pair in pairs)
        self.temporal_encoder = Temporal(widths[-1])
        self.up_blocks = nn.ModuleList(
            Up(decoder[i], decoder[i - 1], widths[i - 1]) for i in reversed(range(1, len(widths)))
        )
        self.out_conv = Wrapped((decoder[0], *out), grouped=False)

    def forward(self, series: Tensor, days: Tensor) -> tuple[Tensor, Maps]:
        """(B, T, bands, H, W) to scores and maps, deepest first."""
        padding = (series == 0).flatten(2).all(2)
        levels = [over_dates(self.in_conv, series)]
        for down in self.down_blocks:
            levels.append(over_dates(down, levels[-1]))
        merged, weights = self.temporal_encoder(levels[-1], days, padding)
        maps = [merged]
        for up, level in zip(self.up_blocks, reversed(levels[:-1]), strict=True):
            groups = torch.stack(level.chunk(16, dim=2))
            if padding.any():
                weights = weights * ~padding[None, :, :, None, None]
            skip = torch.cat([*(weights[:, :, :, None] * groups).sum(2)], dim=1)
            maps.append(up(maps[-1], skip))
        return self.out_conv(maps[-1]), maps


def over_dates(module: nn.Module, series: Tensor) -> Tensor:
    """Run a block on every date that is not blank, and on zeros to learn a shape."""
    found: Tensor
    frames = series.flatten(0, 1)
    blank = (frames == 0).flatten(1).all(1)
    if blank.any():
        found = torch.zeros_like(module(torch.zeros_like(frames)))
        found[~blank] = module(frames[~blank])
    else:
        module(torch.zeros_like(frames))
        found = module(frames)
    return found.view(*series.shape[:2], *found.shape[1:])


class Fusion(nn.Module):
    """A convolution over all modalities' maps at each of four levels."""

    def __init__(self, channels: Sequence[Sequence[int]], target: Sequence[int]) -> None:
        super().__init__()
        totals = [sum(level) for level in zip(*channels, strict=True)]
        self.conv_f = nn.ModuleList(
            nn.Conv2d(total, width, 1) for total, width in zip(totals, target, strict=True)
        )

    def forward(self, maps: Sequence[Maps]) -> Maps:
        """Bring maps of every modality to those of the first, its image before them."""
        fused = []
        for level, conv in enumerate(self.conv_f):
            side = maps[0][2:][level].shape[-1]
            every = [resize(m[-4:][level], side) for m in maps]
            fused.append(conv(torch.cat(every, dim=1)))
        return [*maps[0][:2], *fused]


class Straightforward(nn.Module):
    """Images and series to scores of one class set.

    Parameters
    ----------
    images, series
        By IGN's names: bands and side of the images, bands of the series.
    task
        IGN's name of the class set.
    classes
        Number of classes.
    encoder
        timm's name of a Swin.
    aux
        Whether every modality has an auxiliary head.
    """

    def __init__(
        self,
        images: dict[str, tuple[int, int]],
        series: dict[str, int],
        task: str,
        classes: int,
        encoder: str,
        *,
        aux: bool,
    ) -> None:
        super().__init__()
        self.images, self.series, self.task = list(images), list(series), task
        encoders: dict[str, Any] = {k: Image(encoder, *shape) for k, shape in images.items()}
        widths = (64, 64, 128, 128) if images else (64, 64, 64, 128)
        decoder = widths if images else (32, 32, 64, 128)
        out = (32, 19) if classes == 19 else (32, 19, classes)
        for key, bands in series.items():
            encoders[key] = Series(bands, widths, decoder, out)
        self.encoders = nn.ModuleDict(encoders)
        channels = [found.channels for found in encoders.values()]
        self.fusion_handler = Fusion(channels, channels[0]) if images else Fusion([[1]], [1])
        last = UPerNet(channels[0], classes) if images else nn.Conv2d(classes, classes, 1)
        self.main_decoders = nn.ModuleDict({task: last})
        self.aux_decoders = nn.ModuleDict()
        for place, key in enumerate(self.encoders if aux else ()):
            of_image = key in images
            head = UPerNet(channels[place], classes) if of_image else nn.Conv2d(classes, classes, 1)
            self.aux_decoders[f"{key}__{task}"] = head

    def forward(
        self, inputs: dict[str, Tensor], days: dict[str, Tensor], side: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the scores and those of the auxiliary heads, (B, classes, side, side)."""
        maps: dict[str, Maps] = {key: self.encoders[key](inputs[key]) for key in self.images}
        logits: dict[str, Tensor] = {}
        for key in self.series:
            found, maps[key] = self.encoders[key](inputs[key], days[key])
            logits[key] = resize(found, side)
        merged = self.merge(list(maps.values()), [resize(x, side) for x in logits.values()])
        head = self.main_decoders[self.task]
        scores = resize(head(merged), side) if self.images else merged[0]
        aux = {}
        for name, head in self.aux_decoders.items():
            key = name.partition("__")[0]
            aux[name] = resize(head(maps[key] if key in self.images else logits[key]), side)
        return scores, aux

    def merge(self, maps: list[Maps], logits: list[Tensor]) -> Maps:
        """Return the maps to decode; without images the mean of the scores."""
        if not self.images:
            return [torch.stack(logits).mean(0) if len(logits) > 1 else logits[0]]
        return maps[0] if len(maps) == 1 else self.fusion_handler(maps)
