"""The command line that all jobs share: key=value words, help, dry runs, JSON, logs and exit codes.

A job is a function of its typed config. Results go to standard output, logs and progress to standard error;
with `--json` standard output is one line, the summary as a JSON object, for failures too.
"""

import contextlib
import json
import logging
import math
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from textwrap import indent
from typing import Any, NoReturn

import yaml
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from synthfer.addresses import redact
from synthfer.config import Key, keys, load
from synthfer.failures import cause_lines, explain
from synthfer.schema import ConfigError, to_dict

COMPLETE, FAILURE, WRONG_INPUT, STOPPED = 0, 1, 2, 3
FLAGS = {
    "--help": "Show this page, with the keys of the members that key=value words beside it choose.",
    "--config FILE": "Read keys from a YAML file; may be repeated, later files and key=value words win.",
    "--dry-run": "Check everything, show what would be done, and do nothing.",
    "--json": "Print one JSON object on standard output, for programs.",
    "--verbose": "Log more.",
    "--quiet": "Log warnings and errors only.",
}
EXIT_CODES = "0 complete, 1 failure, 2 wrong config or input, 3 stopped with work left: run it again."

log = logging.getLogger(__name__)


class Stopped(KeyboardInterrupt):
    """The work was stopped before its end; `summary` says how far it came.

    A signal may raise it at any line, so no handler of errors may swallow it. It is a `KeyboardInterrupt`, since a wait
    inside Ray goes on after any other exception that a handler of signals raises.
    """

    def __init__(self, message: str, summary: Mapping[str, Any] | None = None) -> None:
        super().__init__(message, summary)
        self.summary = dict(summary or {})

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True, slots=True)
class Invocation:
    """How a job was called, and where it may write: `results` for people, `status` for logs and progress."""

    results: Console
    status: Console
    json: bool = False
    verbose: bool = False
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a job: the exit code and a summary of JSON-able values."""

    summary: Mapping[str, Any] = field(default_factory=dict)
    code: int = COMPLETE


Job = Callable[[Any, Invocation], Outcome]


@dataclass(frozen=True, slots=True)
class Command:
    """A job with its config's dataclass; `dry_run` says what it would do, without it the config is shown.

    `redirect` gets the key=value words and config files, and returns the command that they are for, None for this one.
    """

    schema: type
    job: Job
    dry_run: Job | None = None
    about: str = ""
    example: str = ""
    redirect: "Callable[[Sequence[str], Sequence[str]], Command | None] | None" = None


def run(schema: type, job: Job, *, dry_run: Job | None = None, about: str = "", example: str = "") -> NoReturn:
    """Run a job by the words of the command line and exit with its code."""
    run_command(Command(schema, job, dry_run, about, example))


def run_command(command: Command) -> NoReturn:
    """Run a command by the words of the command line and exit with its code."""
    sys.exit(main({"": command}, sys.argv[1:]))


def run_commands(commands: Mapping[str, Command], about: str = "") -> NoReturn:
    """Run the job that the first word names, and exit with its code."""
    sys.exit(main(commands, sys.argv[1:], about))


def main(commands: Mapping[str, Command], words: Sequence[str], about: str = "", program: str = "") -> int:
    """Run one call of a job, print everything, and return its exit code.

    A single command has the empty name. `program` is how the help shows the call; without it, the script or module.
    """
    _print_any_text()
    flags = {flag: f"--{flag}" in words for flag in ("json", "verbose", "quiet")}
    results = Console(stderr=flags["json"], highlight=False)
    invocation = Invocation(results, Console(stderr=True, highlight=False), **flags)
    _set_up_logging(invocation)
    try:
        outcome = _run(commands, words, about, invocation, program or _script())
    except Stopped as error:
        log.warning("stopped: %s", error)
        outcome = Outcome({**error.summary, "stopped": str(error)}, STOPPED)
    except (KeyboardInterrupt, SystemExit) as error:
        # Ray puts a handler of SIGTERM over ours, which exits with the signal's number.
        if isinstance(error, SystemExit) and error.code != signal.SIGTERM:
            raise
        reason = "by a signal; run the same command again to go on"
        log.warning("stopped %s", reason)
        outcome = Outcome({"stopped": reason}, STOPPED)
    except BrokenPipeError as error:
        if not _nobody_reads():
            outcome = _failed(error)
        else:
            return FAILURE
    except Exception as error:  # noqa: BLE001 - the last place where an error can be reported
        outcome = _failed(error)
    try:
        return _report(outcome, invocation)
    except BrokenPipeError:
        _silence()
        return outcome.code
    except OSError as error:
        log.error("cannot write to standard output: %s", error.strerror)
        _silence()
        return FAILURE


def _run(
    commands: Mapping[str, Command], words: Sequence[str], about: str, invocation: Invocation, program: str
) -> Outcome:
    """Run the command that the words name, or print its help."""
    flags, files, rest = _parsed(words)
    if "" not in commands and (not rest or "=" in rest[0]):
        if "--help" not in flags:
            raise ConfigError(f"say which: {', '.join(commands)}; --help explains them")
        _print_commands(commands, about, program)
        return Outcome()
    name = "" if "" in commands else rest.pop(0)
    if name not in commands:
        near = get_close_matches(name[:80], commands, n=1) or [", ".join(commands)]
        raise ConfigError(f"there is no command {name[:80]!r}; did you mean {near[0]}?")
    command = commands[name]
    if command.redirect:
        command = command.redirect(rest, files) or command
    if "--help" in flags:
        _print_help(command, name, keys(command.schema, rest, files), program)
        return Outcome()
    config: Any = load(command.schema, rest, files)
    log.debug("config: %s", json.dumps(to_dict(config)))
    with _sigterm_stops():
        if "--dry-run" in flags:
            return (command.dry_run or _show_config)(config, invocation)
        return command.job(config, invocation)


def _parsed(words: Sequence[str]) -> tuple[set[str], list[str], list[str]]:
    """The words as flags, config files, and the rest."""
    flags, files, rest = set(), list[str](), list[str]()
    known = {flag.partition(" ")[0] for flag in FLAGS} | {"-h"}
    remaining = list(words)
    while remaining:
        word = remaining.pop(0)
        flag, equals, value = word.partition("=")
        if flag == "--config":
            if not equals and (not remaining or remaining[0].startswith("--")):
                raise ConfigError("--config needs a file: --config run.yaml")
            files.append(value if equals else remaining.pop(0))
        elif word in known:
            flags.add("--help" if word == "-h" else word)
        elif word.startswith("-"):
            near = get_close_matches(word[:80], known, n=1)
            dashless = f"keys have no dashes: write {word.lstrip('-')[:80]}" if equals else "--help lists the flags"
            raise ConfigError(f"unknown flag {word[:80]}; " + (f"did you mean {near[0]}?" if near else dashless))
        else:
            rest.append(word)
    return flags, files, rest


def _show_config(config: Any, invocation: Invocation) -> Outcome:
    """The dry run of a job that has none of its own: every key with its value."""
    return Outcome({"config": to_dict(config)})


@contextlib.contextmanager
def _sigterm_stops() -> Iterator[None]:
    """SIGTERM raises `Stopped` in the main thread; a job may install a handler of its own."""

    def stop(*_: object) -> NoReturn:
        raise Stopped("ended by SIGTERM; run the same command again to go on")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _failed(error: Exception) -> Outcome:
    """Wrong input, and failures that need no look at the code, in one line; a bug with its traceback."""
    failure = explain(error)
    if failure.bug:
        log.error("failed", exc_info=error)
    else:
        log.error("%s", failure.message)
        for line in cause_lines(error):
            log.debug("%s", line)
    return Outcome({"error": failure.message}, WRONG_INPUT if failure.wrong_input else FAILURE)


def _print_any_text() -> None:
    """Lets standard output take names of files that are no Unicode, and any text where the locale knows ASCII alone."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")


def _nobody_reads() -> bool:
    """Whether the reader of standard output has gone, as in `| head`; then nothing more is written there."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _silence()
        return True
    return False


def _silence() -> None:
    """Sends what is still to be printed nowhere: Python would try once more at its end, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _report(outcome: Outcome, invocation: Invocation) -> int:
    """Print the summary, for a program or for a person, and return the exit code."""
    if invocation.json:
        summary = {**_plain(outcome.summary), "code": outcome.code}
        ascii_only = not _can_print(text := json.dumps(summary, ensure_ascii=False))
        print(json.dumps(summary) if ascii_only else text, flush=True)
    elif outcome.code in (COMPLETE, STOPPED) and outcome.summary:
        width = max(map(len, outcome.summary)) + 2
        for key, value in outcome.summary.items():
            text = indent(redact(_readable(value)), " " * width).lstrip()
            invocation.results.print(f"[dim]{escape(redact(key)):<{width}}[/]{escape(text)}", soft_wrap=True)
    return outcome.code


def _can_print(text: str) -> bool:
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _plain(value: Any) -> Any:
    """JSON-able: numpy scalars as numbers, NaN and infinities as null, keys and the rest as text without secrets."""
    if isinstance(value, Mapping):
        return {redact(str(k)): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (int, float, bool, type(None))) else redact(str(value))


def _readable(value: Any) -> str:
    if isinstance(value, Mapping):
        if any(isinstance(v, Mapping) for v in value.values()):
            return yaml.safe_dump(_plain(value), sort_keys=False, default_flow_style=None, width=100).strip()
        return ", ".join(f"{k} {_readable(v)}" for k, v in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


def _page() -> Console:
    """Standard output, no wider than a person likes to read."""
    return Console(highlight=False, width=min(Console().width, 110))


def _print_commands(commands: Mapping[str, Command], about: str, program: str) -> None:
    console = _page()
    console.print(escape(about.strip()) + "\n")
    _print_list(console, "Commands", {name: [escape(command.about)] for name, command in commands.items()})
    console.print(f"\n{escape(program)} COMMAND --help lists the keys of a command.")


def _print_help(command: Command, name: str, known: Sequence[Key], program: str) -> None:
    """What the job does, its keys by section, the flags, an example, the exit codes."""
    console = _page()
    console.print(escape(command.about.strip()))
    console.print(f"\n[bold]Usage[/]  {escape(program)} {name + ' ' if name else ''}key=value … \\[flags]\n")
    sections: dict[str, dict[str, list[str]]] = {}
    for key in known:
        default = "must be given" if key.default is None else f"default {key.default}"
        lines = [escape(key.help), f"[dim]{escape(key.takes)}; {escape(default)}[/]"]
        sections.setdefault(key.path.partition(".")[0] if "." in key.path else "Keys", {})[key.path] = lines
    for title, rows in sections.items():
        _print_list(console, title, rows)
    _print_list(console, "Flags", {flag: [meaning] for flag, meaning in FLAGS.items()})
    if command.example:
        console.print("[bold]Example[/]")
        example = _as_called(command.example.strip(), program)
        console.print(f"  {escape(example)}", soft_wrap=True)  # rich's Padding would cut it at the console's width
    console.print(f"\n[bold]Exit codes[/]  {EXIT_CODES}")


def _print_list(console: Console, title: str, rows: Mapping[str, Sequence[str]]) -> None:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, min_width=24, style="cyan")
    grid.add_column()
    for name, lines in rows.items():
        grid.add_row(escape(name), "\n".join(line for line in lines if line))
    console.print(f"[bold]{escape(title)}[/]")
    console.print(Padding(grid, (0, 0, 1, 2)))


def _script() -> str:
    """How this program was called: a file, or a package by `-m`."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    package = spec.name.removesuffix(".__main__") if spec else ""
    return f"python -m {package}" if package.startswith("synthfer") else f"python {sys.argv[0]}"


def _as_called(example: str, program: str) -> str:
    """An example by the command `synthfer` where that was called: examples are written for the scripts."""
    if not program.startswith("synthfer "):
        return example
    return re.sub(r"python (?:jobs/|-m synthfer\.)\w+(?:\.py)?", program, example)


class _Redacting(logging.Formatter):
    """Messages and tracebacks without the secrets that addresses hold, as text that any stream takes."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record)).encode(errors="backslashreplace").decode()


def _set_up_logging(invocation: Invocation) -> None:
    """Time, level and message on standard error; other packages only speak up for warnings."""
    handler: logging.Handler
    if invocation.status.is_terminal:
        handler = RichHandler(console=invocation.status, show_path=False, omit_repeated_times=False)
        handler.setFormatter(_Redacting("%(message)s", "%H:%M:%S"))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(_Redacting("%(asctime)s %(levelname)s %(message)s"))
    level = logging.WARNING if invocation.quiet else logging.DEBUG if invocation.verbose else logging.INFO
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("synthfer").setLevel(level)
