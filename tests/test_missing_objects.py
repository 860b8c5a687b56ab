"""What a store says that it holds, and does not: an error, never zeros with `present` True."""

from __future__ import annotations

import json
import os
import shutil
import struct
from pathlib import Path
from typing import Any

import google_crc32c
import pytest

import flairhub
from benchmarks.objectserver import ObjectServer
from flairhub import PatchPlan
from flairhub.batches.batch import IGNORE_INDEX
from flairhub.errors import ReadError, StoreLayoutError
from flairhub.modalities import dataset_modalities
from flairhub.store.chunks import ChunkCodec

INPUTS = [m.key for m in dataset_modalities() if not m.is_label]
LABELS = ["cosia", "lpis_1"]
ARRAYS = (
    "aerial_rgbi/aerial_rgbi",
    "dem_elev/dem_elev",
    "sentinel2_ts/sentinel2_ts",
    "sentinel2_ts/snow",
    "aerial_label_cosia/aerial_label_cosia",
    "all_label_lpis/all_label_lpis",
)


@pytest.fixture
def root(store_root: Path, tmp_path: Path) -> Path:
    """A copy of the stores whose objects may be deleted and replaced, but not written to."""
    return Path(shutil.copytree(store_root, tmp_path / "store", copy_function=os.link))


def _plan(root: Path, **options: Any) -> PatchPlan:  # noqa: ANN401
    return PatchPlan.build(root, **{"modalities": INPUTS, "labels": LABELS, **options})


def _shards(root: Path, array: str) -> list[Path]:
    """All shards of an array of the last ROI."""
    roi = sorted(root.glob(f"*.zarr/*/{array}"))[-1]
    return [path for path in (roi / "c").rglob("*") if path.is_file()]


def _lose_chunks(shard: Path) -> None:
    """Write the shard's index anew, without any chunk."""
    array = next(folder for folder in shard.parents if (folder / "zarr.json").exists())
    document = json.loads((array / "zarr.json").read_text())
    size = ChunkCodec(document).index_bytes
    index = b"\xff" * (size - 4)
    new = shard.with_name("new")
    checksum = struct.pack("<I", google_crc32c.value(index))
    new.write_bytes(shard.read_bytes()[:-size] + index + checksum)
    new.replace(shard)


def _told(error: ReadError, plan: PatchPlan, url: str, array: str) -> bool:
    """Whether the message names URL, ROI, patch and modality."""
    message = str(error)
    modality = "sentinel2_msk_sc" if array.endswith("/snow") else array.partition("/")[0]
    named = (
        f"{modality} of patch {w.domain}_{w.roi}_" in message and str(w.extent.bbox) in message
        for w in plan.windows
    )
    return f"{url}/" in message and f"{array}/c/0" in message and any(named)


@pytest.mark.parametrize("array", ARRAYS)
def test_a_deleted_shard_is_one_clear_error(root: Path, array: str) -> None:
    plan = _plan(root)
    shards = _shards(root, array)
    for shard in shards:
        shard.unlink()
    for shuffle in (False, "block"):
        with pytest.raises(ReadError, match="does not exist") as caught:
            list(flairhub.stream(plan, batch_size=4, shuffle=shuffle))
        assert _told(caught.value, plan, str(root), array), caught.value


@pytest.mark.parametrize("array", ARRAYS[:1] + ARRAYS[-1:])
def test_a_deleted_object_is_one_clear_error(root: Path, array: str) -> None:
    for shard in _shards(root, array):
        shard.unlink()
    with ObjectServer(root) as server:
        plan = PatchPlan.build(
            server.url, modalities=INPUTS, labels=LABELS, storage_options=server.storage_options
        )
        with pytest.raises(ReadError, match="does not exist") as caught:
            list(flairhub.stream(plan, batch_size=4, retry_s=60))
        assert _told(caught.value, plan, "s3://bucket", array), caught.value


@pytest.mark.parametrize("array", ARRAYS)
def test_a_chunk_that_a_shard_lacks_is_one_clear_error(root: Path, array: str) -> None:
    plan = _plan(root)
    for shard in _shards(root, array):
        _lose_chunks(shard)
    with pytest.raises(ReadError, match=r"lacks its chunk \d+, \d+") as caught:
        list(flairhub.stream(plan, batch_size=4))
    assert _told(caught.value, plan, str(root), array), caught.value


def _say(roi: Path, group: str, flags: list[str]) -> None:
    """Have a ROI's metadata say which patches a group has."""
    document = json.loads((roi / "zarr.json").read_text())
    members = document["consolidated_metadata"]["metadata"]
    members[group]["attributes"]["flairhub:present"] = flags
    new = roi / "new"
    new.write_text(json.dumps(document))
    new.replace(roi / "zarr.json")


def test_what_the_store_does_not_claim_is_absent(root: Path) -> None:
    """No flag, no shard: the input is masked, and labels are what is ignored."""
    arrays = ("dem_elev/dem_elev", "aerial_label_cosia/aerial_label_cosia")
    for array in arrays:
        for shard in _shards(root, array):
            shard.unlink()
        place = sorted(root.glob(f"*.zarr/*/{array}"))[-1]
        height, width = json.loads((place / "zarr.json").read_text())["shape"][-2:]
        _say(place.parent.parent, place.name, ["0" * (width // 512)] * (height // 512))
    roi = place.parent.parent.name
    seen = 0
    for batch in flairhub.stream(_plan(root, labels=["cosia"]), batch_size=1):
        here = batch.windows[0].roi == roi
        assert bool(batch.present["dem_elev"][0]) != here
        assert bool(batch.present["aerial_label_cosia"][0]) != here
        if here:
            assert not batch.inputs["dem_elev"].any()
            assert (batch.labels["cosia"] == IGNORE_INDEX).all()
            seen += 1
    assert seen > 0


def test_masks_that_a_patch_lacks_are_absent(root: Path) -> None:
    """Masks have no flags of their own: only a plan of complete windows knows that they exist."""
    for array in ("sentinel2_ts/snow", "sentinel2_ts/cloud"):
        for shard in _shards(root, array):
            shard.unlink()
    batches = list(flairhub.stream(_plan(root, complete=False), batch_size=1))
    present = [bool(batch.present["sentinel2_msk_sc"][0]) for batch in batches]
    assert any(present)
    assert not all(present)


def test_flags_of_other_patches_are_said(root: Path) -> None:
    place = sorted(root.glob("*.zarr/*/dem_elev"))[-1]
    _say(place.parent, "dem_elev", ["1" * 7] * 3)
    with pytest.raises(
        StoreLayoutError, match=r"dem_elev has \d+ x \d+ chunks, but the ROI \(3, 7"
    ):
        list(flairhub.stream(_plan(root), batch_size=4))
