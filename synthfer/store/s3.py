"""Objects in an S3 bucket: each is one PUT with `If-None-Match: *` and a sha256 checksum.

Endpoint, region and credentials come from the ordinary AWS variables, files and roles (boto3's chain). botocore's own
retries are off: they cannot know that a 412 after a lost answer means our own success, they retry neither a 409 nor a
truncated body, and they give up in a longer outage. `S3Store._retry` does it for every request instead.
"""

import functools
import hashlib
import itertools
import logging
import os
import random
import re
import time
import uuid
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from threading import Lock
from typing import Any, TypeVar

import boto3
import botocore.session
import pyarrow as pa
from botocore import exceptions as aws
from botocore.config import Config
from botocore.parsers import ResponseParserError

from synthfer import addresses
from synthfer.store.objects import (
    PROBE_PREFIX,
    ConditionalCreate,
    RangeReader,
    Stat,
    StoreUnavailable,
    is_older_than,
    is_probe,
    probe_conditional_create,
)

log = logging.getLogger(__name__)
T = TypeVar("T")

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 20.0
_CONNECTIONS = 64
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_IDENTITY = [
    f"AWS_{name}"
    for name in ["ENDPOINT_URL_S3", "ENDPOINT_URL", "PROFILE", "ACCESS_KEY_ID", "REGION", "DEFAULT_REGION"]
]
_RETRIED_CODES = {
    "BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "RequestTimeout",
    "ConditionalRequestConflict", "OperationAborted", "SlowDown", "Throttling",
}  # fmt: skip
_RETRIED_STATUS = {408, 409, 429, 500, 502, 503, 504}
_CONNECTION_ERRORS = (
    aws.ConnectionError, aws.HTTPClientError, aws.IncompleteReadError, aws.ResponseStreamingError,
    aws.FlexibleChecksumError, aws.MetadataRetrievalError, aws.CredentialRetrievalError, ResponseParserError,
)  # fmt: skip
_CREDENTIALS = (
    "the credentials are not accepted: check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE or "
    "the role, and whether a session token has run out"
)
_ADVICE = {
    "NoSuchBucket": "the bucket does not exist there: create it, or correct the URI or AWS_ENDPOINT_URL_S3",
    "AccessDenied": "access is refused: s3:ListBucket is needed on the bucket, s3:GetObject and s3:PutObject below it",
    "403": "access is refused: check the credentials, that they allow s3:ListBucket, s3:GetObject and s3:PutObject "
    "there, and this machine's clock",
    "RequestTimeTooSkewed": "this machine's clock is more than 15 minutes wrong: set it (NTP)",
    "501": "it does not know conditional requests (If-None-Match), which commits rest on: use another store",
    "301": "the bucket is in another region: set AWS_REGION",
    "400": "the request is refused: check AWS_REGION and whether a session token has run out",
    **dict.fromkeys(("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken"), _CREDENTIALS),
}
_jitter = random.SystemRandom()
_client_lock = Lock()


class _Vanished(Exception):
    """An object existed a moment ago and does not now: ask again."""


@functools.lru_cache(maxsize=8)
def _client_of(pid: int, identity: tuple[str | None, ...]) -> Any:
    """One client per process (they do not survive a fork) and identity; sessions are not thread-safe."""
    for name in _ENDPOINTS:
        _check_endpoint(name, os.environ.get(name, ""))
    config = Config(
        retries={"mode": "standard", "total_max_attempts": 1},
        max_pool_connections=_CONNECTIONS,
        connect_timeout=5,
        read_timeout=120,  # the server's own commit of a big body counts
        tcp_keepalive=True,
        s3={"addressing_style": "auto"},
    )
    session = botocore.session.get_session()
    # Parsing the time stamps of a listing takes longer than all the rest of it, and nothing here needs them.
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=str)
    region = os.environ.get("AWS_REGION")  # boto3 by itself reads only AWS_DEFAULT_REGION
    return boto3.Session(botocore_session=session).client("s3", region_name=region, config=config)


def _check_endpoint(name: str, endpoint: str) -> None:
    """`ValueError` where a variable holds what is no address of a server; it is not quoted, it may hold a secret."""
    if not endpoint:
        return
    if problem := addresses.problem_of(endpoint):
        raise ValueError(f"{name}: {problem}")
    if not re.fullmatch(r"https?://(?:[a-zA-Z0-9._-]+|\[[0-9a-fA-F:.]+\])(?::\d{1,5})?(?:/[!-~]*)?", endpoint):
        raise ValueError(f"{name} is not the address of a server: write http://host:port or https://host")


def _code(error: aws.ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _status(error: aws.ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _is_past(min_age_s: float, stamp: str) -> bool:
    return is_older_than(min_age_s, datetime.fromisoformat(stamp).timestamp())


class S3Store:
    """`ObjectStore` under s3://bucket/prefix. Safe for threads; pickles as its URI and deadlines, without credentials.

    A request is retried with full-jitter pauses for `deadline_s` seconds, or, until the endpoint has answered once, for
    `first_contact_s`, so that a mistyped endpoint is reported soon. Then `StoreUnavailable` is raised.
    """

    def __init__(self, uri: str, deadline_s: float = 600, first_contact_s: float = 30) -> None:
        addresses.check(uri)
        match = re.fullmatch(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*))?", uri)
        if not match:
            raise ValueError(
                f"{uri!r} is not an S3 URI: write s3://bucket/prefix (a bucket's name has 3 to 63 of a-z, 0-9, -)."
            )
        self.bucket, self._prefix = match[1], (match[2] or "").strip("/")
        self.uri = f"s3://{self.bucket}/{self._prefix}".rstrip("/")
        self._deadline_s, self._first_contact_s, self._answered = deadline_s, first_contact_s, False

    # Objects

    def put_new(self, key: str, body: bytes | pa.Buffer) -> bool:
        attempt, digest = uuid.uuid4().hex, hashlib.sha256(body).digest()

        def once() -> bool:
            # Asking first costs one small request. It saves the upload of an object that exists, recognises our own
            # object when the answer to an earlier attempt was lost, and protects stores that ignore the condition.
            if self._owner(key) is None and self._put(key, body, digest, attempt):
                return True
            owner = self._owner(key)
            if owner is None:
                raise _Vanished(key)
            return owner == attempt

        return self._retry(once, key)

    def _put(self, key: str, body: bytes | pa.Buffer, digest: bytes, attempt: str) -> bool:
        """One conditional PUT; False where the store says that the key exists."""
        try:
            self._call(
                "put_object",
                key,
                Body=pa.BufferReader(body),  # no copy, and it rewinds
                IfNoneMatch="*",
                ChecksumSHA256=b64encode(digest).decode(),
                Metadata={"attempt": attempt, "sha256": digest.hex()},
            )
        except aws.ClientError as error:
            if _status(error) != 412:
                raise
            return False
        return True

    def _owner(self, key: str) -> str | None:
        """The id of the attempt that created the object ("" if it was not synthfer), None if there is no object."""
        head = self._head(key)
        return None if head is None else head["Metadata"].get("attempt", "")

    def _head(self, key: str) -> Any:
        return self._retry(lambda: self._head_once(key), key)

    def _head_once(self, key: str) -> Any:
        try:
            return self._call("head_object", key, ChecksumMode="ENABLED")
        except aws.ClientError as error:
            if _status(error) != 404:
                raise
            return None

    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        if end is not None and end <= start:
            return b""
        last = "" if end is None else end - 1
        span = f"bytes={start}" if start < 0 else f"bytes={start}-{last}"
        options = {} if (start, end) == (0, None) else {"Range": span}

        def once() -> bytes:
            try:
                answer = self._call("get_object", key, **options)
            except aws.ClientError as error:
                if _status(error) == 404 and _code(error) != "NoSuchBucket":
                    raise FileNotFoundError(f"{self.uri}/{key} does not exist") from error
                if _status(error) == 416:
                    return b""
                raise
            body: bytes = answer["Body"].read()
            return body if "ContentRange" in answer else body[start:end]

        return self._retry(once, key)

    def stat(self, key: str) -> Stat | None:
        head = self._head(key)
        if head is None:
            return None
        checksum = head.get("ChecksumSHA256", "")
        if checksum and "-" not in checksum:  # a multipart object's ends in "-N" and is not that of its content
            return Stat(head["ContentLength"], b64decode(checksum).hex())
        return Stat(head["ContentLength"], head["Metadata"].get("sha256"))

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        return ((key, entry["Size"]) for key, entry in self._entries(prefix))

    def _entries(self, prefix: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Keys that start with `prefix`, and what a listing says of each."""
        root, after = len(self._name("")), dict[str, str]()
        while True:
            page = self._page("list_objects_v2", prefix, after)
            yield from ((entry["Key"][root:], entry) for entry in page.get("Contents", ()))
            if not page.get("IsTruncated"):
                return
            after = {"ContinuationToken": page["NextContinuationToken"]}

    def open(self, key: str, size: int | None = None) -> pa.NativeFile:
        if size is None:
            stat = self.stat(key)
            if stat is None:
                raise FileNotFoundError(f"{self.uri}/{key} does not exist")
            size = stat.size
        return pa.PythonFile(RangeReader(functools.partial(self.get, key), size), mode="r")

    def delete(self, key: str) -> None:
        self._retry(lambda: self._call("delete_object", key), key)

    def probe(self) -> ConditionalCreate:
        if not self._checks_sha256(f"{PROBE_PREFIX}{uuid.uuid4().hex}"):
            log.warning("%s accepts an upload with a wrong sha256: only `verify` finds damage in transit", self.uri)

        def create(key: str, body: bytes) -> bool:
            attempt, digest = uuid.uuid4().hex, hashlib.sha256(body).digest()
            return self._retry(lambda: self._put(key, body, digest, attempt) or self._owner(key) == attempt, key)

        return probe_conditional_create(create, self.delete)

    def _checks_sha256(self, key: str) -> bool:
        """Whether the server refuses a body that does not have the sha256 which the request states."""

        def once() -> bool:
            try:
                self._put(key, b"received", hashlib.sha256(b"sent").digest(), "")
            except aws.ClientError as error:
                if _status(error) != 400:
                    raise
                return True
            return False

        refuses = self._retry(once, key)
        self.delete(key)
        return refuses

    def leftovers(self, min_age_s: float, delete: bool) -> Sequence[str]:
        """Probe objects, and unfinished multipart uploads: those of other programs, since synthfer starts none."""
        probes = sorted(
            key
            for key, entry in self._entries(PROBE_PREFIX)
            if is_probe(key) and _is_past(min_age_s, entry["LastModified"])
        )
        if delete:
            for key in probes:
                self.delete(key)
        return [*probes, *self._uploads(min_age_s, delete)]

    def _uploads(self, min_age_s: float, delete: bool) -> Sequence[str]:
        leftovers: list[str] = []
        after: dict[str, str] = {}
        while True:
            page = self._page("list_multipart_uploads", "", after)
            for upload in page.get("Uploads", ()):
                if _is_past(min_age_s, upload["Initiated"]):
                    leftovers.append(f"{upload['Key'][len(self._name('')) :]} (upload {upload['UploadId']})")
                    if delete:
                        self._retry(functools.partial(self._abort, upload), upload["Key"])
            if not page.get("IsTruncated"):
                return sorted(leftovers)
            after = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}

    # Requests

    def _abort(self, upload: dict[str, Any]) -> None:
        self._client().abort_multipart_upload(Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"])

    def _name(self, key: str) -> str:
        return f"{self._prefix}/{key}" if self._prefix else key

    def _client(self) -> Any:
        with _client_lock:
            return _client_of(os.getpid(), tuple(os.environ.get(name) for name in _IDENTITY))

    def _page(self, operation: str, prefix: str, after: dict[str, str]) -> Any:
        return self._retry(lambda: self._call(operation, None, Prefix=self._name(prefix), **after), prefix)

    def _call(self, operation: str, key: str | None, **options: Any) -> Any:
        key_option = {} if key is None else {"Key": self._name(key)}
        return getattr(self._client(), operation)(Bucket=self.bucket, **key_option, **options)

    def _retry(self, once: Callable[[], T], key: str) -> T:
        """`once()`, retried after errors that may pass; errors that only a person can mend are raised at once."""
        started = time.monotonic()
        for attempt in itertools.count():
            try:
                result = once()
            except (aws.ClientError, aws.BotoCoreError, ResponseParserError, _Vanished) as error:
                problem = self._transient_problem(error, key)
                limit = self._deadline_s if self._answered else self._first_contact_s
                left = started + limit - time.monotonic()
                if left <= 0:
                    raise StoreUnavailable(
                        f"{self._where(key)} gave no usable answer for {limit:.0f} s ({problem}). Check the endpoint "
                        "(AWS_ENDPOINT_URL_S3) and the network, then run the same command again: it continues."
                    ) from error
                log.info("%s: %s, trying again", self._where(key), problem)
                time.sleep(min(left, _jitter.uniform(0, min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**attempt))))
            else:
                self._answered = True
                return result
        raise AssertionError("unreachable")

    def _transient_problem(self, error: Exception, key: str) -> str:
        """A problem that may pass, in words; `ValueError` with advice for one that will not."""
        if isinstance(error, aws.ClientError):
            self._answered = True
            code, status = _code(error), _status(error)
            if code in _RETRIED_CODES or status in _RETRIED_STATUS:
                return f"status {status}, {code}"
            advice = _ADVICE.get(code) or _ADVICE.get(str(status), "the store refuses")
            raise ValueError(f"{self._where(key)}: {advice} ({code}, status {status}).") from error
        if isinstance(error, aws.SSLError) or not isinstance(error, (*_CONNECTION_ERRORS, _Vanished)):
            advice = ": set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE or a role"
            hint = advice if isinstance(error, (aws.NoCredentialsError, aws.PartialCredentialsError)) else ""
            raise ValueError(addresses.redact(f"{self._where(key)}: {str(error).rstrip('.')}{hint}.")) from error
        return type(error).__name__

    def _where(self, key: str) -> str:
        endpoint = next(filter(None, map(os.environ.get, _ENDPOINTS)), None)
        return addresses.redact(f"s3://{self.bucket}/{self._name(key)}" + (f" at {endpoint}" if endpoint else ""))
