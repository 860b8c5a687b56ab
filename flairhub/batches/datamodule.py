"""The streams of a run, as Lightning wants them."""

from __future__ import annotations

from typing import Any

from lightning import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn

from flairhub.batches.plan import PatchPlan
from flairhub.batches.streaming import PatchStream, stream
from flairhub.config import DataConfig


class FlairDataModule(LightningDataModule):
    """Training, validation and test streams of one configuration.

    Checkpoints of a run hold the place of its training stream. Lightning keeps it too, but forgets
    to give it back where a model asks for ``trainer.estimated_stepping_batches`` before training,
    as many schedules of learning rates do.

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
        self._training: PatchStream | None = None
        self._place: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return where the training stream is; nothing where there is none."""
        return {} if self._training is None else {"training": self._training.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Have the next training stream go on there, if this is training."""
        trainer = self.trainer
        if trainer is None or trainer.state.fn == TrainerFn.FITTING:
            self._place = state_dict["training"]

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
        self._training = self._stream(self.train_plan, shuffle=True, drop_last=full)
        if self._place is not None:
            self._training.load_state_dict(self._place)
            self._place = None
        return self._training

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
