"""Object storage fails; batches hold the right pixels or one clear error ends the epoch."""

from __future__ import annotations

import faulthandler
import gc
import logging
import shutil
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import boto3
import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr

import flairhub
from benchmarks.objectserver import KINDS, SECRET, Faults, ObjectServer
from flairhub import PatchPlan
from flairhub.batches.batch import MultimodalBatch
from flairhub.batches.buffers import BatchBuffers
from flairhub.errors import ReadError
from flairhub.modalities import dataset_modalities, get_modality
from flairhub.store.access import resolve

INPUTS = [m.key for m in dataset_modalities() if not m.is_label]
LABELS = ["cosia", "lpis_1"]

REFUSED = "403"
CHANGED = "changed"
DELETED = "404"
PASSING = [kind for kind in KINDS if kind not in (REFUSED, CHANGED, DELETED)]
"""Faults that asking again overcomes."""

Expected = dict[tuple[str, float, float], dict[str, npt.NDArray[np.generic]]]
"""Pixels by ROI, left and top of a window, and by input or class set."""


@pytest.fixture(autouse=True)
def _no_hang() -> Iterator[None]:
    """End the process, showing where every thread is, in place of waiting for ever."""
    faulthandler.dump_traceback_later(180, exit=True, file=2)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(scope="module")
def expected(store_root: Path) -> Expected:
    """What plain xarray reads from the disk."""
    found: Expected = {}
    for window in PatchPlan.build(store_root, modalities=INPUTS, labels=LABELS).windows:
        place = store_root / f"{window.domain}.zarr" / window.roi
        box = window.extent
        part = {"x": slice(box.left, box.right), "y": slice(box.top, box.bottom)}
        pixels = found[window.roi, box.left, box.top] = {}
        with xr.open_datatree(place, engine="zarr") as tree:
            for key in INPUTS:
                dataset = tree[get_modality(key).group].to_dataset().sel(part)
                names = ["snow", "cloud"] if key == "sentinel2_msk_sc" else [key]
                read = [dataset[name].to_numpy() for name in names]
                pixels[key] = np.stack(read, axis=1) if len(read) > 1 else read[0]
            classes = tree["aerial_label_cosia"].to_dataset().sel(part)
            pixels["cosia"] = classes["aerial_label_cosia"].to_numpy()
            parcels = tree["all_label_lpis"].to_dataset().sel(part)["all_label_lpis"]
            pixels["lpis_1"] = parcels.sel(level=1).to_numpy()
    return found


@pytest.fixture
def server(object_server: ObjectServer) -> ObjectServer:
    return object_server


@pytest.fixture
def plan(server: ObjectServer) -> PatchPlan:
    return planned(server)


def planned(server: ObjectServer) -> PatchPlan:
    options = server.storage_options
    # a request that is not answered is given up early, so that tests need not wait
    options["client_options"] |= {"timeout": "1s"}
    return PatchPlan.build(server.url, modalities=INPUTS, labels=LABELS, storage_options=options)


def check(batches: list[MultimodalBatch], expected: Expected, *, count: int | None = None) -> None:
    """Compare every window of every batch, bit for bit."""
    seen = 0
    for batch in batches:
        for i, window in enumerate(batch.windows):
            pixels = expected[window.roi, window.extent.left, window.extent.top]
            for key in INPUTS:
                found = batch.inputs[key][i].numpy()
                if key in batch.lengths:
                    assert batch.lengths[key][i] == len(pixels[key])
                    found = found[: len(pixels[key])]
                assert bool(batch.present[key][i])
                assert found.tobytes() == pixels[key].tobytes(), (key, window)
            for key in LABELS:
                assert batch.labels[key][i].numpy().tobytes() == pixels[key].tobytes()
            seen += 1
    assert seen == (len(expected) if count is None else count)


def until_error(
    batches: Iterable[MultimodalBatch], after_first: Callable[[], None] = lambda: None
) -> tuple[list[MultimodalBatch], ReadError | None]:
    """Return the batches that came, and the error that ended them."""
    found: list[MultimodalBatch] = []
    try:
        for batch in batches:
            found.append(batch)
            if len(found) == 1:
                after_first()
    except ReadError as error:
        return found, error
    return found, None


def threads() -> set[threading.Thread]:
    return set(threading.enumerate())


@pytest.mark.parametrize("share", [0.01, 0.1])
@pytest.mark.parametrize("kind", PASSING)
def test_what_passes_is_ridden_out(
    server: ObjectServer, plan: PatchPlan, expected: Expected, kind: str, share: float
) -> None:
    for seed in range(40):
        server.set(faults=Faults({kind: share}, seed=seed))
        batches, error = until_error(flairhub.stream(plan, batch_size=5, retry_s=60))
        if kind == "wrong_bytes":  # nothing but a checksum tells: asked again, but not for ever
            assert error is None or isinstance(error.__cause__, ValueError), error
        else:
            assert error is None
        check(batches, expected, count=sum(map(len, batches)) if error else None)
        if server.counts().faults.get(kind, 0) >= 100 * share:
            return
    pytest.fail("the server did not fail")


def test_everything_at_once_is_ridden_out(
    server: ObjectServer, plan: PatchPlan, expected: Expected
) -> None:
    server.set(faults=Faults(dict.fromkeys(PASSING, 0.02), seed=5))
    batches = flairhub.stream(plan, batch_size=5, shuffle=True, seed=1, retry_s=60)
    check(list(batches), expected)
    assert len(server.counts().faults) > 3


@pytest.mark.parametrize("kind", KINDS)
def test_what_does_not_pass_is_one_clear_error(
    server: ObjectServer,
    plan: PatchPlan,
    expected: Expected,
    kind: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    check(list(flairhub.stream(plan)), expected)  # whatever lives as long as the process starts
    before = threads()
    server.set(faults=Faults({kind: 1.0}, only="/c/"))
    caplog.set_level(logging.DEBUG)
    with pytest.raises(ReadError) as caught:
        # less, and what takes long on a loaded machine counts as lost
        list(flairhub.stream(plan, batch_size=5, shuffle=True, seed=1, retry_s=1.5))
    message = str(caught.value)
    assert "s3://bucket/" in message
    assert any(
        w.domain in message and w.roi in message and str(w.extent.bbox) in message
        for w in plan.windows
    ), message
    assert any(key in message for key in (*INPUTS, "aerial_label_cosia", "all_label_lpis"))
    assert len(message) < 1000
    told = "".join(traceback.format_exception(caught.value)) + caplog.text
    assert SECRET not in told
    assert threads() <= before
    server.set(faults=Faults())
    check(list(flairhub.stream(plan)), expected)


def test_a_store_that_cannot_be_opened_is_one_clear_error(
    server: ObjectServer, plan: PatchPlan
) -> None:
    server.set(faults=Faults({"503": 1.0}))
    before = threads()
    with pytest.raises(ReadError) as caught:
        list(flairhub.stream(plan, retry_s=0.3))
    message = str(caught.value)
    assert "s3://bucket/" in message
    assert any(roi.roi in message for roi in plan.rois), message
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert threads() <= before


@pytest.mark.parametrize("share", [0.01, 0.1])
@pytest.mark.parametrize("kind", [REFUSED, CHANGED, DELETED])
def test_what_must_not_be_ridden_out_ends_the_epoch(
    server: ObjectServer, plan: PatchPlan, expected: Expected, kind: str, share: float
) -> None:
    ended = 0
    for seed in range(40):
        server.set(faults=Faults({kind: share}, seed=seed, only="/c/"))
        batches, error = until_error(flairhub.stream(plan, batch_size=5, retry_s=60))
        check(batches, expected, count=sum(map(len, batches)))
        ended += error is not None
        assert SECRET not in str(error)
        if ended >= 2:
            return
    pytest.fail("the server did not fail")


def test_the_network_comes_back(server: ObjectServer, plan: PatchPlan, expected: Expected) -> None:
    stream = flairhub.stream(plan, batch_size=2, prefetch=1, retry_s=60)
    batches, error = until_error(stream, lambda: server.lose(2.0))
    assert error is None
    check(batches, expected)


def test_the_network_does_not_come_back(store_root: Path) -> None:
    with ObjectServer(store_root) as server:
        plan = planned(server)
        list(flairhub.stream(plan, batch_size=8))
        before = threads()
        server.lose(1000.0)
        with pytest.raises(ReadError, match="s3://bucket/"):
            list(flairhub.stream(plan, batch_size=8, retry_s=0.3))
        assert threads() <= before


def test_a_host_whose_name_is_unknown(server: ObjectServer, plan: PatchPlan) -> None:
    list(flairhub.stream(plan, batch_size=8))
    before = threads()
    options = server.storage_options | {"endpoint": "http://nowhere.invalid"}
    rois = tuple(
        replace(roi, store=resolve(f"{server.url}/{roi.store.name}", storage_options=options))
        for roi in plan.rois
    )
    with pytest.raises(ReadError, match="s3://bucket/") as caught:
        list(flairhub.stream(replace(plan, rois=rois), retry_s=0.3))
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert threads() <= before


def test_an_epoch_holds_no_more_than_is_read_ahead(server: ObjectServer, plan: PatchPlan) -> None:
    held = 0
    for _ in flairhub.stream(plan, batch_size=1, prefetch=2):
        gc.collect()
        held = max(held, sum(type(one) is BatchBuffers for one in gc.get_objects()))
    assert held <= 4, "batches that were given out are kept"


def test_leaving_early_waits_for_no_answer(server: ObjectServer, plan: PatchPlan) -> None:
    list(flairhub.stream(plan, batch_size=8))
    before = threads()
    stream = flairhub.stream(plan, batch_size=2, prefetch=4, retry_s=600)
    for batch in stream:
        server.set(faults=Faults({"timeout": 1.0}))
        assert len(batch) == 2
        break
    assert threads() <= before


def test_an_object_that_is_replaced_is_never_mixed(
    store_root: Path, tmp_path: Path, expected: Expected
) -> None:
    root = tmp_path / "store"
    shutil.copytree(store_root, root)

    def renew() -> None:
        for path in [p for p in root.rglob("dem_elev/c/**/*") if p.is_file()]:
            new = path.with_name("new")
            new.write_bytes(path.read_bytes()[::-1])
            new.replace(path)

    with ObjectServer(root) as server:
        stream = flairhub.stream(planned(server), batch_size=1, prefetch=0, threads=1)
        batches, error = until_error(stream, renew)
        assert error is not None
        assert "dem_elev" in str(error)
        check(batches, expected, count=len(batches))


def test_batches_come_from_a_real_s3_api(
    store_root: Path, expected: Expected, s3_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ALLOW_HTTP": "true",
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="cubes")
    for path in store_root.rglob("*"):
        if path.is_file():
            client.upload_file(str(path), "cubes", f"a/{path.relative_to(store_root)}")
    plan = PatchPlan.build("s3://cubes/a", modalities=INPUTS, labels=LABELS)
    check(list(flairhub.stream(plan, batch_size=5)), expected)
