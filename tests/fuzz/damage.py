"""Damage to a file by a seed: what disks, networks and strangers do to it."""

import random
from collections.abc import Callable

_WORDS = (
    b"null", b"[]", b"{}", b"-1", b"NaN", b"1e999", b"true", b'""', b"9" * 40, b"9" * 5000, b"${oc.env:HOME}", b"../x",
    b"[" * 3000, b'{"a":' * 3000, b"\x00", b"\xff\xfe", b"\\ud800", b"*a", b"!!python/name:os.system ''",
)  # fmt: skip
_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**64 - 1)


def damaged(body: bytes, seed: int) -> bytes:
    """The file with one kind of damage, the same for the same seed; an empty file gets some bytes."""
    rng = random.Random(seed)
    return rng.choice(_KINDS)(body or b"\x00" * 8, rng)


def _flip(body: bytes, rng: random.Random) -> bytes:
    changed = bytearray(body)
    for _ in range(rng.choice((1, 1, 2, 4, 16, 256))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _flip_at_an_end(body: bytes, rng: random.Random) -> bytes:
    """Headers and footers are where readers learn of sizes and offsets."""
    part = min(len(body), rng.choice((16, 64, 512)))
    if rng.random() < 0.5:
        return _flip(body[:part], rng) + body[part:]
    return body[:-part] + _flip(body[-part:], rng)


def _cut(body: bytes, rng: random.Random) -> bytes:
    return body[: rng.randrange(len(body))]


def _remove(body: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(body))
    return body[:start] + body[start + rng.randint(1, 64) :]


def _repeat(body: bytes, rng: random.Random) -> bytes:
    start, length = rng.randrange(len(body)), rng.randint(1, 512)
    return body[:start] + body[start : start + length] * rng.choice((2, 3, 1000)) + body[start + length :]


def _zeros(body: bytes, rng: random.Random) -> bytes:
    start, length = rng.randrange(len(body)), rng.randint(1, 512)
    return body[:start] + bytes(min(length, len(body) - start)) + body[start + length :]


def _number(body: bytes, rng: random.Random) -> bytes:
    """Some bytes become an extreme number, of either byte order."""
    size = rng.choice((1, 2, 4, 8))
    value = rng.choice(_NUMBERS) % 2 ** (8 * size)
    start = rng.randrange(len(body))
    return body[:start] + value.to_bytes(size, rng.choice(("little", "big"))) + body[start + size :]


def _word(body: bytes, rng: random.Random) -> bytes:
    """A word of the file's text becomes what its reader does not expect."""
    start = rng.randrange(len(body))
    while start and body[start - 1 : start] not in (b" ", b":", b",", b"[", b"\n"):
        start -= 1
    end = start + 1
    while end < len(body) and body[end : end + 1] not in (b",", b"}", b"]", b"\n"):
        end += 1
    return body[:start] + rng.choice(_WORDS) + body[end:]


def _noise(body: bytes, rng: random.Random) -> bytes:
    return rng.randbytes(rng.choice((0, 1, 7, 100, 5000)))


_KINDS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _flip, _flip, _flip_at_an_end, _flip_at_an_end, _cut, _remove, _repeat, _zeros, _number, _number, _word, _word,
    _noise,
)  # fmt: skip
