"""Buckets of S3-speaking stores and of Google's Cloud Storage, with a remote's own credentials and no others.

The variables by which a cloud's libraries find credentials belong to the service's own store, and are not to be used
for what a client names: every setting is given here.
"""

import json
import re
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from obstore.store import GCSStore, ObjectStore, S3Store

from app.domain.errors import FetchFailed, InvalidRequest
from app.remotes.egress import Egress, checked_url
from app.remotes.grants import Remote

BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")
ANSWERING = {"timeout": timedelta(minutes=30)}
"""A large file on a slow way takes many minutes."""
RETRIES: Any = {"max_retries": 2, "retry_timeout": timedelta(seconds=30)}
"""Few: who asks has a longer patience of its own, and resumes."""


def bucket_and_path(uri: str) -> tuple[str, str]:
    """Of ``s3://bucket/path``. Raises InvalidRequest."""
    parts = urlsplit(uri)
    path = parts.path.lstrip("/")
    if not BUCKET.fullmatch(parts.netloc) or not path or parts.query:
        raise InvalidRequest(f"An object is written {parts.scheme}://bucket/path.")
    return parts.netloc, path


def open_bucket(scheme: str, bucket: str, remote: Remote, egress: Egress) -> ObjectStore:
    """Raises FetchFailed where the remote's credentials are not of the kind that the store takes."""
    if scheme == "gs":
        return _google(bucket, remote)
    endpoint = remote.endpoint or f"https://s3.{remote.region}.amazonaws.com"
    own_server = remote.endpoint is not None
    plain = urlsplit(endpoint).scheme == "http"
    if own_server and not plain:
        checked_url(endpoint, egress)
    key, secret = remote.credential("access_key_id"), remote.credential("secret_access_key")

    def credentials() -> Any:
        return {
            "access_key_id": key,
            "secret_access_key": secret,
            "token": remote.credential("session_token"),
            "expires_at": None,
        }

    settings: dict[str, Any] = {
        "endpoint": endpoint,
        "aws_endpoint_url_s3": endpoint,
        "region": remote.region,
        "virtual_hosted_style_request": False,
        "client_options": {"allow_http": plain, **ANSWERING},
        "retry_config": RETRIES,
    }
    if key and secret:
        return S3Store(bucket, **settings, credential_provider=credentials)
    return S3Store(bucket, **settings, skip_signature=True)


def _google(bucket: str, remote: Remote) -> ObjectStore:
    key = remote.credential("service_account_key")
    settings: dict[str, Any] = {"client_options": {"allow_http": False, **ANSWERING}, "retry_config": RETRIES}
    if key is None:
        return GCSStore(bucket, **settings, skip_signature=True)
    try:
        json.loads(key)
    except ValueError:
        raise FetchFailed("The remote's service_account_key is no JSON; its operator has to look.") from None
    return GCSStore(bucket, **settings, service_account_key=key)
