"""From a URI to the object store behind it: a folder or an S3 prefix."""

import uuid

from synthfer import addresses
from synthfer.store.local import LocalStore
from synthfer.store.objects import PROBE_PREFIX, ObjectStore, StoreUnavailable


def open_store(uri: str) -> ObjectStore:
    """The store at a folder (path or file:///path) or an S3 prefix (s3://bucket/prefix), else `ValueError`.

    An address that holds credentials is refused: it would be stored and shown.
    """
    addresses.check(uri)
    scheme, separator, _ = uri.partition("://")
    if not separator or scheme == "file":
        try:
            return LocalStore(uri)
        except RuntimeError as error:  # pathlib's word for a ring of links
            raise ValueError(f"cannot store at {uri!r}: links there lead back to themselves.") from error
    if scheme == "s3":
        from synthfer.store.s3 import S3Store  # importing boto3 is slow, and a folder does not need it

        return S3Store(uri)
    raise ValueError(
        f"cannot store at {uri!r}: {scheme}:// is not supported. Use a folder, file:///folder or "
        "s3://bucket/prefix (most other clouds offer an S3 endpoint: set AWS_ENDPOINT_URL_S3)."
    )


def open_output(uri: str) -> ObjectStore:
    """The same, after an object was put there and deleted: what a job writes at its end would be lost otherwise.

    `OSError` names the place that cannot be written.
    """
    store = open_store(uri)
    key = f"{PROBE_PREFIX}{uuid.uuid4().hex}"
    try:
        store.put_new(key, b"")
        store.delete(key)
    except StoreUnavailable:
        raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, store.uri) from error
    return store
