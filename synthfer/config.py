"""Typed configs: dataclasses filled from YAML files and key=value words, with errors that say what to do.

Files and words are merged and interpolated (`${plan.seed}`) by OmegaConf; the dataclasses alone define what the
result may hold. All problems of a config are reported at once, each with its full key.
"""

import contextlib
import dataclasses
import re
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from synthfer.validation import MismatchError, convert, describe, show

T = TypeVar("T")
REQUIRED: Any = dataclasses.MISSING
"""The default of an option that the user must give."""

_SECRET = re.compile(r"(^|_)(secrets?|token|passwords?|credentials?)(_|$)")


class ConfigError(ValueError):
    """The user's config or input is wrong: each problem names the key, what was given and what is expected."""

    def __str__(self) -> str:
        if len(self.args) == 1:
            return str(self.args[0])
        return "\n".join([f"{len(self.args)} problems:", *(f"  - {problem}" for problem in self.args)])


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
class _Registry:
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

    metadata = {"help": of, "registry": _Registry(names, module, default)}
    return dataclasses.field(default_factory=chosen, metadata=metadata)


def registry_sections(names: Callable[[], Sequence[str]], module: Callable[[str], Any], *, of: str) -> Any:
    """A field with a section for each member that is asked for: `key.NAME.option=value`.

    It loads as a tuple of `Choice`, sorted by name. `key=NAME` and `key=[NAME, NAME]` ask for members with their
    defaults; `key.NAME=null` takes one away that a preset asks for. `of` says what is asked for.
    """
    return dataclasses.field(default=(), metadata={"help": of, "members": _Registry(names, module, "")})


@dataclass(frozen=True, slots=True)
class Key:
    """One key as `--help` shows it: path, what it takes, its default (None: must be given), its meaning."""

    path: str
    takes: str
    default: str | None
    help: str


def load(schema: type[T], words: Sequence[str] = (), files: Sequence[str | Path] = ()) -> T:
    """The config of dataclass `schema` from YAML `files`, later ones winning, then key=value `words`.

    A value is read as YAML (`[a, b]`, `{fear: 3}`, `null`), or as it stands where the key takes text. Raises
    `ConfigError` with all that is wrong.
    """
    given, texts, problems = _gather(schema, words, files)
    try:
        merged = OmegaConf.merge(_defaults(schema, given), given)
        values = OmegaConf.to_container(merged, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(*problems, f"{error.full_key or 'config'}: {str(error).splitlines()[0]}") from error
    reader = _Reader(texts, [key.path for key in _keys(schema, given)], problems)
    config = reader.section(schema, values, "")
    if problems:
        raise ConfigError(*problems)
    return typing.cast(T, config)


def keys(schema: type, words: Sequence[str] = (), files: Sequence[str | Path] = ()) -> list[Key]:
    """Every key of `schema`, in order; `words` and `files` say whose keys a section picked by name shows."""
    return list(_keys(schema, _gather(schema, words, files)[0]))


def given(schema: type, words: Sequence[str] = (), files: Sequence[str | Path] = ()) -> dict[str, Any]:
    """What `words` and `files` say of `schema`, as one tree that nobody has checked. `ConfigError`: a file is none."""
    return _gather(schema, words, files)[0]


def to_dict(config: Any) -> Any:
    """A config as plain JSON-able values; what is secret by its name (`hf_token`, `password`) is `***`."""
    return _plain(config, hide=True)


def _plain(value: Any, hide: bool) -> Any:
    if isinstance(value, Choice):
        return {"name": value.name} | _plain(value.options, hide)
    if dataclasses.is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        masked = {k for k, v in value.items() if hide and v is not None and _SECRET.search(str(k))}
        return {k: "***" if k in masked else _plain(v, hide) for k, v in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(item, hide) for item in value]
    return str(value) if isinstance(value, Path) else value


def _gather(
    schema: type, words: Sequence[str], files: Sequence[str | Path]
) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    """What was given as one tree, the texts of the words by key, and what is wrong with the words."""
    tree, texts, problems = OmegaConf.create({}), dict[str, str](), list[str]()
    picked_by_name, several = (
        {field.name for field in dataclasses.fields(schema) if kind in field.metadata}
        for kind in ("registry", "members")
    )
    for file in files:
        for key, value in _read_file(Path(file)).items():
            short = key in picked_by_name and isinstance(value, str)
            value = _members(value) if key in several else value
            OmegaConf.update(tree, f"{key}.name" if short else str(key), value, merge=True, force_add=True)
    for word in words:
        key, equals, text = (part.strip() for part in word.partition("="))
        key = f"{key}.name" if key in picked_by_name and not text.startswith("{") else key
        if not equals or not all(key.split(".")):
            problems.append(f"{word!r} is not a key=value word; --help lists the keys")
        elif not text:
            problems.append(f"{key}= has no value; write {key}=null for none, {key}=\"''\" for empty text")
            texts[key] = text
        else:
            value = _members(_parsed(text)) if key in several else _parsed(text)
            OmegaConf.update(tree, key, value, merge=True, force_add=True)
            texts = {k: v for k, v in texts.items() if not k.startswith(f"{key}.")} | {key: text}
    given = typing.cast(dict[str, Any], OmegaConf.to_container(tree, resolve=False))
    return _above_preset(schema, given), texts, problems


def _members(value: Any) -> Any:
    """The sections that a name, or a list of names, stands for; anything else as it is."""
    names = [value] if isinstance(value, str) else value
    return {str(name): {} for name in names} if isinstance(names, list) else value


def _above_preset(schema: type, given: dict[str, Any]) -> dict[str, Any]:
    """What was given and, for keys that were not, the schema's `preset_of` it."""
    preset_of: Callable[[Any], dict[str, Any]] = getattr(schema, "preset_of", lambda given: {})
    with contextlib.suppress(OmegaConfBaseException):  # what is no section is reported where it is read
        merged = OmegaConf.to_container(OmegaConf.merge(preset_of(given), given), resolve=False)
        return typing.cast(dict[str, Any], merged)
    return given


def _read_file(path: Path) -> dict[Any, Any]:
    try:
        values = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a YAML config: {' '.join(str(error).split())}") from error
    except OSError as error:
        raise ConfigError(f"cannot read the config file {path}: {error.strerror or error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold a map of keys, not a list or a single value")
    return values


def _parsed(text: str) -> Any:
    """The value of a word read as YAML; text that is not YAML stands for itself."""
    try:
        values = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]), resolve=False)
    except (yaml.YAMLError, OmegaConfBaseException):
        return text
    return typing.cast(dict[str, Any], values)["value"]


def _schema_of(field: dataclasses.Field[Any], hint: Any, given: Any) -> type | None:
    """The dataclass that a section is read into; None where the field is none, or names what is not there."""
    registry: _Registry | None = field.metadata.get("registry")
    if registry is None:
        return hint if dataclasses.is_dataclass(hint) else None  # type: ignore[return-value]
    try:
        return typing.cast(type, registry.module(_name(registry, given)).Config)
    except (ValueError, ImportError):
        return None


def _name(registry: _Registry, given: Any) -> str:
    return str((given.get("name") if isinstance(given, Mapping) else None) or registry.default)


def _sections(schema: type, given: Any) -> Iterator[tuple[dataclasses.Field[Any], Any, type | None, Any]]:
    """Each field of a schema with its type, the dataclass of a section, and what was given for it."""
    hints = typing.get_type_hints(schema)
    for field in dataclasses.fields(schema):
        inner = given.get(field.name) if isinstance(given, Mapping) else None
        yield field, hints[field.name], _schema_of(field, hints[field.name], inner), inner


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _defaults(schema: type, given: Any) -> dict[str, Any]:
    """The tree of default values, which interpolations may point to."""
    values: dict[str, Any] = {}
    for field, _, nested, inner in _sections(schema, given):
        registry, default = field.metadata.get("registry"), _default(field)
        if "members" in field.metadata:
            schemas = _member_schemas(field.metadata["members"], inner)
            values[field.name] = {name: _defaults(schemas[name], options) for name, options in _on(inner, schemas)}
            continue
        if isinstance(inner, (list, dict)) and isinstance(inner, list) is not isinstance(default, list):
            continue  # a list does not merge with what is none; the reader says what is wrong
        if nested:
            values[field.name] = _defaults(nested, inner)
        if registry:
            values[field.name] = values.get(field.name, {}) | {"name": _name(registry, inner)}
        elif not nested and default is not REQUIRED:
            values[field.name] = _plain(default, hide=False)
    return values


def _member_schemas(registry: _Registry, given: Any) -> dict[str, type]:
    """The `Config` of each member that ships or is asked for, by name; names that no module has are left out."""
    schemas = {}
    for name in map(str, dict.fromkeys([*registry.names(), *(given if isinstance(given, Mapping) else ())])):
        with contextlib.suppress(ValueError, ImportError):
            schemas[name] = registry.module(name).Config
    return schemas


def _on(given: Any, schemas: Mapping[str, type]) -> Iterator[tuple[str, Any]]:
    """The members that are asked for, with what was given for them."""
    pairs = given.items() if isinstance(given, Mapping) else ()
    return ((name, options) for name, options in pairs if name in schemas and isinstance(options, Mapping))


def _keys(schema: type, given: Any, prefix: str = "") -> Iterator[Key]:
    for field, hint, nested, inner in _sections(schema, given):
        path, registry = f"{prefix}{field.name}", field.metadata.get("registry")
        if registry:
            known = f"{', '.join(registry.names())}, or a dotted module name"
            yield Key(f"{path}.name", "text", registry.default, f"{field.metadata['help']}: {known}")
        if "members" in field.metadata:
            yield from _member_keys(path, field, inner)
        elif nested:
            yield from _keys(nested, inner, f"{path}.")
        elif not registry:
            default = _default(field)
            shown = None if default is REQUIRED else _show(path, _plain(default, hide=True), secret="set")
            yield Key(path, describe(hint, field.metadata), shown, field.metadata.get("help", ""))


def _member_keys(path: str, field: dataclasses.Field[Any], given: Any) -> Iterator[Key]:
    registry: _Registry = field.metadata["members"]
    schemas = _member_schemas(registry, given)
    known = f"{', '.join(registry.names())}, or a dotted module name"
    shown = ", ".join(name for name, _ in _on(given, schemas))
    yield Key(path, "names", f"[{shown}]", f"{field.metadata['help']}: {known}")
    for name, schema in schemas.items():
        yield from _keys(schema, given.get(name) if isinstance(given, Mapping) else None, f"{path}.{name}.")


def _show(key: str, value: Any, secret: str = "(hidden)") -> str:
    hidden = value is not None and _SECRET.search(key.rpartition(".")[2])
    return secret if hidden else show(to_dict(value))


class _Reader:
    """Turns plain values into dataclasses, noting every problem on the way."""

    def __init__(self, texts: Mapping[str, str], known: Sequence[str], problems: list[str]) -> None:
        self.texts, self.known, self.problems = texts, known, problems

    def section(self, schema: type, values: Any, prefix: str) -> Any:
        """An instance of `schema`, or None where something is wrong with it."""
        before = len(self.problems)
        if not isinstance(values, Mapping):
            key = prefix.rstrip(".")
            self.problems.append(f"{key} is a section: give its keys ({key}.…=…), not {_show(key, values)}")
            return None
        fields = {field.name: (field, hint) for field, hint, _, _ in _sections(schema, values)}
        self.problems += [self.unknown(f"{prefix}{key}") for key in values if key not in fields]
        needed = [name for name in fields if name in values or _default(fields[name][0]) is REQUIRED]
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
            self.problems.append(f"{key} is needed, add {key}=…: {field.metadata.get('help', '')}")
            return None
        value = values[field.name]
        if registry:
            return self.choice(registry, value, key)
        if "members" in field.metadata:
            return self.members(field.metadata["members"], value, key)
        if dataclasses.is_dataclass(hint):
            return self.section(typing.cast(type, hint), value, f"{key}.")
        try:
            return convert(hint, self.texts.get(key), value, field.metadata)
        except MismatchError:
            expected = describe(hint, field.metadata)
            self.problems.append(f"{key}: expected {expected}, got {_show(key, value)}")
            return None

    def choice(self, registry: _Registry, value: Any, key: str) -> Choice | None:
        if not isinstance(value, Mapping):
            self.problems.append(f"{key} is a section: write {key}.name={_show(key, value)}")
            return None
        try:
            schema = registry.module(_name(registry, value)).Config
        except (ValueError, ImportError) as error:
            self.problems.append(f"{key}.name: {error}")
            return None
        options = {k: v for k, v in value.items() if k != "name"}
        return Choice(_name(registry, value), self.section(schema, options, f"{key}."))

    def members(self, registry: _Registry, values: Any, key: str) -> tuple[Choice, ...]:
        """The sections of the members that are asked for, sorted by name."""
        if not isinstance(values, Mapping):
            if values is not None:
                self.problems.append(
                    f"{key} takes names: write {key}=NAME or {key}=[NAME, NAME], not {_show(key, values)}"
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

    def unknown(self, key: str) -> str:
        """The message about an unknown key, with the nearest known one: the same last word, else similar letters."""
        parent, _, last = key.rpartition(".")
        anywhere = {known.rpartition(".")[2]: known for known in self.known}
        beside = {known.rpartition(".")[2]: known for known in self.known if known.rpartition(".")[0] == parent}
        for known, cutoff in ((anywhere, 1.0), (beside, 0.65), (anywhere, 0.65)):
            if near := get_close_matches(last, known, n=1, cutoff=cutoff):
                return f"unknown key {key}; did you mean {known[near[0]]}?"
        return f"unknown key {key}; --help lists the keys"
