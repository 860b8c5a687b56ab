"""Credentials of AWS profiles, found as other tools find them."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import boto3
import pytest

from converters.convert import convert
from converters.flairhub_tree import FlairHubTree
from flairhub.errors import ConfigError
from flairhub.store.access import open_file, resolve
from flairhub.store.profiles import s3_options
from tests.test_s3 import BUCKET, Client, contents, s3

__all__ = ["s3"]


@pytest.fixture
def profiles(tmp_path: Path, s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two profiles in files, and nothing about AWS in the environment."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    (tmp_path / "credentials").write_text(
        "[default]\naws_access_key_id = other\naws_secret_access_key = other\n"
        "[archive]\naws_access_key_id = keeper\naws_secret_access_key = its%secret\n"
    )
    (tmp_path / "config").write_text(
        f"[profile archive]\nregion = us-east-1\nendpoint_url = {s3_server}\n"
        "[profile office]\nsso_start_url = https://example.org\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "archive")
    return tmp_path


@pytest.mark.usefixtures("s3")
def test_a_profile_is_enough(
    domain_tree: Path, domain_store: dict[str, bytes], request: pytest.FixtureRequest, s3: Client
) -> None:
    request.getfixturevalue("profiles")
    assert boto3.Session().get_credentials().access_key == "keeper"
    found = s3_options()
    assert found["config"]["aws_access_key_id"] == "keeper"
    assert found["config"]["aws_secret_access_key"] == "its%secret"
    root = f"s3://{BUCKET}/by-profile"
    convert(FlairHubTree(domain_tree), root, workers=1)
    assert contents(s3, "by-profile/") == domain_store
    with open_file(f"{root}/{next(iter(domain_store))}") as handle:
        assert handle.read() == next(iter(domain_store.values()))
    assert "secret" not in f"{resolve(root)} {resolve(root)!r}"


@pytest.mark.usefixtures("profiles")
def test_the_environment_goes_before_a_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_REGION", "eu-west-3")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://example.org")
    assert boto3.Session().get_credentials().access_key == "testing"
    assert s3_options() == {}
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    assert s3_options()["config"].keys() == {"aws_access_key_id", "aws_secret_access_key"}


@pytest.mark.usefixtures("profiles")
def test_without_a_name_the_default_profile_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_PROFILE")
    assert s3_options()["config"]["aws_access_key_id"] == "other"
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    assert s3_options() == {}


def test_a_profile_that_cannot_be_used_says_why(
    profiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "archiv")
    with pytest.raises(ConfigError, match=r"AWS_PROFILE is 'archiv'\. Did you mean 'archive'"):
        resolve(f"s3://{BUCKET}/x")
    monkeypatch.setenv("AWS_PROFILE", "office")
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(ConfigError, match=r"'office' holds no keys .* pip install boto3"):
        resolve(f"s3://{BUCKET}/x")
    (profiles / "credentials").write_text("aws_secret_access_key = its%secret\n")
    with pytest.raises(ConfigError, match="credentials cannot be read as AWS profiles") as caught:
        resolve(f"s3://{BUCKET}/x")
    assert "its%secret" not in str(caught.value)


@pytest.mark.usefixtures("profiles")
def test_profiles_without_keys_are_left_to_boto3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {"Version": 1, "AccessKeyId": "made", "SecretAccessKey": "secret"}
    (tmp_path / "keys.json").write_text(json.dumps(keys))
    with (tmp_path / "config").open("a") as file:
        file.write(f"[profile made]\ncredential_process = cat {tmp_path / 'keys.json'}\n")
    monkeypatch.setenv("AWS_PROFILE", "made")
    provider = s3_options()["credential_provider"]
    assert provider()["access_key_id"] == "made"
