"""What streaming is compared with gives the same pixels of the same patches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import flairhub
from benchmarks.peers import decoding, litdata_copy
from benchmarks.peers.content import ALL, Sample, collate
from benchmarks.peers.tiff_dataset import TiffDataset
from benchmarks.peers.xbatcher_dataset import XbatcherDataset
from converters.flairhub_tree import FlairHubTree
from flairhub import PatchPlan
from flairhub.modalities import MODALITIES, dataset_modalities


@pytest.fixture(scope="module")
def plan(store_root: Path) -> PatchPlan:
    return ALL.plan(store_root)


@pytest.fixture(scope="module")
def ours(plan: PatchPlan) -> list[Sample]:
    """What flairhub streams, in the order of the plan."""
    found: list[Sample] = []
    for batch in flairhub.stream(plan, batch_size=1):
        both = {**batch.inputs, **batch.labels}
        found.append({key: value[0].clone() for key, value in both.items()})
    return found


def same(found: Sample, expected: Sample) -> bool:
    assert found.keys() == expected.keys()
    return all(found[k].dtype == v.dtype and torch.equal(found[k], v) for k, v in expected.items())


def test_xbatcher_reads_the_same(store_root: Path, plan: PatchPlan, ours: list[Sample]) -> None:
    dataset = XbatcherDataset(store_root, plan, ALL)
    assert len(dataset) == len(ours)
    assert all(same(dataset[i], sample) for i, sample in enumerate(ours))


def test_tiffs_hold_the_same_normalised_and_one_hot(
    raw_tree: Path, plan: PatchPlan, ours: list[Sample]
) -> None:
    tree = FlairHubTree(raw_tree)
    dataset = TiffDataset(
        [
            {key: Path(file.url) for key, file in files.items()}
            for domain in tree.domains()
            for roi in tree.rois(domain, dataset_modalities())
            for files in roi.files.values()
        ],
        ALL,
    )
    assert len(dataset) == len(plan)
    left = list(ours)
    for sample in (dataset[i] for i in range(len(dataset))):
        assert all(value.dtype == torch.float32 for value in sample.values())
        plain = {}
        for key, value in sample.items():
            if key in ALL.labels:
                plain[key] = value.argmax(0).to(torch.uint8)
                assert torch.equal(value.sum(0), torch.ones_like(value[0]))
                continue
            known = MODALITIES[key].statistics
            if known is not None:
                mean, std = (torch.tensor(x)[:, None, None] for x in (known.mean, known.std))
                value = value * std + mean
            plain[key] = value
        matches = [
            i
            for i, other in enumerate(left)
            if all(
                plain[k].shape == v.shape and torch.allclose(plain[k].float(), v.float(), atol=0.01)
                for k, v in other.items()
            )
        ]
        assert len(matches) == 1
        del left[matches[0]]
    assert not left


@pytest.mark.long  # it starts processes of its own
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("compression", [None, "zstd"])
def test_litdata_copies_the_same(
    store_root: Path, ours: list[Sample], tmp_path: Path, compression: str | None
) -> None:
    litdata_copy.write(store_root, ALL, tmp_path, copies=2, compression=compression)
    loader = litdata_copy.loader(str(tmp_path), 1, 0)
    found = [{key: value[0] for key, value in batch.items()} for batch in loader]
    assert len(found) == 2 * len(ours)
    for sample in ours:
        assert sum(same(one, sample) for one in found) == 2
    assert litdata_copy.size(tmp_path) > 1e6


def test_the_floor_decodes_the_same(store_root: Path, plan: PatchPlan, ours: list[Sample]) -> None:
    windows = decoding.chunks(store_root, plan, ALL)
    assert decoding.decode(windows, 2) == len(plan)
    for chunks, sample in zip(windows, ours, strict=True):
        codec, data = chunks[0]
        assert np.array_equal(codec.decode(data), sample["aerial_rgbi"].numpy())
        assert len(chunks) == 11  # snow and cloud are two arrays


def test_series_are_padded_to_the_longest() -> None:
    samples = [{"sentinel2_ts": torch.ones(n, 10, 2, 2), "cosia": torch.ones(3, 3)} for n in (2, 5)]
    batch = collate(samples)
    assert batch["sentinel2_ts"].shape == (2, 5, 10, 2, 2)
    assert batch["sentinel2_ts"].sum() == 7 * 40
    assert batch["cosia"].shape == (2, 3, 3)
