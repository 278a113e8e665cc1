"""From a URI to the object store behind it: a folder or an S3 prefix."""

from synthfer import addresses
from synthfer.store.local import LocalStore
from synthfer.store.objects import ObjectStore


def open_store(uri: str) -> ObjectStore:
    """The store at a folder (path or file:///path) or an S3 prefix (s3://bucket/prefix), else `ValueError`.

    An address that holds credentials is refused: it would be stored and shown.
    """
    addresses.check(uri)
    scheme, separator, _ = uri.partition("://")
    if not separator or scheme == "file":
        return LocalStore(uri)
    if scheme == "s3":
        from synthfer.store.s3 import S3Store  # importing boto3 is slow, and a folder does not need it

        return S3Store(uri)
    raise ValueError(
        f"cannot store at {uri!r}: {scheme}:// is not supported. Use a folder, file:///folder or "
        "s3://bucket/prefix (most other clouds offer an S3 endpoint: set AWS_ENDPOINT_URL_S3)."
    )
