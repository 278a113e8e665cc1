"""Pictures of strangers: each kind of bomb, damage and disguise is one `ValueError` in the file's own words."""

import io
import re
import struct
import tracemalloc
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from synthfer.image_files import MAX_PIXELS, MAX_PNG_NOTES, MAX_SCANS, check_scans, form_of
from synthfer.images import decode, digital_source_type

FORMATS = {"jpeg": "JPEG", "png": "PNG", "webp": "WEBP", "bmp": "BMP", "gif": "GIF", "tiff": "TIFF", "ppm": "PPM"}
SIDE = 24


def picture(mode="RGB"):
    y, x = np.mgrid[:SIDE, :SIDE]
    return Image.fromarray(np.stack([x * 9, y * 9, 90 + x + y], axis=-1).astype(np.uint8)).convert(mode)


def saved(form, mode="RGB", **options):
    out = io.BytesIO()
    picture(mode).save(out, form, **options)
    return out.getvalue()


def chunk(kind, body, length=None):
    crc = zlib.crc32(kind + body)
    return struct.pack(">I", len(body) if length is None else length) + kind + body + struct.pack(">I", crc)


def png(*inner, width=SIDE, height=SIDE, interlace=0, pixels=None):
    """A PNG of chunks `inner`, after which its pixels stand."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, interlace)
    data = zlib.compress(bytes((3 * SIDE + 1) * SIDE)) if pixels is None else pixels
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + b"".join(inner) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def progressive(scans):
    body = saved("JPEG", progressive=True)
    last = body.rindex(b"\xff\xda")
    return body[:-2] + body[last:-2] * scans + body[-2:]


def segments(count):
    body = saved("JPEG", "CMYK")
    return body[:2] + b"\xff\xfe\x00\x02" * count + body[2:]


def changed(body, at, data):
    return body[:at] + data + body[at + len(data) :]


def jpeg_of_size(width, height, mode="RGB"):
    body = saved("JPEG", mode)
    start = re.search(rb"\xff\xc0..\x08", body, re.DOTALL).end()
    return changed(body, start, struct.pack(">HH", height, width))


def webp_of_size(width, height):
    body = saved("WEBP", exif=b"Exif\0\0II*\0")  # an extended file, with a canvas
    size = b"".join((n - 1).to_bytes(3, "little") for n in (width, height))
    return changed(body, 24, size)


def tiff(*tags, big=False):
    """A TIFF of (tag, type, count, value) whose pixels stand nowhere."""
    if big:
        return b"II+\0" + struct.pack("<HHQQ", 8, 0, 16, len(tags)) + b"".join(struct.pack("<HHQQ", *t) for t in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(struct.pack("<HHII", *t) for t in tags) + bytes(4)


def with_exif(form, exif, mode="RGB"):
    return saved(form, mode, exif=b"Exif\0\0" + exif)


TIFF_SIZE = ((256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 1, 8), (262, 3, 1, 1))
TEXT = b"x\0\0" + zlib.compress(bytes(4 * 2**20))
ITXT = b"x\0\x01\0\0\0" + zlib.compress(bytes(4 * 2**20))


def whole_numbers(dtype):
    """A TIFF of grey 0..255 as numbers of another width."""
    out = io.BytesIO()
    Image.fromarray(np.asarray(picture("L")).astype(dtype)).save(out, "TIFF")
    return out.getvalue()


def retagged(body, tag, value):
    """A TIFF in whose directory the first value of a tag is another."""
    return re.sub(struct.pack("<HHI", tag, 3, 1) + b"..", struct.pack("<HHIH", tag, 3, 1, value), body, flags=re.DOTALL)


# name -> file, what the reason says
REFUSED = {
    "no bytes": (b"", "none of JPEG"),
    "text": (b"no picture at all", "none of JPEG"),
    "a web page": (b"<!DOCTYPE html><html>", "none of JPEG"),
    "zeros": (bytes(1000), "none of JPEG"),
    "EPS, which would run ghostscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "none of"),
    "PSD": (b"8BPS\0\x01" + bytes(6) + struct.pack(">HIIHH", 3, 10**5, 10**5, 8, 3), "none of JPEG"),
    "ICO": (saved("ICO"), "none of JPEG"),
    "TGA": (saved("TGA"), "none of JPEG"),
    "SGI": (saved("SGI"), "none of JPEG"),
    "PCX": (saved("PCX"), "none of JPEG"),
    "JPEG 2000": (saved("JPEG2000"), "none of JPEG"),
    "WMF": (b"\xd7\xcd\xc6\x9a\x00\x00" + bytes(100), "none of JPEG"),
    "PDF": (b"%PDF-1.4\n", "none of JPEG"),
    "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "none of JPEG"),
    "RIFF that is a WAV": (b"RIFF\0\0\0\0WAVE" + bytes(30), "none of JPEG"),
    "PPM in words": (b"P3 2 2 255 " + b"1 " * 12, "none of JPEG"),
    "PFM": (b"PF 2 2 -1.0 " + bytes(48), "none of JPEG"),
    "JPEG of 65,000 x 65,000": (jpeg_of_size(65_000, 65_000), "more than the 40,000,000 allowed"),
    "JPEG of 8192 x 8192": (jpeg_of_size(8192, 8192), "8192 x 8192 pixels are more than"),
    "CMYK JPEG of 65,000 x 65,000": (jpeg_of_size(65_000, 65_000, "CMYK"), "pixels are more than"),
    "PNG of 2^31 x 2^31": (png(width=2**31 - 1, height=2**31 - 1), "pixels are more than"),
    "PNG of 8192 x 8192": (png(width=8192, height=8192), "8192 x 8192 pixels are more than"),
    "interlaced PNG of 8192 x 8192": (png(width=8192, height=8192, interlace=1), "pixels are more than"),
    "WebP of 16,000 x 16,000": (webp_of_size(16_000, 16_000), "16000 x 16000 pixels are more than"),
    "WebP of 2^24 x 2^24": (webp_of_size(2**24, 2**24), "pixels are more than"),
    "lossless WebP of 16,000 x 16,000": (
        b"RIFF" + struct.pack("<I", 30) + b"WEBPVP8L" + struct.pack("<IB", 10, 0x2F)
        + struct.pack("<I", 15_999 | 15_999 << 14) + bytes(20),
        "16000 x 16000 pixels are more than",
    ),
    "GIF of 65,535 x 65,535": (changed(saved("GIF"), 6, b"\xff" * 4), "pixels are more than"),
    "GIF whose frame is larger than its screen": (
        re.sub(rb",\0\0\0\0....", b"," + bytes(4) + b"\xff" * 4, saved("GIF"), flags=re.DOTALL), "gif: cannot be read"
    ),
    "BMP of 10^5 x 10^5": (changed(saved("BMP"), 18, struct.pack("<ii", 10**5, 10**5)), "pixels are more than"),
    "BMP of negative size": (changed(saved("BMP"), 18, struct.pack("<ii", -5, 5)), "bmp: cannot be read"),
    "BMP with run lengths": (changed(saved("BMP", "L"), 30, struct.pack("<I", 1)), "it is compressed"),
    "PGM of 10^9 x 10^9": (b"P5 1000000000 1000000000 255 ", "none of a binary|pixels are more than"),
    "PGM of 10^8 x 10^8": (b"P5 100000000 100000000 255 ", "pixels are more than"),
    "PGM whose comment does not end": (b"P5 #" + b"x" * 2**20, "its header is none of"),
    "PGM of negative size": (b"P5 -2 -2 255 \0\0\0\0", "its header is none of"),
    "TIFF of 10^6 x 10^6": (tiff((256, 4, 1, 10**6), (257, 4, 1, 10**6), (262, 3, 1, 1)), "tiff: cannot be read"),
    "TIFF of 2^32 strips": (tiff(*TIFF_SIZE, (273, 4, 2**32 - 1, 8)), "its directory lists 4,294,967"),
    "TIFF of 300,001 strips": (tiff(*TIFF_SIZE, (273, 4, 300_001, 8)) + bytes(2**21), "its directory lists 300,0"),
    "TIFF of tags that share bytes": (
        tiff(*TIFF_SIZE, *((40_000 + i, 7, 2**19, 0) for i in range(100))) + bytes(2**19), "its directory lists"
    ),
    "TIFF whose directory is nowhere": (b"II*\0" + struct.pack("<I", 2**32 - 1), "tiff: cannot be read"),
    "TIFF without tags": (tiff(), "tiff: cannot be read"),
    "TIFF of tiles as large as the world": (
        tiff(*TIFF_SIZE, (259, 3, 1, 8), (322, 4, 1, 2**31), (323, 4, 1, 2**31), (324, 4, 1, 8), (325, 4, 1, 9)),
        "tiff: cannot be read",
    ),
    "BigTIFF of 2^63 tags": (b"II+\0" + struct.pack("<HHQQ", 8, 0, 16, 2**63), "tiff: cannot be read"),
    "BigTIFF of 2^60 strips": (tiff(*TIFF_SIZE, (273, 16, 2**60, 8), big=True), "its directory lists"),
    "progressive JPEG of 101 more scans": (progressive(MAX_SCANS + 1), "24 x 24 pixels are more than the 100"),
    "progressive JPEG of 5,000 more scans": (progressive(5000), "scans over 24 x 24 pixels"),
    "JPEG of 20,000 segments": (segments(20_000), "more than 10,000 segments"),
    "JPEG without tables": (b"\xff\xd8\xff\xd9", "jpeg: cannot be read"),
    "JPEG of two bytes more": (b"\xff\xd8\xff\xe0\x00", "jpeg: cannot be read"),
    "JPEG whose scan is cut off": (saved("JPEG")[:-60], "jpeg: cannot be read"),
    "PNG of 5,000 notes": (png(chunk(b"tEXt", b"a\0b") * (MAX_PNG_NOTES + 1)), "more than 1,000 chunks beside"),
    "PNG of 5,000 unpacked profiles": (png(chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(9))) * 5000), "1,000 chunks"),
    "PNG of text that unpacks to 4 MB": (png(chunk(b"zTXt", TEXT)), "png: cannot be read"),
    "PNG of a profile that unpacks to 4 MB": (png(chunk(b"iCCP", TEXT)), "png: cannot be read"),
    "PNG of long text": (png(chunk(b"tEXt", b"a\0" + bytes(2**21)))[: 2**20], "png: cannot be read"),
    "PNG of a chunk that ends nowhere": (png(chunk(b"tEXt", b"a\0b", 2**31 - 1)), "png: cannot be read"),
    "PNG of a wrong checksum": (changed(saved("PNG"), 20, b"\0\0\0\x17"), "png: cannot be read"),
    "PNG without pixels": (png(pixels=b""), "png: cannot be read"),
    "PNG of pixels that are no deflate": (png(pixels=b"\xff" * 50), "png: cannot be read"),
    "PNG of width 0": (png(width=0), "png: cannot be read"),
    "PNG whose header is cut off": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "png: cannot be read"),
    "WebP cut off": (saved("WEBP")[:60], "webp: cannot be read"),
    "WebP of nothing": (b"RIFF\x04\0\0\0WEBP", "webp: cannot be read"),
    "WebP of another length": (changed(saved("WEBP"), 4, b"\xff\xff\xff\x7f"), "webp: cannot be read"),
    "GIF without a picture": (saved("GIF")[:13] + b";", "gif: cannot be read"),
    "GIF cut off": (saved("GIF")[:820], "gif: cannot be read"),
    "GIF of 9 MiB of comments": (saved("GIF")[:13] + b"!\xfe\0" * (3 * 2**20), "more than the 8,388,608 allowed"),
    "PPM without pixels": (b"P6 8 8 255\n", "ppm: cannot be read"),
    "TIFF of numbers that are no pixels": (saved("TIFF", "F"), "pixels of mode F are no picture"),
    "TIFF of int32": (whole_numbers(np.int32), "pixels of mode I are no picture"),
    "TIFF of uint32": (retagged(whole_numbers(np.int32), 339, 1), "pixels of mode I are no picture"),
    "TIFF of int16": (retagged(whole_numbers(np.int32), 258, 16), "pixels of mode I are no picture"),
    "TIFF of 12 bits": (retagged(whole_numbers(np.uint16), 258, 12), "pixels of mode I;16 are no picture"),
    "PPM of 22 million pixels up to 127": (b"P6 5590 4000 127\n" + b"\x40" * 2**20, "up to 127, not 255"),
    "PGM up to 254": (b"P5 2 1 254\n" + bytes(2), "up to 254, not 255"),
    "PGM up to 1": (b"P5 2 1\n# by hand\n1\n" + bytes(2), "up to 1, not 255"),
    "PGM up to 0": (b"P5 2 1 0\n" + bytes(2), "up to 0, not 255"),
    "PGM up to 65534": (b"P5 2 1 65534\n" + bytes(4), "up to 65534, not 255"),
    "PPM up to 65535": (b"P6 2 1 65535\n" + bytes(12), "up to 65535, not 255"),
    "PGM whose values have no end": (b"P5 2 1 ", "its header is none of"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.timeout(20)
def test_what_is_no_picture_or_too_much_of_one_is_refused_in_words_of_its_own(case):
    body, says = REFUSED[case]
    reasons = set()
    tracemalloc.start()
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for _ in range(2):
            with pytest.raises(ValueError, match=r"^\w+: cannot be read: ") as caught:
                decode(body)
            reasons.add(str(caught.value))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 * 2**20
    (reason,) = reasons
    assert re.search(says, reason) and "object at" not in reason and "\n" not in reason, reason
    assert len(reason) < 300


READ = {
    "progressive JPEG": saved("JPEG", progressive=True),
    "progressive JPEG without its last scans": progressive(0),
    "JPEG in one scan": saved("JPEG"),
    "grey JPEG": saved("JPEG", "L"),
    "CMYK JPEG": saved("JPEG", "CMYK"),
    "CMYK JPEG with a whole TIFF in its Exif": with_exif("JPEG", tiff(*TIFF_SIZE), "CMYK"),
    "CMYK JPEG whose Exif lists 2^32 values": with_exif("JPEG", tiff((282, 5, 2**32 - 1, 8)), "CMYK"),
    "PNG of grey": saved("PNG", "L"),
    "PNG of a palette": saved("PNG", "P"),
    "PNG of a text": png(chunk(b"tEXt", b"a\0b")),
    "PNG of 10,000 frames": png(chunk(b"acTL", struct.pack(">II", 10_000, 0))),
    "PNG with more pixels than it has": png(pixels=zlib.compress(bytes(2**22))),
    "animated GIF": saved("GIF", save_all=True, append_images=[picture().rotate(90 * i) for i in range(20)]),
    "animated WebP": saved("WEBP", save_all=True, append_images=[picture().rotate(90 * i) for i in range(20)]),
    "lossless WebP": saved("WEBP", lossless=True),
    "packed TIFF": saved("TIFF", compression="tiff_lzw"),
    "BMP": saved("BMP"),
    "PPM with a comment": b"P6\n# by hand\n2 1\n255\n" + bytes(6),
    "PGM": saved("PPM", "L"),
}


SIXTEEN_BITS = {
    "PNG": ("PNG", "<u2"),
    "TIFF": ("TIFF", "<u2"),
    "TIFF of big numbers first": ("TIFF", ">u2"),
    "PGM": ("PPM", "<i4"),
}


@pytest.mark.parametrize("case", SIXTEEN_BITS)
def test_grey_of_16_bits_keeps_its_upper_eight(case):
    form, dtype = SIXTEEN_BITS[case]
    grey, out = np.arange(0, 65536, 113, np.uint16)[: SIDE**2].reshape(SIDE, SIDE), io.BytesIO()
    Image.fromarray(grey.astype(dtype)).save(out, form)
    np.testing.assert_array_equal(decode(out.getvalue()), np.repeat((grey >> 8).astype(np.uint8)[..., None], 3, 2))


@pytest.mark.parametrize("case", READ)
def test_healthy_pictures_of_all_formats_are_read(case):
    pixels = decode(READ[case])
    assert pixels.dtype == np.uint8 and pixels.shape[2] == 3
    assert READ[case][:2] == b"P6" or pixels.shape == (SIDE, SIDE, 3)


def test_the_first_frame_of_an_animation_is_the_picture():
    body = READ["animated GIF"]
    with Image.open(io.BytesIO(body)) as image:
        np.testing.assert_array_equal(decode(body), np.array(image.convert("RGB")))


def test_scans_over_many_pixels_are_fewer():
    check_scans(progressive(10), 6000, 6000)
    with pytest.raises(ValueError, match="more than the 27 allowed"):
        check_scans(progressive(60), 6000, 6000)
    assert MAX_PIXELS > 6000 * 6000


def test_a_preview_inside_a_jpeg_is_none_of_its_scans():
    body = saved("JPEG")
    preview = (b"\xff\xda\x00\x02" * 10_000)[: 2**15]
    decode(body[:2] + b"\xff\xe5" + struct.pack(">H", len(preview) + 2) + preview + body[2:])


@pytest.mark.parametrize("form", FORMATS)
@settings(derandomize=False, deadline=None, max_examples=60)
@given(data=st.data())
def test_a_damaged_picture_is_read_or_refused(form, data):
    body = bytearray(saved(FORMATS[form]))
    assert form_of(bytes(body)) == form
    for _ in range(data.draw(st.integers(1, 6))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    body = bytes(body[: data.draw(st.integers(0, len(body)))] if data.draw(st.booleans()) else body)
    for read in (decode, digital_source_type):
        try:
            read(body)
        except ValueError as error:
            assert "cannot be read" in str(error) and "object at" not in str(error)


@settings(derandomize=False, deadline=None, max_examples=150)
@given(
    start=st.sampled_from(
        [b"", *(saved(form)[:4] for form in FORMATS.values()), b"RIFF\0\0\0\0WEBPVP8X", b"P5 ", b"II+\0"]
    ),
    rest=st.binary(max_size=200),
)
def test_any_bytes_are_a_picture_or_an_error(start, rest):
    try:
        decode(start + rest)
    except ValueError as error:
        assert "cannot be read" in str(error)


PACKETS = {
    "the word again and again": b"DigitalSourceType " * 15_000,
    "the word and no end": b"DigitalSourceType" * 15_000,
    "the word and spaces": b"DigitalSourceType" + b" " * 2**18,
    "resources without an end": b"DigitalSourceType" + b" rdf:resource" * 20_000,
    "words with resources": b"DigitalSourceType rdf:resource  " * 8000,
    "a value that does not end": b'DigitalSourceType="' + b"x" * 2**18,
    "brackets": b"<" * 2**18,
}


@pytest.mark.parametrize("case", PACKETS)
@pytest.mark.timeout(10)
def test_metadata_is_searched_in_time_that_grows_with_its_size_alone(case):
    assert digital_source_type(saved("WEBP", xmp=PACKETS[case])) is None
