"""What a stream must know of the process that it is in: a rank, a worker, a copy made by fork."""

from __future__ import annotations

import os
import sys
from multiprocessing.context import get_spawning_popen

import torch
from zarr.storage import ObjectStore

from flairhub.batches.plan import PatchPlan
from flairhub.errors import PlanError

_forked = False
"""Whether this process is a copy, made by fork, of one that had begun to use object storage."""


def _note_fork() -> None:
    global _forked
    _forked = "obstore" in sys.modules


os.register_at_fork(after_in_child=_note_fork)


def refuse_fork(plan: PatchPlan) -> None:
    """Refuse to read object storage in a process that was made by fork: it would wait for ever.

    Raises
    ------
    PlanError
        If this is one, and the plan is of object storage.
    """
    if _forked and any(isinstance(roi.store.store, ObjectStore) for roi in plan.rois):
        msg = (
            "Clients of object storage do not survive a fork, which made this process; reading "
            "would hang. Read the stream itself, which needs no workers, or start them with "
            "multiprocessing_context='spawn', as flairhub.StreamLoader does."
        )
        raise PlanError(msg)


def group() -> tuple[int, int] | None:
    """Return rank and size of the running `torch.distributed`; None where none runs."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return None


def group_to_spawn() -> tuple[int, int] | None:
    """Return `group` for a process that is being started here, which cannot know it.

    None where nothing is started: what is copied for another reason, such as to all ranks, is of
    the rank that it comes to.
    """
    return None if get_spawning_popen() is None else group()
