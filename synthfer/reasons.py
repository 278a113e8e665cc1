"""Why a row has no picture, or is rejected, as it is stored with the row: a function of the input and nothing else.

Libraries put into their messages where an object lies in memory or what a temporary file is called. Two imports of one
picture would then differ in their bytes.
"""

import re
import tempfile

MAX_LENGTH = 500
_OBJECT = re.compile(r"\s?<[^<>]{1,200} at 0x[0-9a-fA-F]+>")
_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{8,16}\b")
_TEMPORARY = re.compile(rf"{re.escape(tempfile.gettempdir())}/[^\s'\":,]+")


def stored_reason(text: str | None) -> str | None:
    """A reason without addresses in memory, temporary paths and line breaks, at most `MAX_LENGTH` characters."""
    if text is None:
        return None
    text = text[: 8 * MAX_LENGTH].encode("utf-8", "replace").decode()
    text = _TEMPORARY.sub("a temporary file", _ADDRESS.sub("0x...", _OBJECT.sub("", text)))
    text = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return text if len(text) <= MAX_LENGTH else f"{text[: MAX_LENGTH - 3]}..."
