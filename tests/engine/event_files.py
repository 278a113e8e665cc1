"""TensorBoard's event files, read as TensorBoard reads them."""

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tensorboardX.proto.event_pb2 import Event, SessionLog

from synthfer import images


def events(path: Path) -> Iterator[Event]:
    """The records of a file: length (uint64), its checksum, the message, its checksum."""
    body, at = path.read_bytes(), 0
    while at < len(body):
        (length,) = struct.unpack_from("<Q", body, at)
        yield Event.FromString(body[at + 12 : at + 12 + length])
        at += 16 + length


def scalars(folder: Path) -> dict[str, list[tuple[int, np.float32]]]:
    """(step, value) by tag, files in the order of their names; a restart takes back what came at its step or later."""
    found: dict[str, list[tuple[int, np.float32]]] = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        for event in events(path):
            if event.session_log.status == SessionLog.START:
                found = {tag: [one for one in told if one[0] < event.step] for tag, told in found.items()}
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, np.float32(value.simple_value)))
    return found


def pictures(folder: Path) -> dict[str, list[tuple[int, np.ndarray]]]:
    """(step, uint8 (H, W, 3)) by tag, files in the order of their names."""
    found: dict[str, list[tuple[int, np.ndarray]]] = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        for event in events(path):
            for value in event.summary.value:
                if value.HasField("image"):
                    pixels = images.decode(value.image.encoded_image_string)
                    found.setdefault(value.tag, []).append((event.step, pixels))
    return found
