"""Opening the file system behind a URL: through pyarrow, else through fsspec where that is installed."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from nls_tune.errors import InputError
from nls_tune.machine.provenance import without_password

#: Seconds for a connection to stand. With the second try a host that is not there is known within 10 s.
CONNECT_SECONDS, _TRIES = 4.0, 2
#: Seconds without a byte after which a request counts as lost.
_REQUEST_SECONDS = 20.0
#: What storages say, in the words of their users, and the way out.
_CREDENTIALS = "see AWS_ACCESS_KEY_ID and ~/.aws"
_REASONS = {
    "NO_SUCH_BUCKET": ("there is no such bucket", "make it"),
    "BUCKET_NOT_FOUND": ("there is no such bucket", "make it"),
    "bucket does not exist": ("there is no such bucket", "make it"),
    "ACCESS_DENIED": ("it gives no rights, or there are no credentials", _CREDENTIALS),
    "INVALID_ACCESS_KEY_ID": ("it does not know these credentials", _CREDENTIALS),
    "InvalidAccessKeyId": ("it does not know these credentials", _CREDENTIALS),
    "SIGNATURE_DOES_NOT_MATCH": ("the secret key is another one", "see AWS_SECRET_ACCESS_KEY and ~/.aws"),
    "NETWORK_CONNECTION": ("it cannot be reached", "see AWS_ENDPOINT_URL and the network"),
    "access token": ("there are no credentials, or it cannot be reached", "see GOOGLE_APPLICATION_CREDENTIALS"),
    "Permission denied": ("it gives no rights", "ask for them"),
}
_LONGEST_REASON = 160
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
#: What a URL of S3 may say behind its question mark.
_S3_OPTIONS = ("endpoint_override", "region", "scheme")


def is_url(place: object) -> bool:
    """Return whether a place is written as a URL, and not as a path."""
    return isinstance(place, str) and _URL.match(place) is not None


def resolved(url: str) -> str:
    """Return a URL that says itself what this process's environment says of it, so that it means the same elsewhere.

    Amazon is asked for the region of a bucket. Keys stay where they are.

    Raises:
        InputError: If the URL says what is unknown.
    """
    match = _URL.match(url)
    if match is None or match[1].lower() != "s3":
        return url
    parts, shown = urlsplit(url), without_password(url)
    bucket = parts.netloc.rpartition("@")[2]
    if ":" in bucket or "@" in parts.path:  # a slash in the secret key has cut the URL in two
        raise InputError("the secret key of a storage has signs that URLs do not allow; write them as %2F, %2B, %3D")
    if not bucket:
        raise InputError(f"a storage must name a bucket, {shown} does not; give s3://BUCKET/FOLDER")
    options = dict(parse_qsl(parts.query))
    if unknown := sorted(options.keys() - set(_S3_OPTIONS)):
        raise InputError(f"the storage {shown} says {unknown[0]}, which is unknown; known are {', '.join(_S3_OPTIONS)}")
    return urlunsplit(parts._replace(query=urlencode(_s3_place(bucket, options))))


def open_file_system(url: str) -> tuple[Any, str]:
    """Return pyarrow's file system behind a URL that was ``resolved``, and the path there; no server is asked.

    Raises:
        InputError: If the URL is not one, or nobody knows its scheme.
    """
    match, shown = _URL.match(url), without_password(url)
    if match is None:
        raise InputError(f"a storage must be a URL like s3://BUCKET/FOLDER or file:///FOLDER, got {shown!r}")
    found, path = _open(match[1].lower(), url)
    path = path.rstrip("/")
    if not path.strip("/"):
        raise InputError(f"a storage must name a folder, {shown} does not; give SCHEME://PLACE/FOLDER")
    return found, path


def reason_of(error: BaseException) -> tuple[str, str]:
    """Return why a storage does not work, in a line without the passwords of URLs, and what to do about it."""
    text = without_password(str(error)).strip()
    for sign, words in _REASONS.items():
        if sign in text:
            return words
    line = next(iter(text.splitlines()), type(error).__name__)
    return line if len(line) <= _LONGEST_REASON else f"{line[:_LONGEST_REASON]}...", "mend that"


def _open(scheme: str, url: str) -> tuple[Any, str]:
    from pyarrow import ArrowInvalid, fs

    if scheme == "s3":
        return _open_s3(url)
    if scheme in ("gs", "gcs") and "retry_limit_seconds" not in url:
        url += f"{'&' if '?' in url else '?'}retry_limit_seconds={CONNECT_SECONDS * _TRIES:g}"  # else 15 minutes
    try:
        found: tuple[Any, str] = fs.FileSystem.from_uri(url)
        return found
    except ArrowInvalid as error:
        if "Unrecognized" not in str(error):
            raise
    return _open_fsspec(scheme, url)


def _open_fsspec(scheme: str, url: str) -> tuple[Any, str]:
    from pyarrow import fs

    unknown = InputError(
        f"the scheme {scheme}:// of a storage is unknown; s3://, gs://, file:// and others of pyarrow work, those of "
        "fsspec where it and the package of the scheme are installed"
    )
    try:
        from fsspec.core import url_to_fs  # type: ignore[import-untyped]
        from fsspec.registry import known_implementations, registry  # type: ignore[import-untyped]
    except ImportError:
        raise unknown from None
    if scheme not in known_implementations and scheme not in registry:
        raise unknown
    found, path = url_to_fs(url)
    return fs.PyFileSystem(fs.FSSpecHandler(found)), path


def _open_s3(url: str) -> tuple[Any, str]:
    """Return S3 with limits of time; without keys in the URL, the environment and the user's files of AWS have them."""
    from pyarrow import fs

    parts = urlsplit(url)
    user, at, bucket = parts.netloc.rpartition("@")
    access, _, secret = user.partition(":")
    keys = {"access_key": unquote(access), "secret_key": unquote(secret)} if at else {}
    return fs.S3FileSystem(
        **keys,
        **dict(parse_qsl(parts.query)),
        connect_timeout=CONNECT_SECONDS,
        request_timeout=_REQUEST_SECONDS,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=_TRIES),
    ), bucket + unquote(parts.path)


def _s3_place(bucket: str, options: Mapping[str, str]) -> dict[str, str]:
    """Return endpoint and region; only Amazon is asked for the region of a bucket."""
    from pyarrow import fs

    variables = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    endpoint = options.get("endpoint_override") or next(filter(None, map(os.environ.get, variables)), "")
    region = options.get("region") or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    found = {"region": region or ("us-east-1" if endpoint else fs.resolve_s3_region(bucket))}
    if endpoint:
        scheme, cut, host = endpoint.rpartition("://")
        found |= {
            "endpoint_override": host.rstrip("/"),
            "scheme": options.get("scheme") or (scheme if cut else "https"),
        }
    return found
