"""Worker processes around a stream, which keep its epoch and its place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from torch.utils.data import DataLoader

from flairhub.batches.batch import MultimodalBatch
from flairhub.batches.streaming import PatchStream
from flairhub.errors import PlanError


class StreamLoader(DataLoader[MultimodalBatch]):
    """A `torch.utils.data.DataLoader` that resumes as its stream does.

    A stream decodes in threads and is as fast without; this is for what must have workers. It
    gives the same batches in the same order, each rank's own under `torch.distributed`, and goes
    on inside an epoch under Lightning's ``ckpt_path``. Torch's own loader does neither tell the
    stream an epoch that Lightning sets, nor save how far it is.

    Parameters
    ----------
    dataset
        The stream.
    num_workers
        Processes, started with spawn: object storage does not survive a fork.
    options
        For torch's loader, such as ``prefetch_factor``.

    Raises
    ------
    PlanError
        If an option does not go with a stream.

    Examples
    --------
    ::

        loader = flairhub.StreamLoader(flairhub.stream(plan, batch_size=8), num_workers=2)
        trainer.fit(model, loader, ckpt_path="last.ckpt")
    """

    def __init__(self, dataset: PatchStream, *, num_workers: int = 1, **options: Any) -> None:  # noqa: ANN401
        if not isinstance(dataset, PatchStream):
            msg = f"StreamLoader reads what flairhub.stream makes, not a {type(dataset).__name__}."
            raise PlanError(msg)
        if options.get("persistent_workers"):
            msg = "Workers that are kept never hear of the next epoch: no persistent_workers."
            raise PlanError(msg)
        context = options.pop("multiprocessing_context", None) or "spawn"
        if getattr(context, "get_start_method", lambda: context)() == "fork":
            msg = "Workers of a stream start with 'spawn', not 'fork': object storage would hang."
            raise PlanError(msg)
        if options.pop("batch_size", None) is not None:
            msg = "The stream makes the batches: give batch_size to flairhub.stream."
            raise PlanError(msg)
        super().__init__(
            dataset,
            batch_size=None,
            num_workers=num_workers,
            multiprocessing_context=context if num_workers else None,
            **options,
        )
        dataset.has_loader = True
        # where Lightning looks for it
        cast("Any", self.sampler).set_epoch = dataset.sampler.set_epoch

    @property
    def stream(self) -> PatchStream:
        """What it reads."""
        return cast("PatchStream", self.dataset)

    def __iter__(self) -> Iterator[MultimodalBatch]:  # type: ignore[override]
        """Read one epoch, or what is left of it; workers end with the iteration.

        Begun with the first batch, as that of a stream: Lightning sets the epoch in between.
        """
        workers = super().__iter__()
        if not self.num_workers:
            yield from workers  # the stream counts by itself
            return
        yield from self.stream.counted(workers, self.stream.begin())

    def set_epoch(self, epoch: int) -> None:
        """See `PatchStream.set_epoch`."""
        self.stream.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """See `PatchStream.state_dict`; what workers have read ahead does not count."""
        return self.stream.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `PatchStream.load_state_dict`."""
        self.stream.load_state_dict(state)
