"""Image files: pixels to bytes and back, each file saying in its metadata where the picture comes from.

The IPTC Photo Metadata Standard names the origin of a picture by its Digital Source Type; whoever looks for
synthetic media reads it from the XMP packet. It is written into JPEG (an APP1 segment), PNG (an iTXt chunk)
and WebP (an XMP chunk). Bytes are a pure function of pixels, format, quality and source type: no dates, no
names.

JPEG goes through simplejpeg, which gives up the GIL (Pillow holds it when writing to memory), so that
encoding runs beside the device; chroma is kept at full size, since lips and eyes are small. PNG uses the
fastest deflate level and WebP its fastest lossless method: several times quicker than the defaults for a
tenth more bytes.
"""

import io
import re
import struct
from dataclasses import dataclass

import numpy as np
import simplejpeg
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from synthfer.config import option
from synthfer.sample import pixels_hash

FORMATS = ("jpeg", "png", "webp")
SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
GENERATED = "trainedAlgorithmicMedia"
"""Made by a model alone. An edited face is `compositeWithTrainedAlgorithmicMedia`, a photograph `digitalCapture`."""
MAX_PIXELS = 64 * 2**20

_FER2013_SIDE = 48
_XMP_NAMESPACE = b"http://ns.adobe.com/xap/1.0/\0"
_PACKET = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
    ' Iptc4xmpExt:DigitalSourceType="{uri}"/></rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
)
# XMP allows a simple property as an attribute or as an element.
_DECLARED = re.compile(rb'DigitalSourceType(?:\s*=\s*["\']|[^>]*?rdf:resource\s*=\s*["\']|\s*>)\s*([^"\'<\s]+)')


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """How pictures are written; part of the dataset's spec, since a lossy format changes the pixels."""

    format: str = option("jpeg", "file format: jpeg is lossy, png and webp are lossless", choices=FORMATS)
    quality: int = option(95, "JPEG quality; the lossless formats do not use it", low=1, high=100)


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """An image file as it is stored, with the size and the hash of the pixels that readers will decode from it."""

    data: bytes
    width: int
    height: int
    pixels_hash: str

    @classmethod
    def from_file(cls, data: bytes, pixels: np.ndarray) -> "EncodedImage":
        """A file and the pixels that it decodes to, uint8 (H, W, 3)."""
        height, width = pixels.shape[:2]
        return cls(data, width, height, pixels_hash(pixels))


def encode(pixels: np.ndarray, config: ImageConfig | None = None, source_type: str = GENERATED) -> bytes:
    """A file of `pixels` (uint8, H x W x 3, RGB) with its IPTC digital source type, a code of `SOURCE_TYPES`.

    `ValueError` names the format and what is wrong with the picture.
    """
    config = config or ImageConfig()
    if config.format not in FORMATS:
        raise ValueError(f"image.format: {config.format!r} is not known; one of {', '.join(FORMATS)} is.")
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise ValueError("the picture has values that are not finite (NaN)")
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise ValueError(
            f"{config.format}: expected uint8 pixels (height, width, 3), got {pixels.dtype} {pixels.shape}."
        )
    packet = _PACKET.format(uri=SOURCE_TYPES + source_type).encode()
    pixels = np.ascontiguousarray(pixels)
    try:
        if config.format == "jpeg":
            body = simplejpeg.encode_jpeg(pixels, quality=config.quality, colorspace="RGB", colorsubsampling="444")
            return _with_xmp(body, packet)
        return _by_pillow(pixels, config.format, packet)
    except (ValueError, OSError) as error:
        raise ValueError(f"{config.format}: {pixels.shape} pixels cannot be written: {error}") from error


def _with_xmp(jpeg: bytes, packet: bytes) -> bytes:
    """A JPEG with an XMP segment after its JFIF header, where readers expect it."""
    start = 2
    if jpeg[2:4] == b"\xff\xe0":
        start += 2 + struct.unpack(">H", jpeg[4:6])[0]
    body = _XMP_NAMESPACE + packet
    return jpeg[:start] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[start:]


def _by_pillow(pixels: np.ndarray, form: str, packet: bytes) -> bytes:
    out = io.BytesIO()
    if form == "png":
        grey = bool((pixels == pixels[:, :, :1]).all())  # one channel then says it all, in a third of the bytes
        image = Image.fromarray(pixels[:, :, 0] if grey else pixels)
        chunks = PngInfo()
        chunks.add_itxt("XML:com.adobe.xmp", packet.decode())
        image.save(out, "PNG", compress_level=1, pnginfo=chunks)
    else:
        Image.fromarray(pixels).save(out, "WEBP", lossless=True, method=0, quality=0, xmp=packet)
    return out.getvalue()


def form_of(body: bytes) -> str | None:
    """One of `FORMATS` by the first bytes of a file, None for any other."""
    if body[:3] == b"\xff\xd8\xff":
        return "jpeg"
    if body[:8] == b"\x89PNG\r\n\x1a\n":
        return "png"
    return "webp" if body[:4] == b"RIFF" and body[8:12] == b"WEBP" else None


def decode(body: bytes, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The pixels of an image file (uint8, H x W x 3, RGB): exactly those whose hash a dataset records.

    Grey, palette and CMYK pictures become RGB, 16-bit ones keep their upper eight bits, transparency is
    dropped, and the orientation stays as stored. `ValueError` names the format and the problem: no known
    image, truncated or damaged data, or more than `max_pixels` pixels, found from the header before anything
    is unpacked.
    """
    form = form_of(body) or "image"
    try:
        if form == "jpeg":
            height, width, colours, _ = simplejpeg.decode_jpeg_header(body)
            _check_size(width, height, max_pixels)
            if colours in ("RGB", "YCbCr", "Gray"):
                return simplejpeg.decode_jpeg(body, colorspace="RGB")
        with Image.open(io.BytesIO(body)) as image:
            form = str(image.format).lower()
            _check_size(*image.size, max_pixels)
            return _rgb(image)
    # Pillow reports damaged files by many types of error, SyntaxError and struct.error of its plugins among
    # them.
    except (
        ValueError,
        OSError,
        SyntaxError,
        EOFError,
        IndexError,
        struct.error,
        Image.DecompressionBombError,
    ) as error:
        raise ValueError(f"{form}: cannot be read: {error or type(error).__name__}") from error


def _check_size(width: int, height: int, most: int) -> None:
    if width * height > most:
        raise ValueError(f"{width} x {height} pixels are more than the {most:,} allowed")


def _rgb(image: Image.Image) -> np.ndarray:
    if image.mode == "L":
        return np.repeat(np.asarray(image)[..., None], 3, axis=2)
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image)
        if values.dtype.kind == "f" or values.min() < 0 or values.max() > 0xFFFF:
            raise ValueError(f"pixels of mode {image.mode} are no picture")
        return np.repeat((values >> 8).astype(np.uint8)[..., None], 3, axis=2)
    return np.array(image.convert("RGB"))


def digital_source_type(body: bytes) -> str | None:
    """The IPTC digital source type that an image file declares, a URI, or None. `ValueError`: it is no image."""
    try:
        with Image.open(io.BytesIO(body)) as image:
            packet = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
    except OSError as error:
        raise ValueError(f"image: cannot be read: {error}") from error
    found = _DECLARED.search(packet.encode() if isinstance(packet, str) else packet)
    return found.group(1).decode("ascii", "replace") if found else None


def square(pixels: np.ndarray, size: int) -> np.ndarray:
    """The square in the middle of a picture (uint8, H x W x 3), resized to uint8 (size, size, 3), antialiased.

    A square of that size comes back as it is, copied. Where the longer side leaves an odd rest, the square is half a
    pixel nearer to the upper left.
    """
    side = min(pixels.shape[:2])
    top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
    return _resized(pixels[top : top + side, left : left + side], size, size)


def grey48(pixels: np.ndarray) -> np.ndarray:
    """A picture (uint8, H x W x 3) as FER2013 would have it, in the same shape.

    Luma (ITU-R BT.601) in all three channels, antialiased to 48 x 48 pixels and back to the picture's size.
    """
    luma = np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).convert("L"))
    small = _resized(luma, _FER2013_SIDE, _FER2013_SIDE)
    return np.repeat(_resized(small, *pixels.shape[:2])[..., None], 3, axis=2)


def _resized(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bicubic; Pillow widens the filter where a picture shrinks, so that nothing is left out."""
    if pixels.shape[:2] == (height, width):
        return pixels.copy()
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.array(image.resize((width, height), Image.Resampling.BICUBIC))
