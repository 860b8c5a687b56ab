"""The streams of a run, as Lightning wants them."""

from __future__ import annotations

from lightning import LightningDataModule

from flairhub.batches.plan import PatchPlan
from flairhub.batches.streaming import PatchStream, stream
from flairhub.config import DataConfig


class FlairDataModule(LightningDataModule):
    """Training, validation and test streams of one configuration.

    Parameters
    ----------
    config
        The ``data`` section of a run.
    seed
        Of the order of training windows.
    """

    def __init__(self, config: DataConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.seed = seed
        self._plans: dict[tuple[str, float], PatchPlan] = {}

    def plan(self, split: str, *, stride_m: float | None = None) -> PatchPlan:
        """Return the plan of a split, made once; raises what `PatchPlan.build` raises.

        Parameters
        ----------
        split
            ``train``, ``valid`` or ``test``; of the one that is trained on, patches with the
            configured ``classes``.
        stride_m
            Step between windows, metres; a window's side when absent, so that no two overlap.
        """
        key = split, stride_m or self.config.window_m
        if key not in self._plans:
            config = self.config
            self._plans[key] = PatchPlan.build(
                config.root,
                modalities=config.modalities,
                labels=config.labels,
                domains=config.domains,
                split=split,
                fold=config.fold,
                bands=config.bands,
                window_m=config.window_m,
                stride_m=stride_m,
                dates=config.dates,
                max_cloud=config.max_cloud,
                classes=config.classes if split == config.train_split else None,
                retry_s=config.retry_s,
            )
        return self._plans[key]

    @property
    def train_plan(self) -> PatchPlan:
        """Windows to learn from, on the configured stride."""
        return self.plan(self.config.train_split, stride_m=self.config.stride_m)

    def train_dataloader(self) -> PatchStream:
        """Return shuffled, full training batches; Lightning sets the epoch.

        The rest of an epoch is left out: batch normalisation over one sample is noise, or an error.
        """
        full = len(self.train_plan) >= self.config.batch_size
        return self._stream(self.train_plan, shuffle=True, drop_last=full)

    def val_dataloader(self) -> PatchStream:
        """Return validation batches, in order; windows do not overlap."""
        return self._stream(self.plan(self.config.valid_split))

    def test_dataloader(self) -> PatchStream:
        """Return test batches, in order; windows do not overlap."""
        return self._stream(self.plan(self.config.test_split))

    def _stream(
        self, plan: PatchPlan, *, shuffle: bool = False, drop_last: bool = False
    ) -> PatchStream:
        config, trainer = self.config, self.trainer
        return stream(
            plan,
            batch_size=config.batch_size,
            shuffle="block" if shuffle and config.shuffle == "block" else shuffle,
            seed=self.seed,
            prefetch=config.prefetch,
            threads=config.threads,
            drop_last=drop_last,
            retry_s=config.retry_s,
            cache=config.cache,
            cache_bytes=config.cache_bytes,
            rank=None if trainer is None else trainer.global_rank,
            world_size=None if trainer is None else trainer.world_size,
        )
