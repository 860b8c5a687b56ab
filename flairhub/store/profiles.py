"""AWS profiles, for obstore, which reads only the environment: keys, region, endpoint from files.

As in every AWS tool, what stands in the environment goes first, then the profile named by
``AWS_PROFILE`` (or ``default``) in ``~/.aws/credentials`` and ``~/.aws/config``, or in the files
that ``AWS_SHARED_CREDENTIALS_FILE`` and ``AWS_CONFIG_FILE`` name. Profiles that hold no keys but a
way to get them (SSO, a role, a process) are left to boto3, where it is installed.

References
----------
AWS SDKs and Tools Reference Guide, "Shared config and credentials files" and the settings
``region`` and ``endpoint_url``.
"""

from __future__ import annotations

import os
from configparser import ConfigParser, Error
from pathlib import Path
from typing import Any

from flairhub.errors import ConfigError, did_you_mean

_KEYS = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
_INDIRECT = ("sso_session", "sso_start_url", "role_arn", "credential_process")
_TRUE = ("1", "true", "yes")


def s3_options() -> dict[str, Any]:
    """Return what obstore's ``from_url`` must be told of S3 beyond what it reads itself.

    Returns
    -------
    dict
        Empty, or some of ``config``, ``client_options`` and ``credential_provider``.

    Raises
    ------
    ConfigError
        If the profile that the environment names does not exist, its file cannot be read, or only
        boto3 could get its keys and is not installed.
    """
    name, profile = _profile()
    found: dict[str, Any] = {}
    config: dict[str, str] = {}
    if not _has_environment():
        if all(profile.get(key) for key in _KEYS[:2]):
            config |= {key: profile[key] for key in _KEYS if key in profile}
        elif any(key in profile for key in _INDIRECT):
            found["credential_provider"] = _boto3_provider(name)
    if "region" in profile and not {"AWS_REGION", "AWS_DEFAULT_REGION"} & os.environ.keys():
        config["aws_region"] = profile["region"]
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
    endpoint = next((os.environ[n] for n in names if os.environ.get(n)), "")
    if not endpoint and (endpoint := profile.get("endpoint_url", "")):
        config["aws_endpoint"] = endpoint
    if endpoint.startswith("http://"):  # it was asked for by name
        found["client_options"] = {"allow_http": True}
    return found | ({"config": config} if config else {})


def _has_environment() -> bool:
    """Return whether the environment itself says who asks, or that nobody does."""
    if os.environ.get("AWS_SKIP_SIGNATURE", "").lower() in _TRUE:
        return True
    return bool(os.environ.get("AWS_ACCESS_KEY_ID"))


def _profile() -> tuple[str, dict[str, str]]:
    """Return the name of the profile, and its settings; keys of the credentials file go first."""
    wanted = os.environ.get("AWS_PROFILE") or os.environ.get("AWS_DEFAULT_PROFILE")
    name = wanted or "default"
    credentials = _read("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")
    config = {
        section.removeprefix("profile "): settings
        for section, settings in _read("AWS_CONFIG_FILE", "~/.aws/config").items()
    }
    known = credentials.keys() | config.keys()
    if wanted and name not in known:
        msg = f"AWS_PROFILE is {name!r}. {did_you_mean(name, sorted(known))}"
        raise ConfigError(msg)
    return name, config.get(name, {}) | credentials.get(name, {})


def _read(variable: str, usual: str) -> dict[str, dict[str, str]]:
    """Return the sections of a file; none where there is no file."""
    path = Path(os.environ.get(variable) or usual).expanduser()
    parser = ConfigParser(interpolation=None, default_section="", strict=False)
    try:
        parser.read(path, "utf-8")
    except (Error, OSError, UnicodeDecodeError) as error:
        # its message may show a line with a key
        msg = f"{path} cannot be read as AWS profiles ({type(error).__name__}); mend it."
        raise ConfigError(msg) from None
    return {name: dict(section) for name, section in parser.items() if name}


def _boto3_provider(name: str) -> object:
    try:
        import boto3
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError as error:
        msg = (
            f"The AWS profile {name!r} holds no keys but a way to get them, which boto3 knows: "
            "pip install boto3, or put the keys into the environment."
        )
        raise ConfigError(msg) from error
    return Boto3CredentialProvider(boto3.Session(profile_name=name))
