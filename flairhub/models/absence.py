"""Modalities that are missing: what stands for them, and leaving them out by chance in training."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch
from torch import Tensor, nn

from flairhub.errors import ConfigError


class AbsentTokens(nn.Module):
    """A learned vector for every map of a modality, which stands for it where it is absent.

    Parameters
    ----------
    channels
        Of the maps, by their keys.

    References
    ----------
    He et al. 2022, arXiv:2111.06377 (mask tokens).
    """

    def __init__(self, channels: Mapping[str, int]) -> None:
        super().__init__()
        self.tokens = nn.ParameterDict(
            {key: nn.Parameter(0.02 * torch.randn(n, 1, 1)) for key, n in channels.items()}
        )

    def __contains__(self, key: str) -> bool:
        """Return whether a map has a token."""
        return key in self.tokens

    def forward(self, key: str, found: Tensor | None, has: Tensor | None, batch: int) -> Tensor:
        """Fill the gaps of one map.

        Parameters
        ----------
        key
            Of the map.
        found : Tensor, shape (B, C, h, w), or None
            The map; None where no sample has it.
        has : Tensor, shape (B,), bool, or None
            Which samples have it; all where None.
        batch
            B.

        Returns
        -------
        Tensor, shape (B, C, h, w), or (B, C, 1, 1) where no sample has it
        """
        token: Tensor = self.tokens[key]
        if found is None:
            return token.expand(batch, -1, -1, -1)
        return found if has is None else torch.where(has[:, None, None, None], found, token)


class ModalityDropout(nn.Module):
    """Leave modalities out of samples by chance, in training, and never all of a sample.

    Modalities of a sample that has all of them are left out with exactly the chances asked for.
    Drawing each by itself would leave nothing with the chance `P` that is the product of all, and
    drawing again in that case would make the others too small. So each is drawn with

        q_i = p_i + P (1 - p_i),   P = q_1 q_2 ... q_n,

    given that one is left: ``(q_i - P) / (1 - P) = p_i``. `P` is 0 as soon as one modality always
    stays. In a sample that lacks modalities of its own, those that remain are left out a little
    less often if all could go.

    Parameters
    ----------
    chances
        By modality, for all that the model has; 0 for those that always stay.

    Raises
    ------
    ConfigError
        If the chances leave one modality a sample on average, or fewer.

    References
    ----------
    Neverova et al. 2016, arXiv:1501.00102 (ModDrop).
    """

    def __init__(self, chances: Mapping[str, float]) -> None:
        super().__init__()
        kept = sum(1 - chance for chance in chances.values())
        if any(chances.values()) and kept <= 1:
            msg = (
                f"modality_dropout leaves {kept:.2f} of {len(chances)} modalities on average "
                f"({dict(chances)}); one must always be left, so it must be more than 1."
            )
            raise ConfigError(msg)
        none = 0.0
        for _ in range(10_000):  # rises to its limit
            none = prod(chance + none * (1 - chance) for chance in chances.values())
        self.drawn = {key: chance + none * (1 - chance) for key, chance in chances.items()}
        self.active = any(chances.values())

    def forward(self, present: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return which modalities stay.

        Parameters
        ----------
        present : mapping of Tensor, shape (B,), bool
            Which samples have a modality.

        Returns
        -------
        dict of Tensor, shape (B,), bool
            Part of `present`; in evaluation all of it.
        """
        if not (self.active and self.training):
            return dict(present)
        chances = {
            key: torch.where(has, torch.full_like(has, self.drawn[key], dtype=torch.float64), 1.0)
            for key, has in present.items()
        }
        stacked = torch.stack(list(chances.values()))
        # of this modality and all that follow: the chance that none of them is left
        none_left = torch.cat([stacked.flip(0).cumprod(0).flip(0), torch.ones_like(stacked[:1])])
        kept: dict[str, Tensor] = {}
        safe = torch.zeros_like(stacked[0], dtype=torch.bool)
        for place, (key, has) in enumerate(present.items()):
            rest = (1 - none_left[place + 1]) / (1 - none_left[place]).clamp(min=1e-12)
            chance = torch.where(safe, stacked[place], stacked[place] * rest)
            kept[key] = has & (torch.rand_like(chance) >= chance)
            safe = safe | kept[key]
        return kept
