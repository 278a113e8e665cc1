"""Places that cannot be written, output that nobody reads, memory and disks that are full: one line, no traceback."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from synthfer import cli
from synthfer.__main__ import commands
from synthfer.failures import explain
from synthfer.files import check_output, write_file
from synthfer.store.backends import open_output
from tests.small_command import Config, call

# The tests may run as root, whom no permission stops: files in the way, devices and /proc stop root, too.
PLACES = {
    "below a file": "file/out",
    "deep below a file": "file/a/b/c",
    "a device": "/dev/full",
    "below a device": "/dev/null/out",
    "below /proc": "/proc/out",
    "a named pipe": "pipe",
    "below a named pipe": "pipe/out",
    "a link back to itself": "loop",
    "below a link back to itself": "loop/out",
    "a name of 5,000 characters": "a" * 5000,
    "a name of 300 characters": "a" * 300,
    "below a link to nowhere's file": "dangling/out",
}


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    (tmp_path / "file").write_text("here first")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "dangling").symlink_to("/dev/null")
    text = PLACES[request.param]
    return text if text.startswith("/") else f"{tmp_path}/{text}"


every_place = pytest.mark.parametrize("place", PLACES, indirect=True)


def refused(capsys: pytest.CaptureFixture[str], words: list[str], job: cli.Command | None = None) -> str:
    code, error, written = call(capsys, *words, "--verbose", job=job)
    assert code == cli.WRONG_INPUT, error
    assert "Traceback" not in written and len(error) < 700
    return error


@every_place
def test_a_store_says_early_that_it_cannot_be_written(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    def job(config: Config, _: cli.Invocation) -> cli.Outcome:
        open_output(config.out)
        return cli.Outcome()

    error = refused(capsys, [f"out={place}"], cli.Command(Config, job))
    assert place[:40] in error or "/dev/null" in error


@every_place
def test_a_file_says_early_that_it_cannot_be_written(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    def job(config: Config, _: cli.Invocation) -> cli.Outcome:
        check_output(config.out)
        return cli.Outcome()

    error = refused(capsys, [f"out={place}"], cli.Command(Config, job))
    assert place[:40] in error or "/dev/null" in error


@every_place
def test_no_file_is_written_there(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    def job(config: Config, _: cli.Invocation) -> cli.Outcome:
        write_file(config.out, b"page")
        return cli.Outcome()

    refused(capsys, [f"out={place}"], cli.Command(Config, job))


def test_a_file_is_replaced_whole_and_nothing_stays_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a" / "page.html"
    write_file(path, b"old")
    link = tmp_path / "link.html"
    link.symlink_to(path)
    assert check_output(link) == link and path.read_bytes() == b"old"
    write_file(link, b"new")
    assert path.read_bytes() == b"new" and link.is_symlink()
    assert [entry.name for entry in path.parent.iterdir()] == ["page.html"]


def test_a_store_that_can_be_written_stays_empty(tmp_path: Path) -> None:
    assert not list(open_output(f"{tmp_path}/out").list())


ERRORS: dict[str, tuple[Exception, int, str]] = {
    "no permission": (PermissionError(errno.EACCES, "Permission denied", "/etc/x"), 2, "/etc/x: Permission denied"),
    "not permitted": (PermissionError(errno.EPERM, "Operation not permitted", "/x"), 2, "/x: Operation not permitted"),
    "read-only": (OSError(errno.EROFS, "Read-only file system", "/ro/x"), 2, "/ro/x: Read-only"),
    "not there": (FileNotFoundError(errno.ENOENT, "No such file or directory", "/x"), 2, "/x: No such file"),
    "a file as folder": (NotADirectoryError(errno.ENOTDIR, "Not a directory", "/x/y"), 2, "a file stands where"),
    "a folder as file": (IsADirectoryError(errno.EISDIR, "Is a directory", "/x"), 2, "a folder stands where"),
    "too long": (OSError(errno.ENAMETOOLONG, "File name too long", "/" + "a" * 5000), 2, "choose a shorter name"),
    "a loop": (OSError(errno.ELOOP, "Too many levels of symbolic links", "/x"), 2, "links lead back"),
    "a name of bytes": (OSError(errno.EACCES, "Permission denied", b"/x\xff"), 2, "Permission denied"),
    "a name with a line break": (OSError(errno.EACCES, "Permission denied", "/x\ny"), 2, "'/x\\ny'"),
    "a full disk": (OSError(errno.ENOSPC, "No space left on device", "/x"), 1, "make room, then run the same"),
    "a full disk, no name": (OSError(errno.ENOSPC, "No space left on device"), 1, "make room"),
    "a quota": (OSError(errno.EDQUOT, "Disk quota exceeded", "/x"), 1, "make room"),
    "a broken disk": (OSError(errno.EIO, "Input/output error", "/x"), 1, "look at the disk"),
    "no memory": (MemoryError(), 1, "out of memory in "),
    "no memory, by numpy": (MemoryError("Unable to allocate 7 EiB"), 1, "ask for less at once"),
    "too deep": (RecursionError("maximum recursion depth exceeded"), 1, "nested too deep in "),
    "a name that is no text": (UnicodeEncodeError("utf-8", "/x\udcff", 2, 3, "surrogates not allowed"), 2, "rename it"),
}


@pytest.mark.parametrize(("error", "code", "said"), ERRORS.values(), ids=ERRORS.keys())
def test_an_error_of_the_system_is_one_line(
    error: Exception, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def job(config: Config, _: cli.Invocation) -> cli.Outcome:
        raise error

    got, message, written = call(capsys, "out=x", "--verbose", job=cli.Command(Config, job))
    assert (got, said in message, "Traceback" in written) == (code, True, False), message
    assert "\n" not in message and len(message) < 400


BUGS = [KeyError("x"), TypeError("x"), AttributeError("x"), OSError("x"), AssertionError("x"), RuntimeError("x")]


@pytest.mark.parametrize("error", BUGS, ids=lambda error: type(error).__name__)
def test_a_bug_shows_its_traceback(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    def job(config: Config, _: cli.Invocation) -> cli.Outcome:
        raise error

    code, _, written = call(capsys, "out=x", job=cli.Command(Config, job))
    assert code == cli.FAILURE and "Traceback" in written


def test_causes_are_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    def job(config: Config, _: cli.Invocation) -> cli.Outcome:
        try:
            raise RuntimeError("An error occurred (403) when\n calling the HeadObject operation: Forbidden")
        except RuntimeError as error:
            raise PermissionError(errno.EACCES, "Permission denied", "/x") from error

    code, _, written = call(capsys, "out=x", "--verbose", job=cli.Command(Config, job))
    assert code == cli.WRONG_INPUT and "Traceback" not in written
    assert "caused by RuntimeError in " in written and "when calling the HeadObject operation: Forbidden" in written


@pytest.mark.parametrize("name", ["gallery"])
def test_the_page_of_a_job_is_checked_before_its_work(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (job,) = commands(name)[0].values()
    error = refused(capsys, [f"uri={tmp_path}/nowhere", "out=/dev/null/page.html"], job)
    assert "nowhere" in error or "/dev/null" in error


SCRIPT = """
import sys
from dataclasses import dataclass
from synthfer import cli
from synthfer.schema import option

@dataclass(frozen=True)
class Config:
    name: str = option("a", "x")

def job(config, invocation):
    for _ in range(int(sys.argv[-1][5:]) if sys.argv[-1].startswith("name=") else 0):
        invocation.results.print("x" * 1000)
    return cli.Outcome({"name": "caf\\u00e9 \\udcff", "lines": "y" * 100_000})

cli.run(Config, job)
"""


def run(tmp_path: Path, words: list[str], **options: Any) -> subprocess.Popen[bytes]:
    script = tmp_path / "job.py"
    script.write_text(SCRIPT)
    root = str(Path(__file__).resolve().parents[1])
    environment = {**os.environ, "PYTHONPATH": root, **options.pop("env", {})}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, str(script), *words], env=environment, **pipes, **options)


@pytest.mark.parametrize("words", [["--json"], [], ["name=3000"]], ids=["one object", "a summary", "a table"])
def test_a_reader_that_goes_away_is_no_error(tmp_path: Path, words: list[str]) -> None:
    with run(tmp_path, words) as job:
        assert job.stdout and job.stderr
        job.stdout.close()
        assert job.stderr.read() == b""
    assert job.returncode in (cli.COMPLETE, cli.FAILURE)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
@pytest.mark.parametrize("words", [["--json"], []], ids=["json", "text"])
def test_any_name_is_printed_in_any_locale(tmp_path: Path, encoding: str, words: list[str]) -> None:
    with run(tmp_path, words, env={"PYTHONIOENCODING": encoding}) as job:
        out, errors = job.communicate(timeout=120)
    assert job.returncode == cli.COMPLETE and b"Traceback" not in errors
    if words:
        assert json.loads(out.decode(encoding))["name"] == "caf\u00e9 \udcff"


def test_full_standard_output_is_one_line(tmp_path: Path) -> None:
    with open("/dev/full", "wb") as full:
        script = tmp_path / "job.py"
        script.write_text(SCRIPT)
        root = str(Path(__file__).resolve().parents[1])
        environment = {**os.environ, "PYTHONPATH": root}
        command = [sys.executable, str(script), "--json"]
        done = subprocess.run(command, env=environment, stdout=full, stderr=subprocess.PIPE, timeout=120, check=False)
    assert done.returncode == cli.FAILURE
    assert b"No space left on device" in done.stderr and b"Traceback" not in done.stderr


def test_every_error_has_its_words() -> None:
    assert explain(KeyError("x")).bug and not explain(MemoryError()).bug


@every_place
@pytest.mark.parametrize("job", ["generate", "ingest"])
def test_a_dry_run_says_that_no_dataset_can_be_there(
    place: str, job: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = {"generate": ["plan.total=7"], "ingest": ["source=avatars", "source.total=7"]}[job]
    if place in ("/proc/out", f"{tmp_path}/{'a' * 300}"):
        pytest.skip("only a try shows it, and a dry run writes nothing")
    refused(capsys, [f"out={place}", "--dry-run", *words], commands(job)[0][""])


def test_a_page_is_no_object_of_a_bucket(capsys: pytest.CaptureFixture[str]) -> None:
    error = refused(capsys, ["uri=out/x", "out=s3://bucket/x.html"], commands("gallery")[0][""])
    assert "out: the page is a local file" in error and "out=page.html" in error
