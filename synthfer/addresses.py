"""Addresses (URIs) without the secrets that people type into them: users, passwords, signed queries, tokens.

    redact("cannot read s3://KEY:SECRET@bucket/x")  # cannot read s3://***@bucket/x

All that the command line shows or logs, and every `ConfigError`, goes through `redact`; addresses that hold secrets are
refused where they are given (`problem_of`), so that none is stored.
"""

import re
from collections.abc import Callable

HIDDEN = "***"
_HOW = (
    "give them apart from it: s3:// by AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE or a role; MLflow by "
    "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD; the Hugging Face hub by HF_TOKEN"
)

_SCHEME = r"\b[a-zA-Z][a-zA-Z0-9+.-]*://"
_END = r"\s'\"<>`"
# The user in front of a host; the second form takes passwords that hold a slash, as many AWS secrets do, but no port.
_USER = re.compile(rf"({_SCHEME})(?:[^/?#{_END}]*@|[^/?#:@{_END}]*:(?!\d{{1,5}}(?:[/?#]))[^@{_END}]*@)")
# S3 addresses have no port, so that a colon before the first slash is a key and its secret, whatever that holds; a
# slash too many or too few does not make it less of a secret.
_S3_USER = re.compile(rf"(\bs3:/{{1,3}}|(?<![\w:/])//)[^/@{_END}]+:[^{_END}]*@")
_S3_USER_ALONE = re.compile(r"s3:/{1,3}[^/@]+:.*@", re.DOTALL)
_FRAGMENT = re.compile(rf"({_SCHEME}[^#;{_END}]*[#;])[^{_END})\]=]+=[^{_END})\]]*")
_QUERY = re.compile(rf"({_SCHEME}[^?{_END}]*)\?[^{_END})\]]*=[^{_END})\]]*")
_SECRET_NAMES = r"signature|credential|token|secret|password|passwd|access[-_]?key(?:[-_]?id)?|api[-_]?key"
_PAIR = re.compile(rf"(?i)([?&](?:[\w-]*[-_])?(?:{_SECRET_NAMES})=)[^&{_END}]+")
_TOKEN = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|(?:AKIA|ASIA)[A-Z0-9]{12,}|"
    r"eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*)"
)
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9+/=._-]{12,}")
_RULES: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    (_S3_USER, rf"\1{HIDDEN}@"),
    (_USER, rf"\1{HIDDEN}@"),
    (_FRAGMENT, rf"\1{HIDDEN}"),
    (_QUERY, rf"\1?{HIDDEN}"),
    (_PAIR, rf"\1{HIDDEN}"),
    (_TOKEN, HIDDEN),
    (_BEARER, rf"\1 {HIDDEN}"),
)


def redact(text: str) -> str:
    """A text in which users, passwords and queries of addresses, and tokens of known kinds, are `***`."""
    for pattern, instead in _RULES if _may_hold(text) else ():
        text = pattern.sub(instead, text)
    return text


def problem_of(text: str) -> str | None:
    """What is wrong with an address that holds a user, a password, a query or a token; None where it holds none."""
    if not _may_hold(text):
        return None
    if _S3_USER_ALONE.match(text):
        shown = f"s3://{HIDDEN}@{text.rpartition('@')[2]}"
    elif any(pattern.search(text) for pattern in (_S3_USER, _USER, _FRAGMENT, _QUERY, _TOKEN)):
        shown = redact(text)
    elif text.startswith("s3://") and "?" in text:
        shown = f"{text.partition('?')[0]}?{HIDDEN}"
    else:
        return None
    return f"{shown[:200]} holds a user, a password, a signed query or a token, which would be stored and shown: {_HOW}"


def check(uri: str) -> str:
    """The address as it is; `ValueError` where it holds a secret."""
    if problem := problem_of(uri):
        raise ValueError(problem)
    return uri


def _may_hold(text: str) -> bool:
    """Whether a rule may match at all: most lines of a log hold none of this."""
    return any(mark in text for mark in (":/", "//", "=", "_", "AKIA", "ASIA", "eyJ", "earer", "asic", "EARER", "ASIC"))
