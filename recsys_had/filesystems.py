"""Which file system a URL belongs to, and what its errors mean in one line.

Arrow's own clients serve s3:// and gs://; what other protocols need, fsspec names. All settings
come from the environment, as the stores' other tools read them; a URL holds no secrets.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from recsys_had.errors import ConfigError, StoreError

# Arrow's own is a quarter of an hour.
_GCS_PATIENCE = timedelta(seconds=60)
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
}
_DENIED = ("ACCESS_DENIED", "403", "Forbidden", "INVALID_ACCESS_KEY", "SIGNATURE_DOES_NOT_MATCH")
_UNREACHABLE = ("NETWORK_CONNECTION", "Could not connect", "UNAVAILABLE", "Connection refused")


def filesystem_of(scheme: str, key: str) -> Any:
    """The Arrow file system of a URL; one for each bucket and process.

    Raises:
        ConfigError: the protocol is unknown, or what serves it is not installed.
        StoreError: the store cannot be asked where a bucket lies.

    >>> filesystem_of("memory", "bucket/file").type_name
    'py::fsspec+memory'
    """
    # A client does not live through a fork.
    with store_errors(f"{scheme}://{key}"):
        return _filesystem(scheme, key.partition("/")[0], _s3_endpoint(), os.getpid())


@lru_cache(maxsize=64)
def _filesystem(scheme: str, bucket: str, s3_endpoint: str | None, pid: int) -> Any:
    url = f"{scheme}://{bucket}"
    try:
        if scheme == "s3" and s3_endpoint is not None:
            # Arrow looks at neither variable by itself.
            return pafs.S3FileSystem(endpoint_override=s3_endpoint)
        if scheme == "s3":
            return pafs.S3FileSystem(region=pafs.resolve_s3_region(bucket))
        if scheme == "gs":
            return pafs.GcsFileSystem(retry_time_limit=_GCS_PATIENCE)
        import fsspec

        return pafs.PyFileSystem(pafs.FSSpecHandler(fsspec.filesystem(scheme)))
    except (ImportError, ValueError) as cause:
        # fsspec tells which package a protocol needs.
        raise ConfigError(f"{url}: cannot be opened. {str(cause).rstrip('.')}.") from cause


def _s3_endpoint() -> str | None:
    """Where an S3-compatible store other than Amazon's answers."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None


@contextmanager
def store_errors(url: str) -> Iterator[None]:
    """Turns what a file system raises into an error of one line.

    A file that is not there stays a ``FileNotFoundError``; a file whose content is wrong, as a
    Parquet file that is cut off, stays Arrow's.

    >>> with store_errors("s3://shop/rows.tsv"):
    ...     raise OSError("AWS Error NO_SUCH_BUCKET during HeadObject operation: ...")
    Traceback (most recent call last):
    recsys_had.errors.StoreError: s3://shop/rows.tsv: there is no bucket 'shop'. Check its name.
    """
    try:
        yield
    except FileNotFoundError as cause:
        if cause.filename == url:
            raise
        raise FileNotFoundError(cause.errno, "No such file or directory", url) from cause
    except OSError as cause:
        raise StoreError(f"{url}: {_in_words(url, cause)}") from cause
    except pa.ArrowInvalid as cause:
        if "path component" not in str(cause):
            raise
        raise StoreError(f"{url}: is not a usable URL. It holds an empty name.") from cause


def no_bucket(bucket: str) -> str:
    """What to say of a bucket that is not there."""
    return f"there is no bucket '{bucket}'. Check its name."


def _in_words(url: str, cause: OSError) -> str:
    scheme, _, key = url.partition("://")
    bucket, _, name = key.partition("/")
    text = " ".join(str(cause).split())
    # What the store says, without the names it repeats: a bucket's may hold a 403.
    said = text
    for repeated in (f"'{name}'", f"'{bucket}'", key, name if "/" in name else "", bucket):
        said = said.replace(repeated, "") if len(repeated) > 3 else said
    if "NO_SUCH_BUCKET" in said or f"Bucket '{bucket}' not found" in text:
        return no_bucket(bucket)
    if isinstance(cause, PermissionError) or any(word in said for word in _DENIED):
        means = f" ({_CREDENTIALS[scheme]})" if scheme in _CREDENTIALS else ""
        return f"access is denied. Are the credentials right{means}, and may they do this?"
    if isinstance(cause, ConnectionError) or any(word in said for word in _UNREACHABLE):
        endpoint = _s3_endpoint() if scheme == "s3" else None
        if endpoint is not None:
            return f"no connection to {endpoint}. Is AWS_ENDPOINT_URL right?"
        return "no connection to the store. Is the network there?"
    return f"the store answers with an error: {text.rstrip('.')}."
