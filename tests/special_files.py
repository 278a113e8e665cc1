"""What is no file and stands where a file is expected: it would never end, or wait for ever, if it were read."""

import os
from collections.abc import Callable
from pathlib import Path

SPECIAL_FILES: dict[str, Callable[[Path], None]] = {
    "a named pipe": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a folder": lambda path: path.mkdir(),
    "a link that leads back to itself": lambda path: path.symlink_to(path),
}
"""The kind, in the words of `synthfer.files`, and what puts it at a path where nothing is."""
