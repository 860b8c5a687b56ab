"""Files of weights: every form is read, everything else is named for what it is, nothing runs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from flairhub.errors import CheckpointError, UnknownNameError, WeightsSourceError
from flairhub.models import identify, load
from flairhub.models.weights import WeightsError
from tests.networks import ALONE, SERIES, State, make, same

DEEP = "encoders.SENTINEL2_TS.in_conv.conv.conv.0.weight"


@pytest.fixture(scope="module")
def series() -> State:
    return make(SERIES).state_dict()


@pytest.fixture(scope="module")
def alone() -> State:
    return make(ALONE).state_dict()


def as_safetensors(state: State, path: Path) -> None:
    save_file(state, path)


def as_state_dict(state: State, path: Path) -> None:
    torch.save(state, path)


def as_lightning(state: State, path: Path) -> None:
    torch.save(
        {
            "state_dict": state,
            "pytorch-lightning_version": "2.6.6",
            "epoch": 3,
            "hyper_parameters": {"learning_rate": 5e-5},
            "optimizer_states": [{"state": {0: {"step": torch.tensor(1.0)}}}],
        },
        path,
    )


@pytest.mark.parametrize("prefix", ["", "model.", "model._orig_mod.", "module."])
@pytest.mark.parametrize("write", [as_safetensors, as_state_dict, as_lightning])
def test_every_form_of_file_loads(
    tmp_path: Path, series: State, write: Callable[[State, Path], None], prefix: str
) -> None:
    file = tmp_path / "weights.bin"  # its ending says nothing
    content = {prefix + name: tensor for name, tensor in series.items()}
    if prefix:
        content["criterion.AERIAL_LABEL-COSIA.weight"] = torch.ones(19)
        content["criterion.aux_SPOT_RGBI_AERIAL_LABEL-COSIA.weight"] = torch.ones(19)
    write(content, file)
    model, report = load(file)
    assert same(model, series)
    assert not model.training
    assert len(report.loaded) == len(series)
    assert report.prefix == prefix
    assert {**report.adapted, **report.fresh} == {}
    assert set(report.left_over) == {n for n in content if n.startswith("criterion.")}


def test_a_module_with_a_prefix_of_its_own_takes_bare_weights(series: State) -> None:
    wrapped = nn.Module()
    wrapped.model = make(SERIES, seed=1)
    report = load(series, wrapped).report
    assert same(wrapped.model, series)
    assert len(report.loaded) == len(series)


def test_half_precision_is_widened_and_told(series: State) -> None:
    half = {k: t.half() if t.is_floating_point() else t for k, t in series.items()}
    model, report = load(half)
    assert model.state_dict()[DEEP].dtype == torch.float32
    assert torch.equal(model.state_dict()[DEEP], half[DEEP].float())
    assert report.converted == {
        "float16 to float32": sum(t.is_floating_point() for t in series.values())
    }


class Odd:
    """Something that a pickle can hold."""


def test_a_pickle_with_objects_is_refused(tmp_path: Path, series: State) -> None:
    file = tmp_path / "odd.ckpt"
    torch.save({"state_dict": series, "hyper_parameters": {"config": Odd()}}, file)
    with pytest.raises(CheckpointError, match=r"\.Odd, which .*write the tensors alone"):
        load(file)


class Trap:
    """What runs code when a careless loader reads it."""

    ran = False

    def __reduce__(self) -> tuple[Any, ...]:
        return (setattr, (Trap, "ran", True))


def test_nothing_in_a_pickle_runs(tmp_path: Path) -> None:
    file = tmp_path / "trap.pt"
    torch.save({"a": Trap()}, file)
    with pytest.raises(CheckpointError, match="only code in the file could rebuild"):
        load(file)
    assert not Trap.ran
    torch.load(file, weights_only=False)  # the trap does work
    assert Trap.ran


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "pointer of Git LFS"),
        (b"GIF89a......", "begins with b'GIF89a"),
        (b"PK\x03\x04 no zip", "damaged"),
        (b"\x80\x02 no pickle at all", "only code|damaged"),
        (b"\x10\0\0\0\0\0\0\0{no json", "is damaged"),
    ],
)
def test_other_files_are_named_for_what_they_are(
    tmp_path: Path, content: bytes, expected: str
) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=expected):
        load(file)


@pytest.mark.parametrize("share", [0.3, 0.999])
@pytest.mark.parametrize("write", [as_safetensors, as_state_dict])
def test_cut_off_files_are_refused(
    tmp_path: Path, alone: State, write: Callable[[State, Path], None], share: float
) -> None:
    file = tmp_path / "cut"
    write(alone, file)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match="damaged"):
        load(file)


def test_safetensors_that_begin_like_a_pickle(tmp_path: Path) -> None:
    """The first byte is the low one of the header's length: 0x80 for one in 32 files."""
    file = tmp_path / "weights.safetensors"
    state = make(SERIES).state_dict()
    for more in range(0, 256, 8):
        save_file(state, file, {"note": "x" * more})
        if file.read_bytes()[:1] == b"\x80":
            break
    assert file.read_bytes()[:1] == b"\x80"
    assert same(load(file).model, state)


def test_files_have_the_digest_that_is_asked_for(tmp_path: Path, series: State) -> None:
    file = tmp_path / "last.ckpt"
    as_lightning(series, file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert load(file, sha256=digest.upper(), offline=True).report.sha256 == digest
    with pytest.raises(WeightsSourceError, match=f"SHA-256 {digest}, expected 00"):
        load(file, sha256="00")
    with pytest.raises(WeightsSourceError, match=r"revision= cannot be checked: the file .*last"):
        load(file, sha256=digest, revision="main")
    with pytest.raises(WeightsSourceError, match=r"revision= and sha256= .*tensors by name"):
        load(series, sha256=digest, revision="main")


def test_missing_files_and_unknown_ids_differ(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no file .*none\.ckpt"):
        load(str(tmp_path / "none.ckpt"))
    with pytest.raises(CheckpointError, match="No such file"):
        load(tmp_path / "none.ckpt")
    with pytest.raises(UnknownNameError, match="Did you mean 'LC-A'"):
        load("LC-AA")


def test_a_checkpoint_that_is_open_loads(series: State) -> None:
    content = {"state_dict": {f"model.{k}": t for k, t in series.items()}, "epoch": 3}
    model, report = load(content)
    assert same(model, series)
    assert report.prefix == "model."
    assert identify(content).id == "LC-G"
    for wrong in ({1: torch.ones(1)}, {"a": 3}):
        with pytest.raises(CheckpointError, match=r"no state dict: .*found (1|'a') \("):
            load(wrong)  # type: ignore[arg-type]


def test_safetensors_cut_to_a_few_bytes_are_damaged(tmp_path: Path, series: State) -> None:
    """They may begin as a pickle does."""
    file = tmp_path / "weights.safetensors"
    for content in (b"\x80\x02\0\0\0", b"\x80\x02\0\0\0\0\0\0{"):
        file.write_bytes(content)
        with pytest.raises(CheckpointError, match=f"cut off after {len(content)} bytes"):
            load(file)


def test_bytes_that_changed_in_a_checkpoint_are_noticed(tmp_path: Path, series: State) -> None:
    file = tmp_path / "last.ckpt"
    as_lightning(series, file)
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 100] = bytes(100)
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"damaged.*checksum of last/data/\d+"):
        load(file)


def test_files_without_checksums_are_read(
    tmp_path: Path, series: State, request: pytest.FixtureRequest
) -> None:
    torch.serialization.set_crc32_options(False)
    request.addfinalizer(partial(torch.serialization.set_crc32_options, True))
    as_lightning(series, tmp_path / "quick.ckpt")
    assert same(load(tmp_path / "quick.ckpt").model, series)
    torch.save(series, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert same(load(tmp_path / "old.pt").model, series)


def test_a_quarter_of_the_precision_is_widened_and_told(series: State) -> None:
    few = {k: t.to(torch.float8_e4m3fn) if t.dim() > 1 else t for k, t in series.items()}
    model, report = load(few)
    assert torch.equal(model.state_dict()[DEEP], few[DEEP].float())
    assert list(report.converted) == ["float8_e4m3fn to float32"]
    broken = {**few, DEEP: torch.full_like(series[DEEP], torch.nan).to(torch.float8_e4m3fn)}
    with pytest.raises(WeightsError, match=f"not finite: {DEEP}"):
        load(broken)


@pytest.mark.parametrize(
    ("change", "why"),
    [(lambda t: t.to_sparse(), "sparse"), (lambda t: t.to("meta"), "device 'meta'")],
)
def test_tensors_that_hold_no_plain_numbers_are_refused(
    series: State, change: Callable[[Tensor], Tensor], why: str
) -> None:
    with pytest.raises(WeightsError, match=f"{DEEP} .*{why}"):
        load({**series, DEEP: change(series[DEEP])})


@pytest.mark.parametrize(
    "content", [[1, 2], {1: torch.ones(1)}, {"a": 1}, {"state_dict": {}}, {"model": {"a": 1}}]
)
def test_what_is_no_state_dict_is_told(tmp_path: Path, content: object) -> None:
    file = tmp_path / "x.pt"
    torch.save(content, file)
    with pytest.raises(CheckpointError, match="expected tensors by name"):
        load(file)
