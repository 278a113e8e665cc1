"""Image files that nobody vouches for: which formats are opened, how large, and how much work one may be.

A file is what its first bytes say, never what its name says, and only the formats in which faces are published are
opened: nothing that runs other programs (EPS) or that Pillow merely happens to know. What decides about memory and
time is read from the headers here before a decoder sees the file: pixels, scans of a JPEG, chunks of a PNG, values of
a TIFF's directory; formats that Pillow decodes in Python (BMP with run lengths, PGM and PPM in words or up to
other values than 255) are refused.
"""

import io
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from itertools import islice

from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

MAX_PIXELS = 40_000_000
"""Photographs of cameras with 36 million pixels, which take 120 MB decoded and some 500 MB at the worst moment of it;
a worker has that beside its model. Twice as many would not fit on machines with several workers."""
MAX_SCANS = 100
"""Progressive JPEGs have about ten; every scan passes over all pixels. libtiff has the same limit."""
MAX_SCANNED_PIXELS = 25 * MAX_PIXELS
"""Pixels times scans: some seconds of decoding."""
MAX_JPEG_SEGMENTS = 10_000
MAX_PNG_PARTS = 65_536
"""Chunks with pixels; writers cut them at 8 KiB or more."""
MAX_PNG_NOTES = 1_000
"""Chunks without pixels, some of which are unpacked when the file is opened."""
MAX_TIFF_VALUES = 300_000
"""Strips, tiles and everything else that a TIFF lists; each becomes an object."""
MAX_GIF_BYTES = 8 * 2**20
"""The blocks of a GIF are walked through in Python."""

ERRORS = (
    ValueError, OSError, SyntaxError, EOFError, LookupError, TypeError, OverflowError, struct.error, zlib.error,
    Image.DecompressionBombError,
)  # fmt: skip
"""What this module and Pillow's readers raise for damaged files; SyntaxError is how they refuse one."""
KNOWN = "JPEG, PNG, WebP, BMP, GIF, TIFF, PGM and PPM"
_PNG = b"\x89PNG\r\n\x1a\n"
_SOS, _EOI, _APP1 = 0xDA, 0xD9, 0xE1
# Within a scan, FF is followed by 00 or a restart marker; anything else ends the scan.
_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")
_SPACE = rb"(?:\s|#[^\r\n]*[\r\n])+"
_NETPBM = re.compile(rb"(P[56])" + (_SPACE + rb"(\d{1,9})") * 2 + rb"\s" + rb"(?:\s|#[^\r\n]*[\r\n])*(\d{1,9})\s")
_TIFF_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}

# Readers warn of damage that they step over, and again for every file: whether it decodes is what counts.
warnings.filterwarnings("ignore", module=r"PIL\.(Tiff|Jpeg|Png|Gif|Bmp|WebP)ImagePlugin")


def form_of(body: bytes) -> str | None:
    """The format by the first bytes of a file, in lower case; None for one that is not opened."""
    if body[:4] == b"RIFF":
        return "webp" if body[8:12] == b"WEBP" else None
    return next((form for form, starts, _, _ in _FORMATS if body.startswith(starts)), None)


def open_image(body: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The file's image, not decoded yet; `ValueError` where it is not opened. Pillow adds its own errors (`ERRORS`)."""
    form = form_of(body)
    if form is None:
        raise ValueError(f"it is none of {KNOWN}")
    check, plugin = next((check, plugin) for name, _, check, plugin in _FORMATS if name == form)
    image: Image.Image = plugin(io.BytesIO(check(body, max_pixels)))
    width, height = image.size
    check_size(width, height, max_pixels)
    return image


def check_size(width: int, height: int, max_pixels: int = MAX_PIXELS) -> None:
    """`ValueError` if an image has more pixels than allowed."""
    if width * height > max_pixels:
        raise ValueError(f"{width} x {height} pixels are more than the {max_pixels:,} allowed")


def check_scans(body: bytes, width: int, height: int) -> None:
    """`ValueError` for a JPEG whose scans would keep a decoder busy for minutes."""
    if body.count(b"\xff\xda") <= 1:
        return
    scans = sum(marker == _SOS for marker, _, _ in _jpeg_segments(body))
    allowed = min(MAX_SCANS, MAX_SCANNED_PIXELS // max(1, width * height))
    if scans > allowed:
        raise ValueError(f"{scans:,} scans over {width} x {height} pixels are more than the {allowed:,} allowed")


def _jpeg_segments(body: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of each segment, the pixels of scans left out; ends where the file is damaged."""
    at = 2
    for _ in range(MAX_JPEG_SEGMENTS):
        match = _MARKER.search(body, at)
        if match is None or match[1][0] == _EOI:
            return
        length = int.from_bytes(body[match.end() : match.end() + 2])
        yield match[1][0], match.start(), match.end() + max(2, length)
        at = match.end() + max(2, length)
    raise ValueError(f"it has more than {MAX_JPEG_SEGMENTS:,} segments")


def _jpeg(body: bytes, max_pixels: int) -> bytes:
    """The file without its Exif, a whole TIFF that Pillow would read for the resolution."""
    parts, start = list[bytes](), 0
    for marker, a, b in _jpeg_segments(body):
        if marker == _APP1 and body[a:b].lstrip(b"\xff")[3:7] == b"Exif":
            parts.append(body[start:a])
            start = b
        if marker == _SOS:
            break
    return b"".join([*parts, body[start:]]) if parts else body


def _png(body: bytes, max_pixels: int) -> bytes:
    width, height = struct.unpack(">II", body[16:24])
    check_size(width, height, max_pixels)
    at, parts, notes = 8, 0, 0
    while at + 8 <= len(body):
        length, kind = struct.unpack(">I4s", body[at : at + 8])
        parts, notes = parts + (kind == b"IDAT"), notes + (kind != b"IDAT")
        if parts > MAX_PNG_PARTS or notes > MAX_PNG_NOTES:
            raise ValueError(f"it has more than {MAX_PNG_NOTES:,} chunks beside {MAX_PNG_PARTS:,} with pixels")
        at += 12 + length
    return body


def _webp(body: bytes, max_pixels: int) -> bytes:
    kind = body[12:16]
    if kind == b"VP8X":
        width, height = (1 + int.from_bytes(body[at : at + 3], "little") for at in (24, 27))
    elif kind == b"VP8L":
        bits = int.from_bytes(body[21:25], "little")
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    else:
        width, height = (int.from_bytes(body[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    check_size(width, height, max_pixels)
    return body


def _bmp(body: bytes, max_pixels: int) -> bytes:
    header, _, _, _, compression = struct.unpack("<IiiII", body[14:34])
    if header >= 40 and compression not in (0, 3):
        raise ValueError("it is compressed, which BMP files of faces are not: write it as PNG")
    return body


def _gif(body: bytes, max_pixels: int) -> bytes:
    if len(body) > MAX_GIF_BYTES:
        raise ValueError(f"{len(body):,} bytes are more than the {MAX_GIF_BYTES:,} allowed: write it as PNG")
    width, height = struct.unpack("<HH", body[6:10])
    check_size(width, height, max_pixels)
    return body


def _netpbm(body: bytes, max_pixels: int) -> bytes:
    match = _NETPBM.match(body[:1024])
    if match is None:
        raise ValueError("its header is none of a binary PGM or PPM")
    check_size(int(match[2]), int(match[3]), max_pixels)
    if int(match[4]) != 255 and (match[1], int(match[4])) != (b"P5", 65535):  # Pillow decodes all others in Python
        raise ValueError(f"its values go up to {int(match[4])}, not 255 (in a PGM also 65535): write it as PNG")
    return body


def _tiff(body: bytes, max_pixels: int) -> bytes:
    """Checks the first directory: that is the image which is read."""
    order = "<" if body[:2] == b"II" else ">"
    big = struct.unpack(order + "H", body[2:4])[0] == 43
    count, entry = ("Q", "HHQ8s") if big else ("H", "HHL4s")
    (at,) = struct.unpack_from(order + ("Q" if big else "L"), body, 8 if big else 4)
    (entries,) = struct.unpack_from(order + count, body, at)
    at += struct.calcsize("=" + count)
    values = size = 0
    for number in islice(range(entries), MAX_TIFF_VALUES):
        _, kind, times, _ = struct.unpack_from(order + entry, body, at + number * struct.calcsize("=" + entry))
        unit = _TIFF_SIZES.get(kind, 0)
        values, size = values + 1 + times * (kind not in (1, 2, 6, 7) and unit > 0), size + times * unit
        if values > MAX_TIFF_VALUES or size > len(body):
            raise ValueError(f"its directory lists {values:,} values of {size:,} bytes in a file of {len(body):,}")
    return body


_Check = Callable[[bytes, int], bytes]
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_FORMATS: tuple[tuple[str, bytes | tuple[bytes, ...], _Check, Callable[[io.BytesIO], Image.Image]], ...] = (
    ("jpeg", b"\xff\xd8\xff", _jpeg, JpegImagePlugin.JpegImageFile),
    ("png", _PNG, _png, PngImagePlugin.PngImageFile),
    ("webp", b"RIFF", _webp, WebPImagePlugin.WebPImageFile),
    ("bmp", b"BM", _bmp, BmpImagePlugin.BmpImageFile),
    ("gif", (b"GIF87a", b"GIF89a"), _gif, GifImagePlugin.GifImageFile),
    ("tiff", _TIFF_STARTS, _tiff, TiffImagePlugin.TiffImageFile),
    ("ppm", (b"P5", b"P6"), _netpbm, PpmImagePlugin.PpmImageFile),
)
