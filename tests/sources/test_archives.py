"""Zip archives of strangers: bombs, lies, links and damage name archive and member, and the rest is read."""

import contextlib
import re
import struct
import tracemalloc
import zipfile
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthfer.sources import archives
from synthfer.sources.collection_reader import MAX_BYTES, CollectionReader
from synthfer.sources.digiface import Config, find
from synthfer.sources.entry import ImageRef, SourceError
from tests.sources.images import pack, png
from tests.special_files import SPECIAL_FILES

NAME = "subjects_0-1999_72_imgs.zip"
GOOD = png(0)


def local(name, data, *, method=0, size=None, packed=None, crc=None, flags=0, extra=b""):
    """A member as it stands in the archive."""
    fields = (
        20,
        flags,
        method,
        0,
        0,
        zlib.crc32(data) if crc is None else crc,
        len(data) if packed is None else packed,
    )
    whole = len(data) if size is None else size
    return b"PK\x03\x04" + struct.pack("<5H3L2H", *fields, whole, len(name), len(extra)) + name + extra + data


def central(name, data, offset, *, method=0, size=None, packed=None, crc=None, flags=0, extra=b"", mode=0, version=20):
    """A member as the directory lists it."""
    fields = (20, version, flags, method, 0, 0, zlib.crc32(data) if crc is None else crc)
    sizes = (len(data) if packed is None else packed, len(data) if size is None else size)
    rest = (len(name), len(extra), 0, 0, 0, mode << 16, offset)
    return b"PK\x01\x02" + struct.pack("<6H3L5H2L", *fields, *sizes, *rest) + name + extra


def end(directory, at, *, size=None, count=1, comment=b""):
    length = len(directory) if size is None else size
    return b"PK\x05\x06" + struct.pack("<4H2LH", 0, 0, count, count, length, at, len(comment)) + comment


def archive(*members, **changes):
    """An archive of (name, data, changes of the directory); `changes` are those of its end."""
    body, directory = b"", b""
    for name, data, change in members:
        both = {key: change.pop(key) for key in ("method", "flags") if key in change}
        offset = change.pop("offset", len(body))
        directory += central(name, data, offset, **both, **change)
        body += local(name, data, **both)
    return body + directory + end(directory, len(body), count=len(members), **changes)


def deflated(data):
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


BOMB = deflated(bytes(2**22))
OK = (b"0/0.png", GOOD, {})


def bad(data=GOOD, name=b"0/1.png", **change):
    return archive((b"0/0.png", GOOD, {}), (name, data, change))


# name -> archive, what the reason of the bad member says; it is listed as failed, or fails when it is read
MEMBERS = {
    "a bomb by ratio": (bad(BOMB, method=8, size=2**22, crc=zlib.crc32(bytes(2**22))), "times its size"),
    "a bomb that claims to be small": (bad(BOMB, method=8, size=1000), "cannot be unpacked"),
    "10 GB by the directory": (bad(size=2**32 - 2), "would unpack to 4,294,967,294 bytes"),
    "more than it holds": (bad(size=len(GOOD) + 10, packed=len(GOOD) + 10), "cannot be unpacked|shares bytes"),
    "less than it holds": (bad(size=10, packed=10), "cannot be unpacked"),
    "a wrong checksum": (bad(crc=1), "cannot be unpacked: Bad CRC"),
    "an offset beyond the file": (bad(offset=10**9), "cannot be unpacked"),
    "an offset into a picture": (bad(offset=50), "shares bytes with another"),
    "an offset of another member": (bad(offset=0), "shares bytes with another"),
    "an encrypted member": (bad(flags=1), "is encrypted"),
    "strong encryption": (bad(flags=0x41), "is encrypted"),
    "a patch": (bad(flags=0x20), "cannot be unpacked"),
    "a link to /etc/passwd": (bad(b"/etc/passwd", mode=0o120777), "is a link"),
    "bzip2": (bad(method=12), "neither stored nor deflated"),
    "lzma": (bad(method=14), "neither stored nor deflated"),
    "zstd": (bad(method=93), "neither stored nor deflated"),
    "an unknown method": (bad(method=99), "neither stored nor deflated"),
    "deflate that is none": (bad(b"\xff" * 100, method=8, size=500), "cannot be unpacked"),
    "deflate cut off": (bad(deflated(GOOD)[:-20], method=8, size=len(GOOD), crc=zlib.crc32(GOOD)), "be unpacked"),
    "a zip in a zip": (bad(archive(OK)), None),
    "another subject": (bad(name=b"5000/1.png"), "subject 5000 does not belong"),
    "a long name of digits": (bad(name=b"0" * 300 + b"/1.png"), None),
    "a name with a line break": (bad(name=b"x\ny/0/1.png"), None),
}  # fmt: skip


def rows(folder, body):
    """The rows of an archive, those that are listed well also read."""
    (folder / NAME).write_bytes(body)
    reader, result = CollectionReader(folder), {}
    for entry in find(folder, Config()).entries:
        try:
            result[entry.key] = reader.read(entry.image) if entry.image else entry.reason
        except ValueError as error:
            result[entry.key] = str(error)
    return result


@pytest.mark.parametrize("case", MEMBERS)
@pytest.mark.timeout(20)
def test_a_hostile_member_fails_alone(tmp_path, case):
    body, says = MEMBERS[case]
    read = rows(tmp_path, body)
    overlaps = case in ("an offset into a picture", "an offset of another member")
    assert read["0/0.png"] == GOOD if not overlaps else GOOD not in read.values()
    reasons = [reason for reason in read.values() if isinstance(reason, str)]
    if says is None:
        return
    assert reasons
    for reason in reasons:
        assert str(tmp_path) not in reason and ".png" in reason
    assert re.search(says, reasons[-1]), reasons


HUGE = 200 * 2**20
ARCHIVES = {
    "nothing": b"",
    "text": b"not a zip at all",
    "cut off in a member": bad()[:60],
    "cut off in the directory": bad()[:-40],
    "without its end": bad()[:-22],
    "a directory that is elsewhere": archive(OK, size=10),
    "a directory larger than the file": archive(OK, size=2**31),
    "a directory that is too large": b"\0" * 100 + end(b"", 0, size=HUGE),
    "an end that is all ones": b"PK\x05\x06" + b"\xff" * 18,
    "a zip64 end that points nowhere": (
        b"PK\x06\x07" + struct.pack("<LQL", 0, 2**62, 1) + b"PK\x05\x06" + b"\xff" * 16 + b"\0\0"
    ),
    "a zip64 end that lies": (
        b"PK\x06\x06" + struct.pack("<Q2H2L4Q", 44, 45, 45, 0, 0, 2**60, 2**60, 2**60, 2**60)
        + b"PK\x06\x07" + struct.pack("<LQL", 0, 0, 1) + b"PK\x05\x06" + b"\xff" * 16 + b"\0\0"
    ),
    "zip64 sizes that are cut off": bad(size=2**32 - 1, packed=2**32 - 1, extra=struct.pack("<2HL", 1, 4, 0)),
    "extra fields that are longer than they are": bad(size=2**32 - 1, extra=struct.pack("<2H", 1, 60_000)),
    "a name that is not UTF-8": bad(name=b"\xff\xfe/1.png", flags=0x800),
    "a member of a version to come": bad(version=200),
}  # fmt: skip


@pytest.mark.parametrize("case", ARCHIVES)
@pytest.mark.timeout(20)
def test_a_hostile_archive_is_one_failed_row_that_names_it_and_the_others_are_read(tmp_path, case):
    other = pack(tmp_path / "subjects_2000-3999_72_imgs.zip", {"2000/0.png": png(1)})
    assert other.is_file()
    tracemalloc.start()
    read = rows(tmp_path, ARCHIVES[case])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 32 * 2**20
    assert read["2000/0.png"] == png(1)
    reasons = [reason for reason in read.values() if isinstance(reason, str)]
    assert len(reasons) == 1 and NAME in reasons[0] and str(tmp_path) not in reasons[0]
    assert len(reasons[0]) < 400


def test_a_directory_that_is_too_large_is_not_read(tmp_path):
    with (tmp_path / "x.zip").open("wb") as file:  # a sparse file
        file.truncate(HUGE)
        file.seek(HUGE)
        file.write(end(b"", 0, size=HUGE))
    with pytest.raises(ValueError, match="its directory has 209,715,200 bytes; no more than 67,108,864 are read"):
        archives.open_zip(tmp_path / "x.zip")


def test_a_directory_of_very_many_members_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_MEMBERS", 1000)
    directory = central(b"", b"", 0) * 1001
    (tmp_path / NAME).write_bytes(local(b"", b"") + directory + end(directory, 30, count=1))  # the count is a lie
    (entry,) = find(tmp_path, Config()).entries
    assert "its directory lists more than 1,000 members" in entry.reason


def test_names_of_64_kb_are_cut_where_they_are_shown(tmp_path):
    long = b"x" * 60_000 + b"/0/1.png"
    read = rows(tmp_path, bad(name=long, crc=1))
    (reason,) = (reason for reason in read.values() if isinstance(reason, str))
    assert len(reason) < 600


def test_a_comment_that_hides_another_directory_shows_what_is_read(tmp_path):
    inner = archive((b"7/7.png", png(7), {}))
    outer = archive(OK, comment=inner)
    read = rows(tmp_path, outer)
    assert list(read.values()) in ([GOOD], [png(7)])


@pytest.mark.parametrize("name", [b"../0/1.png", b"/0/1.png", b"C:/0/1.png", b"..\\0\\1.png", b"0/../../1.png"])
def test_a_name_that_leaves_the_archive_refuses_it(tmp_path, name):
    (tmp_path / NAME).write_bytes(bad(name=name))
    with pytest.raises(SourceError, match=rf"{NAME} is refused: the path .* leaves the collection"):
        find(tmp_path, Config())


KINDS = SPECIAL_FILES | {"a link to nothing": lambda path: path.symlink_to(path.with_name("none"))}


@pytest.mark.parametrize("case", KINDS)
@pytest.mark.timeout(20)
def test_what_is_no_file_is_not_opened(tmp_path, case):
    KINDS[case](tmp_path / NAME)
    pack(tmp_path / "subjects_2000-3999_72_imgs.zip", {"2000/0.png": png(1)})
    entries = list(find(tmp_path, Config()).entries)
    assert [entry.key for entry in entries if entry.image] == ["2000/0.png"]
    (reason,) = (entry.reason for entry in entries if not entry.image)
    assert NAME in reason and str(tmp_path) not in reason
    with pytest.raises((ValueError, FileNotFoundError), match=NAME):
        CollectionReader(tmp_path).read(ImageRef("zip", NAME, name="0/0.png"))


WHOLE = bad(deflated(png(1)), method=8, size=len(png(1)), crc=zlib.crc32(png(1)))


@settings(derandomize=False, deadline=None, max_examples=300)
@given(data=st.data())
def test_a_damaged_archive_is_read_or_refused(tmp_path_factory, data):
    body = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(body) - 1) | st.integers(len(body) - 140, len(body) - 1))
        body[at] = data.draw(st.sampled_from([0, 1, 127, 128, 255]) | st.integers(0, 255))
    path = tmp_path_factory.mktemp("zip") / "x.zip"
    path.write_bytes(body)
    try:
        with archives.open_zip(path) as opened:
            members = opened.infolist()
            reasons = archives.refusals(members, MAX_BYTES)
            for member, reason in zip(members, reasons, strict=True):
                if reason is None:
                    archives.read_member(opened, member.filename, MAX_BYTES)
    except ValueError as error:
        assert str(error) and "0x" not in str(error)


@settings(derandomize=False, deadline=None, max_examples=100)
@given(st.binary(max_size=300))
def test_any_bytes_are_an_archive_or_an_error(tmp_path_factory, body):
    path = tmp_path_factory.mktemp("zip") / "x.zip"
    path.write_bytes(body + end(b"", 0))
    with contextlib.suppress(ValueError):
        archives.open_zip(path).close()


def test_python_reads_the_archives_that_these_tests_write(tmp_path):
    (tmp_path / NAME).write_bytes(WHOLE)
    with zipfile.ZipFile(tmp_path / NAME) as read:
        assert read.testzip() is None
    assert rows(tmp_path, WHOLE) == {"0/0.png": GOOD, "0/1.png": png(1)}
