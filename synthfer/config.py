"""Typed configs: dataclasses filled from YAML files and key=value words, with errors that say what to do.

Later files and words win over earlier ones, and a value may name another key (`${plan.seed}`: `synthfer.references`);
the dataclasses alone define what the result may hold. All problems of a config are reported at once, each with its
full key.
"""

import contextlib
import dataclasses
import re
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from synthfer import addresses
from synthfer.documents import MAX_DEPTH, MAX_YAML_BYTES, MAX_YAML_VALUES, DocumentError, check_plain, read_yaml
from synthfer.files import read_file
from synthfer.references import resolve
from synthfer.schema import (
    REQUIRED,
    ConfigError,
    Reader,
    RegistryField,
    default_of,
    member_name,
    plain,
    sections,
    show_value,
)
from synthfer.validation import describe

T = TypeVar("T")

MAX_WORD = 2**16
"""Characters of a key=value word: lists of addresses are far shorter, and YAML takes its time."""
_KEY_PART = re.compile(r"[^\s.=\[\]{}$\\'\"\x00-\x1f\x7f\ud800-\udfff]{1,200}")


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
        values = resolve(_merged(_defaults(schema, given), given))
        check_plain(values, "the config, with its references,", MAX_YAML_VALUES)
    except (ConfigError, DocumentError) as error:
        raise ConfigError(*problems, *error.args) from error
    problems += _bad_texts(values)
    reader = Reader(texts, [key.path for key in _keys(schema, given)], problems)
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


def _gather(
    schema: type, words: Sequence[str], files: Sequence[str | Path]
) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    """What was given as one tree, the texts of the words by key, and what is wrong with the words."""
    tree, texts, problems = dict[str, Any](), dict[str, str](), list[str]()
    picked_by_name, several = (
        {field.name for field in dataclasses.fields(schema) if kind in field.metadata}
        for kind in ("registry", "members")
    )
    for file in files:
        for key, value in _read_file(Path(file)).items():
            short = key in picked_by_name and isinstance(value, str)
            value = _members(value) if key in several else value
            tree = _updated(tree, f"{key}.name" if short else str(key), value)
    for word in words:
        key, equals, text = (part.strip() for part in word.partition("="))
        key = f"{key}.name" if key in picked_by_name and not text.startswith("{") else key
        if not equals or not _is_key(key):
            problems.append(f"{_shown(word)} is not a key=value word; --help lists the keys")
        elif not text:
            problems.append(f"{key}= has no value; write {key}=null for none, {key}=\"''\" for empty text")
            texts[key] = text
        elif problem := _problem_of(word):
            problems.append(f"{key}: {problem}")
            texts[key] = ""
        else:
            value = _members(_parsed(text)) if key in several else _parsed(text)
            tree = _updated(tree, key, value)
            texts = {k: v for k, v in texts.items() if not k.startswith(f"{key}.")} | {key: text}
    return _above_preset(schema, tree), texts, problems


def _is_key(key: str) -> bool:
    parts = key.split(".")
    return len(parts) <= MAX_DEPTH and all(map(_KEY_PART.fullmatch, parts))


def _shown(word: str) -> str:
    return repr(word if len(word) <= 80 else f"{word[:60]}...")


def _problem_of(word: str) -> str | None:
    """Why a word cannot be read, whatever its key takes."""
    if len(word) > MAX_WORD:
        return (
            f"the word has {len(word):,} characters, more than {MAX_WORD:,}: write the value into a file, --config FILE"
        )
    try:
        word.encode()
    except UnicodeEncodeError:
        return f"{_shown(word)} is not Unicode text (UTF-8)"
    return f"{_shown(word)} holds a NUL character" if "\0" in word else None


def _bad_texts(value: Any, key: str = "") -> Iterator[str]:
    """A problem for each text that no key takes: NUL characters, addresses that hold secrets."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if problem := addresses.problem_of(str(name)):
                yield f"{key or 'config'}: a key {problem}"
            yield from _bad_texts(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for inner in value:
            yield from _bad_texts(inner, key)
    elif isinstance(value, str):
        if "\0" in value:
            yield f"{key}: {_shown(value)} holds a NUL character"
        elif problem := addresses.problem_of(value):
            yield f"{key}: {problem}"


def _updated(tree: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """The tree with the value of a dotted key: sections are merged, anything else is replaced."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return typing.cast(dict[str, Any], _merged(tree, value))


def _merged(below: Any, above: Any) -> Any:
    if not (isinstance(below, Mapping) and isinstance(above, Mapping)):
        return above
    return {**below, **{key: _merged(below[key], value) if key in below else value for key, value in above.items()}}


def _members(value: Any) -> Any:
    """The sections that a name, or a list of names, stands for; anything else as it is."""
    names = [value] if isinstance(value, str) else value
    return {str(name): {} for name in names} if isinstance(names, list) else value


def _above_preset(schema: type, given: dict[str, Any]) -> dict[str, Any]:
    """What was given and, for keys that were not, the schema's `preset_of` it."""
    preset_of: Callable[[Any], dict[str, Any]] = getattr(schema, "preset_of", lambda given: {})
    return typing.cast(dict[str, Any], _merged(preset_of(given), given))


def _read_file(path: Path) -> dict[Any, Any]:
    try:
        values = read_yaml(read_file(path, MAX_YAML_BYTES), str(path))
    except DocumentError as error:
        raise ConfigError(f"the config file {error}") from error
    except (OSError, ValueError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise ConfigError(f"cannot read the config file {str(path)[:200]}: {reason}") from error
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path} must hold a map of keys, not a list or a single value")
    if wrong := [key for key in values if not (type(key) in (str, int) and _is_key(str(key)))]:
        raise ConfigError(f"{path}: {_shown(str(wrong[0]))} is not a key; --help lists the keys")
    return dict(values)


def _parsed(text: str) -> Any:
    """The value of a word read as YAML; text that is not YAML stands for itself."""
    try:
        return read_yaml(text, "the value")
    except DocumentError:
        return text


def _defaults(schema: type, given: Any) -> dict[str, Any]:
    """The tree of default values, which interpolations may point to."""
    values: dict[str, Any] = {}
    for field, _, nested, inner in sections(schema, given):
        registry, default = field.metadata.get("registry"), default_of(field)
        if "members" in field.metadata:
            schemas = _member_schemas(field.metadata["members"], inner)
            values[field.name] = {name: _defaults(schemas[name], options) for name, options in _on(inner, schemas)}
            continue
        if isinstance(inner, (list, dict)) and isinstance(inner, list) is not isinstance(default, list):
            continue  # a list does not merge with what is none; the reader says what is wrong
        if nested:
            values[field.name] = _defaults(nested, inner)
        if registry:
            values[field.name] = values.get(field.name, {}) | {"name": member_name(registry, inner)}
        elif not nested and default is not REQUIRED:
            values[field.name] = plain(default, hide=False)
    return values


def _member_schemas(registry: RegistryField, given: Any) -> dict[str, type]:
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
    for field, hint, nested, inner in sections(schema, given):
        path, registry = f"{prefix}{field.name}", field.metadata.get("registry")
        if registry:
            known = f"{', '.join(registry.names())}, or a dotted module name"
            yield Key(f"{path}.name", "text", registry.default, f"{field.metadata['help']}: {known}")
        if "members" in field.metadata:
            yield from _member_keys(path, field, inner)
        elif nested:
            yield from _keys(nested, inner, f"{path}.")
        elif not registry:
            default = default_of(field)
            shown = None if default is REQUIRED else show_value(path, plain(default, hide=True), secret="set")
            yield Key(path, describe(hint, field.metadata), shown, field.metadata.get("help", ""))


def _member_keys(path: str, field: dataclasses.Field[Any], given: Any) -> Iterator[Key]:
    registry: RegistryField = field.metadata["members"]
    schemas = _member_schemas(registry, given)
    known = f"{', '.join(registry.names())}, or a dotted module name"
    shown = ", ".join(name for name, _ in _on(given, schemas))
    yield Key(path, "names", f"[{shown}]", f"{field.metadata['help']}: {known}")
    for name, schema in schemas.items():
        yield from _keys(schema, given.get(name) if isinstance(given, Mapping) else None, f"{path}.{name}.")
