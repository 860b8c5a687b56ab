"""Configurations: what is read, what is refused, and how the message helps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from flairhub.config import DataConfig, RunConfig, load_config, parse_config
from flairhub.config.loading import MAX_CONFIG_BYTES
from flairhub.errors import ConfigError, FlairHubError

MINIMAL: dict[str, Any] = {"data": {"root": "store", "modalities": ["aerial_rgbi"]}}


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def with_value(dotted: str, value: object) -> dict[str, Any]:
    """Return the minimal configuration with one more value."""
    section, key = dotted.split(".")
    values: dict[str, Any] = {name: dict(part) for name, part in MINIMAL.items()}
    values.setdefault(section, {})[key] = value
    return values


def test_relative_paths_start_in_the_folder_of_the_file(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, yaml.safe_dump(MINIMAL)))
    assert config.data.root == str(tmp_path / "store")
    assert config.training.output == str(tmp_path / "run")
    assert (
        load_config(write(tmp_path, yaml.safe_dump(with_value("data.root", "/abs")))).data.root
        == "/abs"
    )


def test_urls_are_left_alone(tmp_path: Path) -> None:
    text = yaml.safe_dump(with_value("data.root", "s3://bucket/store"))
    assert load_config(write(tmp_path, text)).data.root == "s3://bucket/store"


def test_empty_sections_have_defaults(tmp_path: Path) -> None:
    text = yaml.safe_dump(MINIMAL) + "model:\ntraining:\n"
    assert load_config(write(tmp_path, text)) == load_config(
        write(tmp_path, yaml.safe_dump(MINIMAL))
    )


def test_a_number_with_an_exponent_is_a_number(tmp_path: Path) -> None:
    text = yaml.safe_dump(MINIMAL) + "training: {learning_rate: 3e-3}\n"
    assert load_config(write(tmp_path, text)).training.learning_rate == pytest.approx(0.003)


def test_plain_values_give_the_same_configuration_back() -> None:
    config = parse_config(with_value("data.bands", {"aerial_rgbi": ["nir", "red"]}))
    assert parse_config(config.to_plain()) == config
    assert yaml.safe_load(yaml.safe_dump(config.to_plain())) == config.to_plain()


def test_bands_are_the_chosen_ones_or_all() -> None:
    values = with_value("data.bands", {"aerial_rgbi": ["nir", "red"]})
    values["data"]["modalities"] = ["aerial_rgbi", "dem_elev"]
    data = parse_config(values).data
    assert data.bands_of("aerial_rgbi") == ("nir", "red")
    assert data.bands_of("dem_elev") == ("dsm", "dtm")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("training: {learnig_rate: 1}", ["training.learnig_rate", "'learning_rate'"]),
        ("training: {batch_size: 1}", ["training.batch_size", "'data.batch_size'"]),
        ("trainig: {}", ["unknown key trainig", "'training'"]),
        ("training: {accelerator: tpu}", ["training.accelerator", "'gpu' or 'mps'", "tpu"]),
        ("model: {modality_dropout: {aerial_rgbi: 1}}", ["modality_dropout", "less than 1"]),
        ("model: {modality_dropout: {dem_elev: 0.1}}", ["model.modality_dropout", "'dem_elev'"]),
        ("training: {max_steps: '3'}", ["training.max_steps", "integer", "'3'"]),
        ("training: {augment: 1}", ["training.augment", "boolean"]),
        ("training: {learning_rate: 0}", ["training.learning_rate", "greater than 0"]),
        ("training: {learning_rate: .inf}", ["training.learning_rate", "finite"]),
        ("training: 3", ["training", "Found 3"]),
        ("model: {series_heads: 7}", ["series_channels (64)", "series_heads (7)"]),
        ("model: {encoders: {dem_elev: resnet18}}", ["model.encoders", "'dem_elev'"]),
        ("training: {task_weights: {cosai: 2.0}}", ["training.task_weights", "'cosia'"]),
    ],
)
def test_messages_name_file_key_and_near_match(
    tmp_path: Path, text: str, expected: list[str]
) -> None:
    path = write(tmp_path, yaml.safe_dump(MINIMAL) + text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    for part in (str(path), *expected):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("modalities", ["dem_elv"], "'dem_elev'"),
        ("modalities", ["aerial_label_cosia"], "not an input modality"),
        ("modalities", ["dem_elev", "dem_elev"], "more than once"),
        ("modalities", [], "at least 1 item"),
        ("modalities", ["sentinel2_msk_sc"], "needs its series: add 'sentinel2_ts'"),
        ("labels", ["cosai"], "'cosia'"),
        ("domains", ["D12-2019"], "'D012-2019'"),
        ("bands", {"aerial_rgbi": ["nri"]}, "'nir'"),
        ("bands", {"aerial_rgbi": []}, "leave the key out"),
        ("bands", {"dem_elev": ["dsm"]}, "not in modalities"),
        ("window_m", -1.0, "greater than 0"),
        ("rooot", "x", "'root'"),
    ],
)
def test_data_are_checked_against_the_registry(key: str, value: object, expected: str) -> None:
    with pytest.raises(ConfigError, match="data") as caught:
        parse_config(with_value(f"data.{key}", value))
    assert expected in str(caught.value)


def test_every_problem_is_listed_at_once() -> None:
    values = with_value("training.sed", 1) | {"model": {"decoder": 3}}
    with pytest.raises(ConfigError) as caught:
        parse_config(values, source="here")
    lines = str(caught.value).splitlines()
    assert lines[0] == "here:"
    assert len(lines) == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data: {root: a, root: b}", "key 'root' is given twice"),
        ("data: [", "not valid YAML"),
        ("- 1", "must hold the sections"),
        ("", "must hold the sections"),
        ("data: &a [*a]", "plain keys and values"),
        ("data: !!python/object:os.system {}", "not valid YAML"),
        ("model: {}", "data is required"),
        (f"# {'x' * MAX_CONFIG_BYTES}", "at most"),
    ],
)
def test_files_that_are_no_configuration_are_refused(
    tmp_path: Path, text: str, expected: str
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(path) in str(caught.value)
    assert expected in str(caught.value)


def test_a_missing_file_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(FlairHubError, match=r"nowhere\.yaml"):
        load_config(tmp_path / "nowhere.yaml")


def test_configurations_cannot_be_changed() -> None:
    config = parse_config(MINIMAL)
    with pytest.raises(ValidationError):
        config.data.root = "elsewhere"


def test_every_field_is_described() -> None:
    for section in RunConfig.model_fields.values():
        assert isinstance(section.annotation, type)
        fields = section.annotation.model_fields
        assert not [name for name, field in fields.items() if not field.description]
    assert DataConfig.model_fields["window_m"].description
