"""Images for the tests of sources: noise by seed, so that each differs from all others in its pixels."""

import io
import zipfile

import numpy as np
from PIL import Image

from synthfer.images import decode
from synthfer.sources.collection_reader import CollectionReader

SMALL = (8, 8, 3)
GREY = (48, 48)
"""Shapes: any colour image, and one as FER2013 and the CSV of CK+ have them."""


def pixels(seed, shape=SMALL):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def png(seed, shape=SMALL):
    out = io.BytesIO()
    Image.fromarray(pixels(seed, shape)).save(out, "PNG")
    return out.getvalue()


def save(file, seed=0, shape=SMALL):
    """A PNG whatever its name ends in, since that is lossless; gives the pixels."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(png(seed, shape))
    return pixels(seed, shape)


def cell(seed):
    """The grey image as a cell of a CSV."""
    return " ".join(map(str, pixels(seed, GREY).ravel()))


def read(root, entry):
    """The pixels of an entry's image."""
    image = CollectionReader(root).read(entry.image)
    return decode(image) if isinstance(image, bytes) else image


def shows(root, entry, seed, shape=SMALL):
    """Whether an entry's image is the one of a seed; grey ones are read as equal red, green and blue."""
    expected = pixels(seed, shape)
    return np.array_equal(read(root, entry), expected if expected.ndim == 3 else np.repeat(expected[..., None], 3, 2))


def pack(path, members, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, body in members.items():
            archive.writestr(name, body)
    return path
