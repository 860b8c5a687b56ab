"""The baselines of FLAIR#1 and FLAIR#2: sizes, shapes, gradients, series, repaired faults."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flairhub.errors import CheckpointError, ConfigError, GridError
from flairhub.models import build, get_card, load
from flairhub.models.flair import (
    CLASS_VALUES,
    FlairOptions,
    FlairUnet,
    TextureTime,
)
from flairhub.models.flair.conditioning import MetadataBranch
from flairhub.models.flair.fusion import crop_middle
from flairhub.models.flair.ltae import MaskedLTAE
from flairhub.models.flair.options import IMAGE, SERIES
from flairhub.models.ign.ltae import LTAE

AUX = f"{SERIES}/flair"


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def on_meta(name: str, **options: Any) -> Any:  # noqa: ANN401
    with torch.device("meta"):
        return build(name, **options)


@pytest.fixture(scope="module")
def utt() -> TextureTime:
    torch.manual_seed(0)
    model: TextureTime = build("FLAIR2-UTT")
    return model.eval()


class Call:
    """Arguments of a forward pass of U-T&T: an image of 12.8 m, a series of 160 m."""

    def __init__(self, lengths: tuple[int, ...], size: tuple[int, int] = (64, 64)) -> None:
        make = torch.Generator().manual_seed(1)
        batch, dates = len(lengths), max(lengths)
        self.inputs = {
            IMAGE: torch.randn(batch, 5, *size, generator=make),
            SERIES: torch.randn(batch, dates, 10, 16, 16, generator=make),
        }
        self.days = {SERIES: torch.randint(-134, 231, (batch, dates), generator=make)}
        self.lengths = {SERIES: torch.tensor(lengths)}

    def padded(self, dates: int, value: float) -> Call:
        """Return the same with more dates, and `value` wherever there is padding."""
        other = Call.__new__(Call)
        series, days = self.inputs[SERIES], self.days[SERIES]
        more = dates - series.shape[1]
        series = torch.cat([series, series.new_full((len(series), more, 10, 16, 16), value)], 1)
        days = torch.cat([days, days.new_full((len(days), more), 99)], 1)
        padding = torch.arange(dates) >= self.lengths[SERIES][:, None]
        series = series.masked_fill(padding[:, :, None, None, None], value)
        other.inputs, other.days = {**self.inputs, SERIES: series}, {SERIES: days}
        other.lengths = self.lengths
        return other

    def row(self, place: int) -> Call:
        """Return one sample alone."""
        other = Call.__new__(Call)
        for part in ("inputs", "days", "lengths"):
            found = getattr(self, part)
            setattr(other, part, {key: value[place : place + 1] for key, value in found.items()})
        return other

    @torch.no_grad()
    def into(
        self, model: TextureTime, present: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        found = model(self.inputs, self.days, self.lengths, present, aux=True)
        return found.main["flair"], found.aux[AUX]


# sizes


@pytest.mark.parametrize("name", ["FLAIR1-UNET", "FLAIR1-UNET-MTD", "FLAIR2-UTT"])
def test_networks_have_the_sizes_of_their_cards(name: str) -> None:
    model, card = on_meta(name), get_card(name)
    aux = count(model.aux_head) if name == "FLAIR2-UTT" else 0
    assert count(model) - aux == card.parameters.all_no_aux
    published = card.parameters.published_millions
    assert published is None or round(count(model) / 1e6, 1) == published


def test_ign_builds_more_than_it_uses_in_utt() -> None:
    """Layers of its code that no output depends on."""
    level_0 = (64 * 5 + 5) + (64 * 45 + 45) + (45 * 26 + 26) + (26 * 5 + 5)
    scores = (64 * 32 * 9 + 32) + 2 * 32 + (32 * 13 * 9 + 13) + 2 * 13
    assert count(on_meta("FLAIR2-UTT")) + level_0 + scores == 27_254_744


@pytest.mark.parametrize("classes", CLASS_VALUES)
def test_heads_follow_the_numbering(classes: int) -> None:
    model = on_meta("FLAIR1-UNET", classes=classes)
    image = torch.empty(2, 5, 512, 512, device="meta")
    assert model({IMAGE: image}).main["flair"].shape == (2, classes, 512, 512)
    assert count(model) == 24_444_381 + 145 * (classes - 13)


def test_sizes_of_ign() -> None:
    """512 pixels of 20 cm and 40 of 10 m, a year of dates."""
    model = on_meta("FLAIR2-UTT")
    inputs = {
        IMAGE: torch.empty(2, 5, 512, 512, device="meta"),
        SERIES: torch.empty(2, 12, 10, 40, 40, device="meta"),
    }
    image = model.texture.encode(inputs[IMAGE], None)
    assert [tuple(m.shape[1:]) for m in image] == [
        (64, 256, 256), (64, 128, 128), (128, 64, 64), (256, 32, 32), (512, 16, 16),
    ]  # fmt: skip
    assert model._ground((512, 512)) == (10, 10)


def test_parameters_have_the_names_of_igns_code() -> None:
    shapes = {
        key: tuple(value.shape) for key, value in on_meta("FLAIR1-UNET-MTD").state_dict().items()
    }
    assert shapes["seg_model.encoder.conv1.weight"] == (64, 5, 7, 7)
    assert shapes["seg_model.decoder.blocks.0.conv1.0.weight"] == (256, 768, 3, 3)
    assert shapes["seg_model.segmentation_head.0.weight"] == (13, 16, 3, 3)
    assert {k: v for k, v in shapes.items() if k.startswith("enc.")} == {
        "enc.enc_mlp.0.weight": (64, 45), "enc.enc_mlp.0.bias": (64,),
        "enc.enc_mlp.3.weight": (32, 64), "enc.enc_mlp.3.bias": (32,),
        "enc.enc_mlp.6.weight": (16, 32), "enc.enc_mlp.6.bias": (16,),
    }  # fmt: skip
    time = on_meta("FLAIR2-UTT").time.state_dict()
    assert time["down_blocks.1.down.conv.0.weight"].shape == (64, 64, 4, 4)
    assert time["up_blocks.2.up.0.weight"].shape == (64, 64, 4, 4)
    assert time["temporal_encoder.in_norm.weight"].shape == (128,)
    assert time["temporal_encoder.attention_heads.Q"].shape == (16, 4)


def test_weights_with_a_prefix_load() -> None:
    torch.manual_seed(0)
    here, there = build("FLAIR1-UNET").eval(), build("FLAIR1-UNET").eval()
    state = {f"model.{key}": value for key, value in there.state_dict().items()}
    load(state, here)
    image = {IMAGE: torch.randn(1, 5, 32, 32)}
    torch.testing.assert_close(here(image).main["flair"], there(image).main["flair"])


def test_weights_load_by_id_with_a_report() -> None:
    state = build("FLAIR1-UNET").state_dict()
    state["criterion.weight"] = torch.ones(13)
    model, report = load(state, "FLAIR1-UNET")
    assert not model.training
    assert len(report.loaded) == len(state) - 1
    assert report.left_over == {"criterion.weight": "class weights of the loss"}
    # other bands and classes
    del state["criterion.weight"]
    colours = ("red", "green", "blue")
    with pytest.raises(CheckpointError, match="allow adapt_bands"):
        load(state, "FLAIR1-UNET", bands={IMAGE: colours})
    model, report = load(
        state, "FLAIR1-UNET", bands={IMAGE: colours}, classes=19, adapt_bands=True, adapt_heads=True
    )
    first, head = "seg_model.encoder.conv1.weight", "seg_model.segmentation_head.0"
    assert list(report.adapted) == [first]
    assert set(report.fresh) == {f"{head}.weight", f"{head}.bias"}
    torch.testing.assert_close(model.get_parameter(first), state[first][:, :3])
    # a U-Net starts one that takes metadata
    with pytest.raises(CheckpointError, match=r"Missing in the file: enc\.enc_mlp"):
        load(state, "FLAIR1-UNET-MTD")
    report = load(state, "FLAIR1-UNET-MTD", fresh=["enc."]).report
    assert all(name.startswith("enc.") for name in report.fresh)


def test_weights_of_utt_load_by_id_with_a_report(utt: TextureTime) -> None:
    state = utt.state_dict()
    told = load({f"model.{name}": value for name, value in state.items()})
    assert isinstance(told.model, TextureTime)
    assert (told.report.prefix, len(told.report.loaded)) == ("model.", len(state))
    without = {name: value for name, value in state.items() if not name.startswith("aux_head.")}
    report = load(without, "FLAIR2-UTT").report
    assert report.fresh == dict.fromkeys(
        ("aux_head.weight", "aux_head.bias"), "auxiliary decoder, for training alone"
    )
    bands = {SERIES: ("B02", "B03", "B04", "B08")}
    report = load(state, "FLAIR2-UTT", bands=bands, adapt_bands=True).report
    assert list(report.adapted) == ["time.in_conv.conv.conv.0.weight"]


# forward and backward


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("size", [(64, 64), (70, 33)])
def test_any_size_and_batch(utt: TextureTime, batch: int, size: tuple[int, int]) -> None:
    call = Call((2,) * batch, size=size)
    main, aux = call.into(utt)
    assert main.shape == aux.shape == (batch, 13, *size)
    assert not utt(call.inputs, call.days, call.lengths).aux  # not trained: not asked for
    assert utt.texture(call.inputs).main["flair"].shape == (batch, 13, *size)


def test_samples_do_not_see_each_other(utt: TextureTime) -> None:
    """IGN's code takes the surroundings of the first sample for all of the batch."""
    call = Call((3, 2))
    both = call.into(utt)
    for place in range(2):
        for together, alone in zip(both, call.row(place).into(utt), strict=True):
            torch.testing.assert_close(together[place : place + 1], alone, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("FLAIR1-UNET", {}),
        ("FLAIR1-UNET-MTD", {}),
        ("FLAIR1-UNET-MTD", {"metadata": "own"}),
        ("FLAIR2-UTT", {"metadata": "own"}),
    ],
)
def test_gradients_reach_every_parameter(name: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = build(name, **options)
    call = Call((3, 2))
    arguments = [call.inputs]
    if name == "FLAIR2-UTT":
        arguments += [call.days, call.lengths]
    metadata = None if name == "FLAIR1-UNET" else torch.rand(2, 45)
    scores = model(*arguments, metadata=metadata)
    loss = torch.stack([s.square().mean() for s in (*scores.main.values(), *scores.aux.values())])
    torch.autograd.backward(loss.sum())
    assert len(scores.aux) == (name == "FLAIR2-UTT")
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        # adding the same to the scores of all dates changes no softmax
        assert "fc1_k.bias" in key or parameter.grad.any(), key


# metadata


def test_forms_of_metadata_add_by_row_or_by_channel() -> None:
    torch.manual_seed(0)
    maps, metadata = torch.zeros(2, 32, 16, 5), torch.rand(2, 45)
    rows, channels = (MetadataBranch(32, form).eval()(maps, metadata) for form in ("ign", "own"))
    assert (rows == rows[:, :1, :, :1]).all()
    assert (rows >= 0).all()
    assert rows.std(2).any()
    assert (channels == channels[:, :, :1, :1]).all()
    assert (channels < 0).any()
    assert channels.std(1).any()


def test_metadata_change_the_scores() -> None:
    torch.manual_seed(0)
    image, one, other = {IMAGE: torch.randn(2, 5, 32, 32)}, torch.rand(2, 45), torch.rand(2, 45)
    for form in ("ign", "own"):
        model = build("FLAIR1-UNET-MTD", metadata=form).eval()
        found = [model(image, metadata).main["flair"] for metadata in (one, other)]
        assert not torch.allclose(*found)
        with pytest.raises(GridError, match=r"takes metadata of the shape \(2, 45\); got none"):
            model(image)
    with pytest.raises(GridError, match="takes no metadata"):
        build("FLAIR1-UNET")(image, torch.rand(2, 45))


# series


def test_what_stands_in_padding_and_how_much_does_not_matter(utt: TextureTime) -> None:
    call = Call((3, 2))
    want = call.into(utt)
    for value in (0.0, 7.0, math.nan):
        for found, expected in zip(call.padded(6, value).into(utt), want, strict=True):
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_a_date_that_is_0_everywhere_is_a_date(utt: TextureTime) -> None:
    call = Call((3, 3))
    call.inputs[SERIES][:, 2] = 0
    whole = call.into(utt)[0]
    call.lengths[SERIES] = torch.tensor([2, 2])
    assert not torch.allclose(whole, call.into(utt)[0], atol=1e-4)


def test_days_tell_dates_apart(utt: TextureTime) -> None:
    call = Call((3, 3))
    before = call.into(utt)[0]
    call.days[SERIES] = call.days[SERIES].flip(1)
    assert not torch.allclose(before, call.into(utt)[0], atol=1e-4)


def test_without_a_series_the_image_decides(utt: TextureTime) -> None:
    call = Call((3, 2))
    with_series, alone = call.into(utt)[0], utt.texture(call.inputs).main["flair"]
    assert not torch.allclose(with_series[0], alone[0], atol=1e-4)
    absent = call.into(utt, present={SERIES: torch.tensor([True, False])})[0]
    torch.testing.assert_close(absent[0], with_series[0])
    torch.testing.assert_close(absent[1], alone[1])
    call.lengths[SERIES] = torch.tensor([0, 2])
    none = call.into(utt)
    torch.testing.assert_close(none[0][0], alone[0])
    torch.testing.assert_close(none[0][1], with_series[1], atol=1e-5, rtol=1e-5)
    assert none[1].isfinite().all()


def test_modality_dropout_is_for_training_alone(utt: TextureTime) -> None:
    call, always = Call((2, 2)), TextureTime(FlairOptions(series_bands=10, modality_dropout=1))
    always.load_state_dict(utt.state_dict())
    torch.testing.assert_close(call.into(always.eval())[0], call.into(utt)[0])
    always.train()
    alone = always.texture(call.inputs).main["flair"]
    torch.testing.assert_close(call.into(always)[0], alone)


def test_attention_is_that_of_ltae_where_nothing_is_padded() -> None:
    torch.manual_seed(0)
    ours, theirs = MaskedLTAE(32).eval(), LTAE(32).eval()
    theirs.load_state_dict(ours.state_dict())
    maps, days = torch.randn(2, 5, 32, 3, 2), torch.randn(2, 5) * 50
    true = torch.ones(2, 5, dtype=torch.bool)
    for found, want in zip(ours(maps, days, true), theirs(maps, days, ~true), strict=True):
        torch.testing.assert_close(found, want, atol=1e-4, rtol=1e-4)


def test_auxiliary_scores_are_those_of_pixels_made_large_first(utt: TextureTime) -> None:
    call = Call((2, 2), size=(128, 128))
    series = call.inputs[SERIES]
    with torch.no_grad():
        maps = utt.time(series, call.days[SERIES], call.lengths[SERIES])
        cropped = crop_middle(maps, (3, 3))  # 25.6 m
        large = nn.functional.interpolate(cropped, size=(128, 128), mode="nearest")
        want = utt.aux_head(large)
    torch.testing.assert_close(call.into(utt)[1], want, atol=1e-5, rtol=1e-5)


def test_crops_are_the_middle() -> None:
    maps = torch.arange(40.0)[:, None] * 100 + torch.arange(40.0)
    found = crop_middle(maps, (10, 4))
    assert [found[0, 0].item(), found[-1, -1].item()] == [1518, 2421]
    assert crop_middle(maps, (50, 40)).shape == (40, 40)


# options and the registry


def test_ids_tell_which_network() -> None:
    for name, kind in (("flair1-unet", FlairUnet), ("FLAIR2-UTT", TextureTime)):
        assert type(on_meta(name)) is kind
    assert on_meta("FLAIR1-UNET-MTD").options.metadata == "ign"
    assert on_meta("FLAIR1-UNET").options.metadata == "none"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clases": 19}, "no option 'clases' of such a model. Did you mean 'classes'"),
        ({"metadata": "owns"}, "no form of metadata. Did you mean 'own'"),
        ({"classes": 0}, "at least one band and one class"),
        ({"modality_dropout": 1.5}, "from 0 to 1"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build("FLAIR1-UNET", **options)


def test_other_models_are_no_baselines() -> None:
    with pytest.raises(ConfigError, match="LC-A is a model of flair-hub"):
        FlairOptions.of(get_card("LC-A"))
    with pytest.raises(ConfigError, match="needs a series"):
        TextureTime(FlairOptions())


def test_wrong_inputs_are_refused(utt: TextureTime) -> None:
    call = Call((2, 2))

    def expect(message: str, part: str, key: str, value: Tensor | None) -> None:
        other = call.row(0).padded(2, 0)
        held = getattr(other, part)
        setattr(other, part, {k: v for k, v in held.items() if k != key})
        if value is not None:
            getattr(other, part)[key] = value
        with pytest.raises(GridError, match=message):
            other.into(utt)

    expect(
        r"flair_aerial must have the shape \(B, 5, H, W\), none of them 0; it is missing",
        "inputs",
        IMAGE,
        None,
    )
    expect(r"it is of the shape \(1, 4, 8, 8\)", "inputs", IMAGE, torch.rand(1, 4, 8, 8))
    expect(r"of the shape \(0, 5, 8, 8\)", "inputs", IMAGE, torch.rand(0, 5, 8, 8))
    expect(r"shape \(1, T, 10, h, w\), none of them 0; it is missing", "inputs", SERIES, None)
    expect(r"it is of the shape \(1, 0, 10, 16, 16\)", "inputs", SERIES,
           torch.rand(1, 0, 10, 16, 16))  # fmt: skip
    expect("multiples of 8 pixels, 16 at least; they are 16 x 20", "inputs", SERIES,
           torch.rand(1, 2, 10, 16, 20))  # fmt: skip
    expect(r"days of .* must have the shape \(1, 2\); they are missing", "days", SERIES, None)
    expect(r"lengths of .* they are \(3,\)", "lengths", SERIES, torch.ones(3))


def test_scores_are_those_of_the_documents() -> None:
    path = Path(__file__).parents[2] / "shared" / "raw-data.md"
    if not path.exists():
        pytest.skip(f"{path.name} does not lie beside the project")
    text = path.read_text("utf-8")
    lines = {year: next(x for x in text.splitlines() if x.startswith(f"- FLAIR#{year} test"))
             for year in (1, 2)}  # fmt: skip
    told = {(f"FLAIR#{year} test", round(100 * float(word), 2)) for year, line in lines.items()
            for word in (w.strip(";,.").split("+-")[0] for w in line.split("Challenge")[0].split())
            if word.startswith("0.")}  # fmt: skip
    names = ("FLAIR1-UNET", "FLAIR1-UNET-MTD", "FLAIR2-UTT")
    assert {(s.test_set, s.miou) for name in names for s in get_card(name).scores} == told
    assert "24.4 M params" in lines[1]


def test_a_graph_holds_for_any_batch_and_length(utt: TextureTime) -> None:
    samples, dates = torch.export.Dim("samples", max=64), torch.export.Dim("dates", max=200)
    call, other = Call((3, 2)), Call((4, 7, 1))
    program = torch.export.export(
        utt,
        (call.inputs, call.days, call.lengths),
        dynamic_shapes=(
            {IMAGE: {0: samples}, SERIES: {0: samples, 1: dates}},
            {SERIES: {0: samples, 1: dates}},
            {SERIES: {0: samples}},
        ),
    )
    found = program.module()(other.inputs, other.days, other.lengths).main["flair"]
    torch.testing.assert_close(found, other.into(utt)[0], atol=1e-5, rtol=1e-5)
