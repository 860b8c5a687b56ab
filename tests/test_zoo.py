"""The registry of published models: complete, in step with the networks, and open about sources."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from flairhub.errors import UnknownNameError
from flairhub.modalities import get_modality
from flairhub.models import build
from flairhub.models.ign.options import fitted_widths
from flairhub.models.zoo import BANDS, CARDS, TABLE, get_card
from flairhub.nomenclatures import NOMENCLATURES

HUB = [card for card in CARDS.values() if card.family == "flair-hub"]


def shared(name: str) -> Path:
    path = Path(__file__).parents[2] / "shared" / name
    if not path.exists():
        pytest.skip(f"{name} does not lie beside the project")
    return path


def test_every_published_id_is_there() -> None:
    letters = [*"ABCDEFGHIJKL", "ALL"]
    wanted = [f"LC-{x}" for x in letters] + [f"LPIS-{x}" for x in letters[:11]]
    assert [card.id for card in HUB] == wanted
    assert {card.family for card in CARDS.values()} == {"flair-hub", "flair-1", "flair-2"}


def test_cards_name_what_exists() -> None:
    for card in CARDS.values():
        for key in card.modalities:
            names = set(get_modality(key).band_names) | {"height"}
            assert set(card.bands[key]) <= names, card.id
        assert set(card.tasks) <= set(NOMENCLATURES)
        assert tuple(card.bands) == card.modalities
        assert all(score.source for score in card.scores)
        assert all(0 < score.miou < 100 for score in card.scores)


def test_sizes_agree_with_each_other() -> None:
    """The published figure is the count with auxiliary decoders, or of a lone image without."""
    for card in HUB:
        sizes = card.parameters
        assert None not in (sizes.all_no_aux, sizes.fusion_handler, sizes.all_aux_without_fusion)
        assert sizes.no_aux_without_fusion == sizes.all_no_aux - sizes.fusion_handler  # type: ignore[operator]
        one = len(card.modalities) == 1
        counted = sizes.no_aux_without_fusion if one else sizes.all_aux_without_fusion
        assert counted is not None
        assert abs(counted / 1e6 - sizes.published_millions) < 0.11, card.id  # type: ignore[operator]


@pytest.mark.parametrize("name", ["LC-G", "LPIS-H", "LC-D"])
def test_networks_have_the_sizes_of_their_cards(name: str) -> None:
    card = get_card(name)
    with torch.device("meta"):
        model = build(name)
        every = build(name, aux=card.modalities)
    fusion = sum(p.numel() for p in model.fusion_handler.parameters())
    total = sum(p.numel() for p in model.parameters())
    sizes = card.parameters
    assert (total, fusion) == (sizes.all_no_aux, sizes.fusion_handler)
    with_aux = sum(p.numel() for p in every.parameters()) - fusion
    assert with_aux == sizes.all_aux_without_fusion


def test_series_widths_are_those_of_the_networks() -> None:
    for card in HUB:
        if card.series_widths:
            with_images = card.encoder is not None
            assert card.series_widths == (fitted_widths((64, 64, 64, 128), 4) if with_images
                                          else (64, 64, 64, 128))  # fmt: skip
            assert card.series_out_widths[-1] == card.classes[0]


def test_figures_are_those_of_the_documents() -> None:
    rows = list(csv.DictReader(shared("model/params.csv").read_text("utf-8").splitlines()))
    assert [row["model_id"] for row in rows] == [card.id for card in HUB]
    for row, card in zip(rows, HUB, strict=True):
        sizes = card.parameters
        assert row["modalities"] == "+".join(card.source_names)
        assert int(row["n_classes"]) == card.classes[0]
        assert float(row["published_millions"]) == sizes.published_millions
        assert int(row["all_params_no_aux"]) == sizes.all_no_aux
        assert int(row["fusion_handler_params"]) == sizes.fusion_handler
        assert int(row["no_aux_without_fusion"]) == sizes.no_aux_without_fusion
        assert int(row["all_aux_without_fusion"]) == sizes.all_aux_without_fusion
        if card.series_widths:
            assert row["utae_widths"] == "-".join(map(str, card.series_widths))
            assert row["utae_out_conv"] == "-".join(map(str, card.series_out_widths))
    readme = shared("references/flair-hub-readme.txt").read_text(encoding="utf-8")
    for card in HUB:
        line = next(x for x in readme.splitlines() if x.startswith(f"| {card.id} |"))
        cells = line.replace("✓", "").split("|")[2:]
        figures = [float(cell) for cell in cells if cell.strip()]
        assert figures == [card.parameters.published_millions, card.oa, card.miou]
        assert card.scores[0].source == TABLE


def test_disagreement_is_told() -> None:
    card = get_card("LPIS-J")
    assert (card.oa, card.miou) == (88.0, 35.4)
    assert [(score.oa, score.miou) for score in card.scores[1:]] == [(87.967, 32.349)]
    assert any("disagree on the scores" in note for note in card.notes)
    for other in HUB:
        spot = "spot_rgbi" in other.modalities
        assert any("disagree on SPOT" in note for note in other.notes) == spot


def test_ids_are_found_in_any_case_and_near_ones_are_named() -> None:
    assert get_card("lc-all") is CARDS["LC-ALL"]
    with pytest.raises(UnknownNameError, match="Did you mean 'LPIS-A'"):
        get_card("LPISA")


def test_bands_are_the_networks_channels() -> None:
    assert BANDS["aerial_rgbi"] == ("nir", "red", "green")
    assert BANDS["dem_elev"] == ("dsm", "height")
    assert len(BANDS) == 7
