"""Image files: pixels survive as promised, origin is declared, and bad input is refused with a reason."""

import io
import struct
import zlib
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from synthfer import images
from synthfer.images import GENERATED, SOURCE_TYPES, ImageConfig, decode, digital_source_type, encode

IPTC_EXTENSION = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"


@pytest.fixture
def face() -> np.ndarray:
    """A smooth picture: JPEG is judged on what it is made for."""
    y, x = np.mgrid[0:48, 0:40].astype(np.float32)
    return np.stack([x * 5, y * 4, 128 + 60 * np.sin(x / 7) * np.cos(y / 9)], axis=-1).astype(np.uint8)


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


@pytest.mark.parametrize("form", images.FORMATS)
def test_pixels_survive_and_bytes_repeat(face: np.ndarray, form: str) -> None:
    body = encode(face, ImageConfig(format=form))
    assert body == encode(np.asfortranarray(face), ImageConfig(format=form))
    back = decode(body)
    assert back.dtype == np.uint8 and back.flags.c_contiguous
    np.testing.assert_array_equal(back, np.asarray(Image.open(io.BytesIO(body)).convert("RGB")))
    if form == "jpeg":
        assert np.abs(back.astype(int) - face).mean() < 1.5
        assert len(encode(face, ImageConfig(quality=50))) < len(body)
    else:
        np.testing.assert_array_equal(back, face)


@pytest.mark.parametrize("form", images.FORMATS)
def test_every_file_declares_its_origin_where_other_readers_look(face: np.ndarray, form: str) -> None:
    body = encode(face, ImageConfig(format=form))
    with Image.open(io.BytesIO(body)) as image:
        image.load()
        packet = image.info["xmp"]
    declared = ElementTree.fromstring(packet).find(".//{*}Description").attrib
    assert declared[f"{{{IPTC_EXTENSION}}}DigitalSourceType"] == SOURCE_TYPES + GENERATED
    assert digital_source_type(body) == SOURCE_TYPES + GENERATED
    edited = encode(face, ImageConfig(format=form), source_type="compositeWithTrainedAlgorithmicMedia")
    assert digital_source_type(edited) == SOURCE_TYPES + "compositeWithTrainedAlgorithmicMedia"


def test_origin_written_as_an_element_is_read_too(face: np.ndarray) -> None:
    element = f"<Iptc4xmpExt:DigitalSourceType>{SOURCE_TYPES}digitalCapture</Iptc4xmpExt:DigitalSourceType>"
    resource = f'<Iptc4xmpExt:DigitalSourceType rdf:resource="{SOURCE_TYPES}digitalCapture"/>'
    for packet in (element, resource):
        assert digital_source_type(saved(Image.fromarray(face), "WEBP", xmp=packet.encode())) == (
            SOURCE_TYPES + "digitalCapture"
        )
    assert digital_source_type(saved(Image.fromarray(face), "PNG")) is None


def test_a_jpeg_of_grey_pixels_keeps_its_three_channels() -> None:
    grey = np.full((16, 16, 3), 128, np.uint8)
    np.testing.assert_array_equal(decode(encode(grey)), grey)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "LA", "I;16"])
def test_other_pictures_become_rgb(face: np.ndarray, mode: str) -> None:
    if mode == "I;16":
        picture = Image.fromarray(face[..., 0].astype(np.uint16) * 257)
        expected = np.repeat(face[..., :1], 3, axis=2)
    else:
        picture = Image.fromarray(face).convert(mode)
        expected = np.asarray(picture.convert("RGB"))
    back = decode(saved(picture, "TIFF" if mode == "CMYK" else "PNG"))
    assert back.shape == face.shape and back.dtype == np.uint8
    np.testing.assert_array_equal(back, expected)


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header announces `width` x `height` pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("width", "height"), [(10_000, 10_000), (100_000, 100_000)])
def test_decompression_bombs_are_refused_from_the_header(width: int, height: int) -> None:
    with pytest.raises(ValueError, match=r"png: cannot be read: .*(allowed|bomb)"):
        decode(bomb(width, height))


def test_the_pixel_limit_is_the_callers(face: np.ndarray) -> None:
    body = encode(face)
    assert decode(body, max_pixels=face.shape[0] * face.shape[1]).shape == face.shape
    with pytest.raises(ValueError, match=r"40 x 48 pixels are more than the 1,919 allowed"):
        decode(body, max_pixels=face.shape[0] * face.shape[1] - 1)


@pytest.mark.parametrize("form", images.FORMATS)
def test_truncated_files_are_never_read_as_good(face: np.ndarray, form: str) -> None:
    body = encode(face, ImageConfig(format=form))
    for length in (0, 3, 20, len(body) // 3, len(body) * 3 // 4):
        with pytest.raises(ValueError, match="cannot be read"):
            decode(body[:length])


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="image: cannot be read"):
        decode(b"no picture at all")
    with pytest.raises(ValueError, match="image: cannot be read"):
        digital_source_type(b"no picture at all")
    floats = saved(Image.fromarray(np.zeros((8, 8), np.float32)), "TIFF")
    with pytest.raises(ValueError, match="tiff: cannot be read: pixels of mode F"):
        decode(floats)


@pytest.mark.parametrize("pixels", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3))])
def test_wrong_pixels_are_refused_with_what_was_expected(pixels: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"jpeg: expected uint8 pixels \(height, width, 3\)"):
        encode(pixels)


def test_a_picture_too_large_for_its_format_names_both() -> None:
    with pytest.raises(ValueError, match=r"webp: \(1, 17000, 3\) pixels cannot be written"):
        encode(np.zeros((1, 17_000, 3), np.uint8), ImageConfig(format="webp"))
    with pytest.raises(ValueError, match=r"jpeg: \(1, 70000, 3\) pixels cannot be written"):
        encode(np.zeros((1, 70_000, 3), np.uint8))
    with pytest.raises(ValueError, match=r"image.format: 'gif' is not known"):
        encode(np.zeros((8, 8, 3), np.uint8), ImageConfig(format="gif"))


def stripes(height: int, width: int) -> np.ndarray:
    """Lines one pixel wide, black and white: a resize that skips pixels keeps them, an antialiased one makes grey."""
    return np.broadcast_to((np.arange(width) % 2 * 255).astype(np.uint8)[None, :, None], (height, width, 3)).copy()


@pytest.mark.parametrize(("height", "width"), [(40, 61), (61, 40), (40, 40)])
def test_a_square_is_cut_from_the_middle(height: int, width: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    top, left = (height - 40) // 2, (width - 40) // 2
    cut = images.square(pixels, 40)
    np.testing.assert_array_equal(cut, pixels[top : top + 40, left : left + 40])
    assert cut.flags.c_contiguous and not np.shares_memory(cut, pixels)


@pytest.mark.parametrize("size", [16, 90])
def test_a_square_is_resized_as_torch_does_it(face: np.ndarray, size: int) -> None:
    functional = pytest.importorskip("torch.nn.functional")
    torch = pytest.importorskip("torch")
    middle = torch.from_numpy(np.ascontiguousarray(face[4:44].transpose(2, 0, 1)))[None].double()
    small = functional.interpolate(middle, (size, size), mode="bicubic", antialias=True)
    expected = small[0].numpy().transpose(1, 2, 0).clip(0, 255)
    made = images.square(face, size)
    assert made.shape == (size, size, 3) and made.dtype == np.uint8
    assert np.abs(made - expected).max() < 2.5  # Pillow rounds between its two passes


def test_shrinking_leaves_nothing_out() -> None:
    small = images.square(stripes(96, 96), 24)
    assert np.abs(small[:, 4:-4].astype(int) - 127).max() <= 3


def test_grey48_has_three_equal_channels_of_luma_and_the_detail_of_48_pixels(face: np.ndarray) -> None:
    flat = np.full((60, 70, 3), (200, 30, 90), np.uint8)
    assert np.abs(images.grey48(flat) - (0.299 * 200 + 0.587 * 30 + 0.114 * 90)).max() <= 1
    made = images.grey48(face)
    assert made.shape == face.shape and made.dtype == np.uint8
    np.testing.assert_array_equal(made, np.repeat(made[:, :, :1], 3, axis=2))
    assert np.abs(images.grey48(stripes(96, 192))[:, 8:-8].astype(int) - 127).max() <= 3


def test_grey48_of_a_48_pixel_picture_is_its_luma() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (48, 48, 3), np.uint8)
    assert np.abs(images.grey48(pixels)[..., 0] - pixels @ np.array([0.299, 0.587, 0.114])).max() <= 1
    np.testing.assert_array_equal(images.grey48(images.grey48(pixels)), images.grey48(pixels))
