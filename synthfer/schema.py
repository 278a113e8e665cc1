"""Schemas: dataclasses whose fields say what they take, and plain values read into them.

    @dataclass(frozen=True, kw_only=True)
    class Config:
        total: int = option(700, "rows", low=1)

    Reader({}, [], problems).section(Config, {"total": 7}, "")

The same dataclasses hold the user's config (`synthfer.config`) and files from outside (`synthfer.documents`). All
problems are reported at once, each with its full key.
"""

import dataclasses
import re
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from synthfer.addresses import redact
from synthfer.validation import MismatchError, convert, describe, show

REQUIRED: Any = dataclasses.MISSING
"""The default of an option that the user must give."""


_LISTED = 20
_SECRET = re.compile(r"(^|_)(secrets?|token|passwords?|credentials?)(_|$)")


class ConfigError(ValueError):
    """The user's config or input is wrong: each problem names the key, what was given and what is expected."""

    def __str__(self) -> str:
        if len(self.args) == 1:
            return redact(str(self.args[0]))
        more = [f"  and {len(self.args) - _LISTED} more"] if len(self.args) > _LISTED else []
        listed = (f"  - {problem}" for problem in self.args[:_LISTED])
        return redact("\n".join([f"{len(self.args)} problems:", *listed, *more]))


def option(
    default: Any,
    help: str,  # noqa: A002 - the word users know
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[Any, ...] | None = None,
) -> Any:
    """A dataclass field with its meaning and range, for `--help` and for checks. Mutable defaults are copied.

    Range and choices hold for every number or text inside a list or a map, too.
    """
    metadata = {"help": help, "low": low, "high": high, "choices": choices}
    if isinstance(default, (list, dict, set)):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Choice:
    """A section that was picked by name: the name, and the filled `Config` of the module that has it."""

    name: str
    options: Any


@dataclass(frozen=True, slots=True)
class RegistryField:
    names: Callable[[], Sequence[str]]
    module: Callable[[str], Any]
    default: str


def registry_section(names: Callable[[], Sequence[str]], module: Callable[[str], Any], *, default: str, of: str) -> Any:
    """A field whose keys depend on its `name`: the `Config` of `module(name)`, imported when it is needed.

    It loads as a `Choice`; `key=NAME` is short for `key.name=NAME`. `of` says what is picked; `module` raises
    `ValueError` for a name that is not there.
    """

    def chosen() -> Choice:
        return Choice(default, module(default).Config())

    metadata = {"help": of, "registry": RegistryField(names, module, default)}
    return dataclasses.field(default_factory=chosen, metadata=metadata)


def registry_sections(names: Callable[[], Sequence[str]], module: Callable[[str], Any], *, of: str) -> Any:
    """A field with a section for each member that is asked for: `key.NAME.option=value`.

    It loads as a tuple of `Choice`, sorted by name. `key=NAME` and `key=[NAME, NAME]` ask for members with their
    defaults; `key.NAME=null` takes one away that a preset asks for. `of` says what is asked for.
    """
    return dataclasses.field(default=(), metadata={"help": of, "members": RegistryField(names, module, "")})


def to_dict(config: Any) -> Any:
    """A config as plain JSON-able values; what is secret by its name (`hf_token`, `password`) is `***`."""
    return plain(config, hide=True)


def plain(value: Any, hide: bool) -> Any:
    if isinstance(value, Choice):
        return {"name": value.name} | plain(value.options, hide)
    if dataclasses.is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        masked = {k for k, v in value.items() if hide and v is not None and _SECRET.search(str(k))}
        return {k: "***" if k in masked else plain(v, hide) for k, v in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(item, hide) for item in value]
    return str(value) if isinstance(value, Path) else value


def schema_of(field: dataclasses.Field[Any], hint: Any, given: Any) -> type | None:
    """The dataclass that a section is read into; None where the field is none, or names what is not there."""
    registry: RegistryField | None = field.metadata.get("registry")
    if registry is None:
        return hint if dataclasses.is_dataclass(hint) else None  # type: ignore[return-value]
    try:
        return typing.cast(type, registry.module(member_name(registry, given)).Config)
    except (ValueError, ImportError):
        return None


def member_name(registry: RegistryField, given: Any) -> str:
    return str((given.get("name") if isinstance(given, Mapping) else None) or registry.default)


def sections(schema: type, given: Any) -> Iterator[tuple[dataclasses.Field[Any], Any, type | None, Any]]:
    """Each field of a schema with its type, the dataclass of a section, and what was given for it."""
    hints = typing.get_type_hints(schema)
    for field in dataclasses.fields(schema):
        inner = given.get(field.name) if isinstance(given, Mapping) else None
        yield field, hints[field.name], schema_of(field, hints[field.name], inner), inner


def default_of(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def show_value(key: str, value: Any, secret: str = "(hidden)") -> str:
    hidden = value is not None and _SECRET.search(key.rpartition(".")[2])
    return secret if hidden else show(to_dict(value))


class Reader:
    """Turns plain values into dataclasses, noting every problem on the way."""

    def __init__(self, texts: Mapping[str, str], known: Sequence[str], problems: list[str]) -> None:
        self.texts, self.known, self.problems = texts, known, problems

    def section(self, schema: type, values: Any, prefix: str) -> Any:
        """An instance of `schema`, or None where something is wrong with it."""
        before = len(self.problems)
        if not isinstance(values, Mapping):
            key = prefix.rstrip(".")
            self.problems.append(f"{key} is a section: give its keys ({key}.…=…), not {show_value(key, values)}")
            return None
        fields = {field.name: (field, hint) for field, hint, _, _ in sections(schema, values)}
        self.problems += [self.unknown(f"{prefix}{key}", list(fields)) for key in values if key not in fields]
        needed = [name for name in fields if name in values or default_of(fields[name][0]) is REQUIRED]
        filled = {name: self.field(*fields[name], values, prefix) for name in needed}
        if len(self.problems) > before:
            return None
        try:
            return schema(**filled)
        except ValueError as error:
            names_key = str(error).partition(":")[0] in fields
            self.problems += [f"{prefix}{error}" if names_key or not prefix else f"{prefix.rstrip('.')}: {error}"]
            return None

    def field(self, field: dataclasses.Field[Any], hint: Any, values: Mapping[str, Any], prefix: str) -> Any:
        key, registry = f"{prefix}{field.name}", field.metadata.get("registry")
        if self.texts.get(key) == "":  # reported already
            return None
        if field.name not in values:
            self.problems.append(self.needed(key, field.metadata.get("help", "")))
            return None
        value = values[field.name]
        if registry:
            return self.choice(registry, value, key)
        if "members" in field.metadata:
            return self.members(field.metadata["members"], value, key)
        return self.value(hint, value, key, field.metadata)

    def value(self, hint: Any, value: Any, key: str, metadata: Mapping[str, Any]) -> Any:
        """A value as its type wants it: a section, a list or map of sections, or what `convert` knows."""
        if dataclasses.is_dataclass(hint):
            return self.section(typing.cast(type, hint), value, f"{key}.")
        inner = typing.get_args(hint)
        if inner and dataclasses.is_dataclass(inner[-1]) and typing.get_origin(hint) in (list, tuple):
            if isinstance(value, list):
                parts = (self.value(inner[0], part, f"{key}[{number}]", metadata) for number, part in enumerate(value))
                return typing.get_origin(hint)(parts)
        elif inner and dataclasses.is_dataclass(inner[-1]) and isinstance(value, Mapping):
            return {name: self.value(inner[-1], part, f"{key}.{name}", metadata) for name, part in value.items()}
        try:
            return convert(hint, self.texts.get(key), value, metadata)
        except MismatchError:
            self.problems.append(f"{key}: expected {describe(hint, metadata)}, got {self.shown(key, value)}")
            return None

    def choice(self, registry: RegistryField, value: Any, key: str) -> Choice | None:
        if not isinstance(value, Mapping):
            self.problems.append(f"{key} is a section: write {key}.name={show_value(key, value)}")
            return None
        try:
            schema = registry.module(member_name(registry, value)).Config
        except (ValueError, ImportError) as error:
            self.problems.append(f"{key}.name: {error}")
            return None
        options = {k: v for k, v in value.items() if k != "name"}
        return Choice(member_name(registry, value), self.section(schema, options, f"{key}."))

    def members(self, registry: RegistryField, values: Any, key: str) -> tuple[Choice, ...]:
        """The sections of the members that are asked for, sorted by name."""
        if not isinstance(values, Mapping):
            if values is not None:
                self.problems.append(
                    f"{key} takes names: write {key}=NAME or {key}=[NAME, NAME], not {show_value(key, values)}"
                )
            return ()
        choices = []
        for name in sorted(name for name, options in values.items() if options is not None):
            try:
                schema = registry.module(name).Config
            except (ValueError, ImportError) as error:
                # Perhaps an option of a member, given without the member's name.
                likely = [known for known in self.known if known.startswith(f"{key}.") and known.endswith(f".{name}")]
                said = f"unknown key {key}.{name}; did you mean {likely[0]}?" if likely else f"{key}: {error}"
                self.problems.append(said)
                continue
            choices.append(Choice(name, self.section(schema, values[name], f"{key}.{name}.")))
        return tuple(choices)

    def shown(self, key: str, value: Any) -> str:
        """A value that does not fit, as its writer wrote it."""
        return show_value(key, value)

    def needed(self, key: str, meaning: str) -> str:
        """The message about a key without which the section cannot be."""
        return f"{key} is needed, add {key}=…: {meaning}"

    def unknown(self, key: str, fields: Sequence[str]) -> str:
        """The message about an unknown key, with the nearest known one: the same last word, else similar letters."""
        parent, _, last = key.rpartition(".")
        anywhere = {known.rpartition(".")[2]: known for known in self.known}
        beside = {known.rpartition(".")[2]: known for known in self.known if known.rpartition(".")[0] == parent}
        for known, cutoff in ((anywhere, 1.0), (beside, 0.65), (anywhere, 0.65)):
            if near := get_close_matches(last[:80], known, n=1, cutoff=cutoff):
                return f"unknown key {key}; did you mean {known[near[0]]}?"
        return f"unknown key {key}; --help lists the keys"
